"""Comparisons that the kernel tests share."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

LENGTHS = (1, 63, 100, 257)
# largest error over the largest entry of what it is compared with
TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5, torch.bfloat16: 3e-2}


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def assert_close(name: str, got: Tensor, wanted: Tensor, tolerance: float = 1e-11) -> None:
    assert got.shape == wanted.shape, f"{name}: shape {tuple(got.shape)}, expected {tuple(wanted.shape)}"
    error = (got.double() - wanted.double()).abs().max() / wanted.double().abs().max().clamp(min=1e-30)
    assert error <= tolerance, f"{name}: relative error {error:.1e} above {tolerance:.0e}"  # NaN fails too


def check(fast: Callable[..., Tensor], reference: Callable[..., Tensor], inputs: Sequence[Tensor | None]) -> None:
    """Output and every gradient of fast against reference in float64, then output and gradients in narrower types."""
    cotangent = torch.randn_like(reference(*inputs))
    for dtype, tolerance in TOLERANCE.items():
        # both see the same rounded numbers, so that only the computation differs
        rounded = [None if x is None else x.to(dtype) for x in inputs]
        wanted = _with_gradients(reference, [None if x is None else x.double() for x in rounded], cotangent)
        got = _with_gradients(fast, rounded, cotangent)
        for index, (ours, theirs) in enumerate(zip(got, wanted, strict=True)):
            name = "output" if index == 0 else f"gradient {index - 1}"
            assert_close(f"{name} in {dtype}", ours, theirs, tolerance)
        assert all(x.dtype == dtype for x in got)


def _with_gradients(f: Callable[..., Tensor], inputs: Sequence[Tensor | None], cotangent: Tensor) -> list[Tensor]:
    leaves = [None if x is None else x.detach().clone().requires_grad_() for x in inputs]
    y = f(*leaves)
    present = [x for x in leaves if x is not None]
    return [y.detach(), *torch.autograd.grad((y * cotangent.to(y.dtype)).sum(), present)]


def pieces(length: int) -> Iterator[list[slice]]:
    """Ways to cut a sequence: a few uneven pieces, and token by token."""
    cuts = sorted({0, 1, length // 3, length // 2 + 1, length})
    yield [slice(a, b) for a, b in pairwise(cuts)]
    yield [slice(t, t + 1) for t in range(length)]


def compiles(f: Callable[..., Tensor], *inputs: Tensor, gradients: bool = True, backend: str = "aot_eager") -> None:
    """f compiles as one graph, gives what it gave before, gradients too, and leaves its inputs alone."""
    torch.compiler.reset()
    compiled = torch.compile(f, fullgraph=True, backend=backend)
    leaves = [x.clone().requires_grad_(gradients and x.is_floating_point()) for x in inputs]
    wanted, got = f(*leaves), compiled(*leaves)
    assert_close("compiled output", got, wanted, 1e-5)
    if gradients:
        trained = [x for x in leaves if x.requires_grad]
        cotangent = torch.randn_like(wanted)
        for ours, theirs in zip(
            torch.autograd.grad(got, trained, cotangent), torch.autograd.grad(wanted, trained, cotangent), strict=True
        ):
            assert_close("compiled gradient", ours, theirs, 1e-4)
    for before, after in zip(inputs, leaves, strict=True):
        assert torch.equal(before, after)
