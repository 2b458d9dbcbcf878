"""Padding is nobody's: a padded batch gives what its sequences give alone, or laid end to end."""

from typing import Any

import pytest
import torch
from torch import Tensor

from archspec.kernels.collect import collect
from archspec.kernels.moe.balance import router_loss
from archspec.language.resolve import make
from archspec.layers.registry import find
from archspec.modules import submodule

LENGTHS, T = (9, 4, 1, 6), 9
N = sum(LENGTHS)
CAPACITY = {"n_experts": 4, "top_k": 2, "d_ff": 8, "capacity_factor": 0.6, "balance_loss": 0.5}
EXAMPLES = [*find("ffn", "moe").examples, CAPACITY]
QUIET = {"jitter": 0.0, "expert_dropout": 0.0}  # noise is drawn for all places


def layer(fields: dict[str, Any], **changed: Any) -> Any:
    torch.manual_seed(0)
    m: Any = submodule(make("ffn", {"kind": "moe", **fields, **QUIET, **changed}, d_model=16, max_seq_len=32)).double()
    if m.c.correction_bias:
        m.correction_bias.uniform_(-0.1, 0.1)
    return m


def mask(side: str) -> Tensor:
    lengths = torch.tensor(LENGTHS).unsqueeze(1)
    return torch.arange(T) < lengths if side == "right" else torch.arange(T) >= T - lengths


def sequences() -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(1, n, 16, dtype=torch.double) for n in LENGTHS]


def padded(parts: list[Tensor], real: Tensor) -> Tensor:
    """The sequences in one batch, with numbers in its other places that would be noticed."""
    x = 5 * torch.randn(len(LENGTHS), T, parts[0].shape[-1], dtype=torch.double)
    x[real] = torch.cat(parts, dim=1)[0]
    return x


def run(m: Any, x: Tensor, real: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    aux: dict[str, Tensor] = {}
    return m(x, mask=real, aux=collect(aux) if m.c.collects else None), aux


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("over", ["sequence", "batch"])
@pytest.mark.parametrize("fields", EXAMPLES, ids=range(len(EXAMPLES)))
def test_padding_changes_nothing(fields: dict[str, Any], over: str, training: bool, side: str) -> None:
    if fields.get("choice_over") == "batch":
        pytest.skip("sequences are not alone")
    m = layer(fields, **{"balance_over": over} if "balance_loss" in fields else {}).train(training)
    real, parts = mask(side), sequences()
    x = padded(parts, real)
    y, aux = run(m, x, real)
    alone = [run(m, part) for part in parts]
    torch.testing.assert_close(y[real], torch.cat([y for y, _ in alone], dim=1)[0], rtol=0, atol=1e-12)

    weights = torch.tensor(LENGTHS, dtype=torch.double) / N
    for name, value in aux.items():
        values = torch.stack([collected[name].squeeze(0) for _, collected in alone])
        if name == "load":
            wanted = values.sum(0)
        elif name == "z_loss" or over == "batch":
            wanted = (values * weights.view(-1, *[1] * (values.dim() - 1))).sum(0)
        else:
            wanted = values
        torch.testing.assert_close(value, wanted, rtol=0, atol=1e-12, msg=name)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("fields", EXAMPLES, ids=range(len(EXAMPLES)))
def test_gradients_are_those_of_the_sequences(fields: dict[str, Any], side: str) -> None:
    if fields.get("choice_over") == "batch":
        pytest.skip("sequences are not alone")
    m = layer(fields, **{"balance_over": "sequence"} if "balance_loss" in fields else {}).train()
    real, parts = mask(side), sequences()
    x = padded(parts, real).requires_grad_()
    y, aux = run(m, x, real)
    loss = y[real].square().sum() + (router_loss(aux) if m.c.aux_loss else 0)
    names = [name for name, _ in m.named_parameters()]
    found = torch.autograd.grad(loss, [x, *m.parameters()])

    rows = [part.requires_grad_() for part in parts]
    total = torch.zeros((), dtype=torch.double)
    for part in rows:
        y, aux = run(m, part)
        share = {"z_loss": part.shape[1] / N} | dict.fromkeys(("balance_weight", "pooled_weight"), 1 / len(LENGTHS))
        aux = {name: value * share.get(name, 1) for name, value in aux.items()}
        total = total + y.square().sum() + (router_loss(aux) if m.c.aux_loss else 0)
    wanted = torch.autograd.grad(total, [*rows, *m.parameters()])
    torch.testing.assert_close(found[0][real], torch.cat(wanted[: len(rows)], dim=1)[0], rtol=0, atol=1e-11)
    assert not found[0][~real].any()
    for name, a, b in zip(names, found[1:], wanted[len(rows) :], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11, msg=name)


def test_an_expert_chooses_among_the_real_tokens_of_the_batch() -> None:
    m = layer({"n_experts": 4, "top_k": 2, "d_ff": 8, "assignment": "expert", "choice_over": "batch"})
    for side in ("left", "right"):
        real, parts = mask(side), sequences()
        y, _ = run(m, padded(parts, real), real)
        ends, _ = run(m, torch.cat(parts, dim=1))
        torch.testing.assert_close(y[real], ends[0], rtol=0, atol=1e-12)
        assert not y[~real].any()


@pytest.mark.parametrize("fields", EXAMPLES, ids=range(len(EXAMPLES)))
def test_a_sequence_of_padding_takes_no_part(fields: dict[str, Any]) -> None:
    m = layer(fields)
    x = torch.randn(2, 5, 16, dtype=torch.double)
    _, aux = run(m, x, torch.zeros(2, 5, dtype=torch.bool))
    assert not any(value.any() for value in aux.values())
