"""Operators made by `operator` are what torch.library, autograd, the compiler and the FLOP counter expect."""

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from archspec.kernels.contract import require, require_choice, require_integers
from archspec.kernels.library import operator


def forward(x: Tensor, w: Tensor | None, ids: Tensor, k: int) -> tuple[Tensor, Tensor]:
    y = x[ids] if w is None else x[ids] * w
    return y, x.square() * k


def backward(grads, outputs, x, w, ids, k):
    dy, dz = (torch.zeros(s.shape, dtype=x.dtype) if g is None else g for g, s in zip(grads, (x[ids], x), strict=True))
    dx = torch.zeros_like(x).index_add(0, ids, dy if w is None else dy * w) + 2 * k * dz * x
    return [dx] if w is None else [dx, (dy * x[ids]).sum(0)]


def fake(x, w, ids, k):
    return x.new_empty(ids.shape[0], x.shape[1]), x.new_empty(x.shape)


op = operator("test_toy", forward, backward, fake, flops=lambda x, w, ids, k: 7 * x[0], backward_flops=lambda *_: 11)


@pytest.fixture
def inputs():
    x, w = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((3, 4), (4,)))
    return x, w, torch.tensor([2, 0, 0, 1, 2])


def test_gradients(inputs):
    x, w, ids = inputs
    assert torch.autograd.gradcheck(lambda x, w: op(x, w, ids, 3), (x, w))
    assert torch.autograd.gradcheck(lambda x: op(x, None, ids, 3), (x,))
    assert torch.autograd.gradcheck(lambda x: op(x, None, ids, 3)[1], (x,))


def test_opcheck(inputs):
    x, w, ids = inputs
    torch.library.opcheck(op, (x, w, ids, 3))
    torch.library.opcheck(op, (x, None, ids, 3))


def test_flops_forward_and_backward(inputs):
    x, w, ids = inputs
    with FlopCounterMode(display=False) as counter:
        op(x, w, ids, 3)[0].sum().backward()
    assert counter.get_total_flops() == 7 * 3 + 11


def test_checkpoint_vmap_and_export(inputs):
    x, w, ids = inputs
    plain = torch.autograd.grad(op(x, w, ids, 3)[0].square().sum(), x)[0]
    kept = checkpoint(lambda x: op(x, w, ids, 3)[0].square().sum(), x, use_reentrant=False)
    assert torch.equal(torch.autograd.grad(kept, x)[0], plain)
    many = torch.randn(5, 3, 4, dtype=torch.float64)
    mapped = torch.vmap(lambda x: op(x, w.detach(), ids, 3)[0])(many)
    assert torch.equal(mapped, torch.stack([op(x, w, ids, 3)[0] for x in many]))


def test_only_needed_gradients_are_returned(inputs):
    x, w, ids = inputs
    asked = []

    def selective(grads, outputs, x, w, ids, k, needed):
        asked.append(list(needed))
        dx, dw = backward(grads, outputs, x, w, ids, k)
        return [dx if needed[0] else None, dw if needed[1] else None]

    other = operator("test_selective", forward, selective, fake, selective=True)
    wanted = torch.autograd.grad(op(x, w, ids, 3)[0].square().sum(), (x, w))
    for i, leaves in enumerate(((x, w.detach()), (x.detach(), w))):
        (got,) = torch.autograd.grad(other(*leaves, ids, 3)[0].square().sum(), leaves[i])
        assert torch.equal(got, wanted[i])
    assert asked == [[True, False], [False, True]]
    torch.library.opcheck(other, (x, w.detach(), ids, 3))


def test_inference_mode_and_copies_of_a_stacked_model(inputs):
    x, _, ids = inputs

    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.randn(4, dtype=torch.float64))

        def forward(self, x):
            return op(x, self.w, ids, 3)[0]

    models = [Scaled(), Scaled()]
    with torch.inference_mode():
        wanted = torch.stack([model(x) for model in models])
    weights, _ = torch.func.stack_module_state(models)
    every = torch.vmap(lambda w, x: torch.func.functional_call(models[0], w, (x,)), (0, None))(weights, x)
    assert torch.equal(every, wanted)
    every.sum().backward()
    assert weights["w"].grad.shape == (2, 4)


def test_arguments_have_no_defaults():
    def with_default(x: Tensor, k: int = 2) -> Tensor:
        return x * k

    with pytest.raises(TypeError, match="test_default: arguments of an operator have no defaults"):
        operator("test_default", with_default, backward, fake)


def test_results_do_not_follow_strides(inputs):
    x, w, ids = inputs
    turned = x.detach().mT.contiguous().mT.requires_grad_()
    y, _ = op(turned, w, ids, 3)
    assert y.is_contiguous()
    assert torch.autograd.grad(y.sum(), turned)[0].is_contiguous()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": (torch.zeros(2, 3), "B T D")}, "op: x has shape (2, 3), expected 3 axes (B T D)"),
        (
            {"x": (torch.zeros(2, 3), "B T"), "y": (torch.zeros(2, 4), "B T")},
            "op: y has shape (2, 4), expected (B T) with B = 2, T = 3",
        ),
        ({"x": (torch.zeros(2), "... T D")}, "op: x has shape (2,), expected at least 2 axes (... T D)"),
        ({"x": (torch.zeros(2, 3), "D D")}, "op: x has shape (2, 3), expected (D D) with D = 2"),
        ({"x": (torch.zeros(2, 3), "B 4")}, "op: x has shape (2, 3), expected (B 4) with B = 2"),
        ({"x": (torch.zeros(2, dtype=torch.long), "B")}, "op: x is torch.int64, expected a floating type"),
        (
            {"x": (torch.zeros(2), "B"), "y": (torch.zeros(2, device="meta"), "B")},
            "op: y is on meta, expected cpu, where x is",
        ),
    ],
)
def test_a_broken_contract_is_one_clear_error(arguments, message):
    with pytest.raises((ValueError, TypeError)) as error:
        require("op", **arguments)
    assert str(error.value) == message


def test_contract_sizes_and_settings():
    assert require("op", x=(torch.zeros(5, 2, 3), "... T D"), y=(None, "T"), w=(torch.zeros(3), "D")) == {
        "T": 2,
        "D": 3,
    }
    require_integers("op", ids=torch.zeros(2, dtype=torch.long), more=None)
    with pytest.raises(TypeError, match=r"op: ids is torch.float32, expected whole numbers"):
        require_integers("op", ids=torch.zeros(2))
    with pytest.raises(ValueError, match="op: kind is 'b', expected one of 'a', None"):
        require_choice("op", "kind", "b", ("a", None))
