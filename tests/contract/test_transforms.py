"""What PyTorch makes of whole models: exported programs of any batch and length, gradients of each sequence."""

from typing import Any

import pytest
import torch
from contract_models import models
from contract_specs import Document, double, example, host, inputs, redraw
from torch import Tensor, nn
from torch.export import Dim, export
from torch.func import functional_call, grad, vmap

import archspec
from archspec.language.model import Spec

EXPORTED = ("mixer-attention-0", "mixer-mla-0", "mixer-mamba-0", "mixer-mamba2-0", "mixer-hyena-0", "ffn-moe-0",
            "position-alibi-0", "t5_layers", "bert", "encoder_decoder")  # fmt: skip
RECURRENT = ("mixer-lstm-0", "mixer-gru-0", "mixer-rnn-0")
OWN_GRADIENTS = ("mixer-attention-0", "mixer-mla-0", "bert")  # of PyTorch's own operations alone
NO_GRADIENTS = ("ffn-moe-0", "mixer-mamba-0", "encoder_decoder")  # with an operator of torch.library


def made(name: str) -> tuple[Spec, nn.Module]:
    """A model that takes a mask where it can, in float64."""
    role, _, rest = name.partition("-")
    kind, _, number = rest.rpartition("-")
    document: Document = host(role, example(role, kind, int(number)))[0] if kind else models()[name]
    spec = archspec.load(document).taking("mask")
    return spec, redraw(archspec.build(spec)).double().eval()


def padded(spec: Spec, B: int, T: int) -> dict[str, Any]:
    """Inputs with a mask for each stack, the rows of different lengths."""
    given = double(inputs(spec, T=T, B=B))
    for a in spec.arguments:
        if a.of == "mask":
            given[a.name] = torch.arange(T) >= torch.arange(B).unsqueeze(1).clamp(max=T - 1)
    return given


def sizes(spec: Spec) -> dict[str, dict[int, Dim]]:
    """Batch and lengths of all inputs, left open."""
    B, lengths = Dim("B", min=2, max=64), {s.name: Dim(f"T_{s.name}", min=2, max=30) for s in spec.stacks}
    given = padded(spec, 3, 9)
    return {a.name: {0: B, 1: lengths[a.stack]} for a in spec.arguments if a.name in given}


@pytest.mark.parametrize("name", EXPORTED)
@torch.no_grad()
def test_a_padded_batch_of_any_size_is_exported(name: str) -> None:
    spec, model = made(name)
    program = export(model, (), padded(spec, 3, 9), dynamic_shapes=sizes(spec)).module()
    for B, T in ((3, 9), (2, 4), (5, 23)):
        given = padded(spec, B, T)
        assert (program(**given) - model(**given)).abs().max() < 1e-12


@pytest.mark.parametrize("name", RECURRENT)
@torch.no_grad()
def test_a_recurrent_network_says_that_its_padded_rows_are_not_exported(name: str) -> None:
    spec, model = made(name)
    with pytest.raises(NotImplementedError, match=r"a recurrent network over padded rows takes no torch.export"):
        export(model, (), padded(spec, 3, 9))
    export(model, (), double(inputs(spec, T=9)))


def loss_of(spec: Spec, model: nn.Module, names: list[str]) -> Any:
    """The loss of one sequence by the parameters."""

    def loss(parameters: dict[str, Tensor], *sequence: Tensor) -> Tensor:
        given = {name: x.unsqueeze(0) for name, x in zip(names, sequence, strict=True)}
        y: Tensor = functional_call(model, parameters, (), given)
        return y.square().mean()

    return loss


@pytest.mark.parametrize("name", OWN_GRADIENTS)
def test_gradients_of_each_sequence_are_those_of_it_alone(name: str) -> None:
    spec, model = made(name)
    given, parameters = padded(spec, 3, 6), dict(model.named_parameters())
    loss = loss_of(spec, model, list(given))
    found = vmap(grad(loss), in_dims=(None, *[0] * len(given)))(parameters, *given.values())
    for i in range(3):
        wanted = torch.autograd.grad(loss(parameters, *(x[i] for x in given.values())), list(parameters.values()))
        for mine, theirs in zip(found.values(), wanted, strict=True):
            assert (mine[i] - theirs).abs().max() <= 1e-10 * theirs.abs().max() + 1e-14


@pytest.mark.parametrize("name", NO_GRADIENTS)
def test_operators_say_that_torch_func_takes_no_gradients_of_them(name: str) -> None:
    spec, model = made(name)
    given, parameters = padded(spec, 3, 6), dict(model.named_parameters())
    loss = loss_of(spec, model, list(given))
    error = r"torch.func.grad, vjp and jvp take no operator of torch.library: take gradients with torch.autograd"
    with pytest.raises(RuntimeError, match=error):
        vmap(grad(loss), in_dims=(None, *[0] * len(given)))(parameters, *given.values())
    with pytest.raises(RuntimeError, match=error):
        grad(loss)(parameters, *(x[0] for x in given.values()))
    loss(parameters, *(x[0] for x in given.values())).backward()  # as the message says


def test_a_recurrent_network_says_that_its_padded_rows_are_not_mapped() -> None:
    spec, model = made("mixer-lstm-0")
    given, parameters = padded(spec, 3, 6), dict(model.named_parameters())
    with pytest.raises(NotImplementedError, match=r"takes no torch.export and no torch.vmap"):
        vmap(grad(loss_of(spec, model, list(given))), in_dims=(None, 0, 0))(parameters, *given.values())
