"""Comparisons that the kernel tests share."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

LENGTHS = (1, 63, 100, 257)
# Largest error over the largest entry of what it is compared with. float64 leaves room for sums of a few hundred terms;
# float32 for the same sums at 1.2e-7 a term; the 16-bit types for one rounding of each result and of what PyTorch's own
# products round between (2^-11 and 2^-8), a few of which meet in a gradient.
TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5, torch.float16: 6e-3, torch.bfloat16: 3e-2}


@dataclass(frozen=True)
class Face:
    """One implementation of a family, the types it takes, and the device that it runs on here."""

    name: str

    @property
    def dtypes(self) -> tuple[torch.dtype, ...]:
        """The types to check; Triton's interpreter computes bfloat16 wrongly, so there only a GPU is asked."""
        if self.name == "torch":
            return (torch.float64, torch.float32, torch.float16, torch.bfloat16)
        if self.name == "triton" and not torch.cuda.is_available():
            return (torch.float32, torch.float16)
        return (torch.float32, torch.float16, torch.bfloat16)

    @property
    def device(self) -> str:
        """Where its tensors are."""
        return "cuda" if self.name == "triton" and torch.cuda.is_available() else "cpu"


def faces(*names: str) -> pytest.MarkDecorator:
    """Run a test with each of these implementations: "torch", "compiled", "triton"."""
    return pytest.mark.parametrize("face", names, indirect=True)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def assert_close(name: str, got: Tensor, wanted: Tensor, tolerance: float = 1e-11) -> None:
    assert got.shape == wanted.shape, f"{name}: shape {tuple(got.shape)}, expected {tuple(wanted.shape)}"
    if not got.numel():
        return
    got, wanted = (x.detach().cpu() for x in (got, wanted))
    wide = torch.complex128 if wanted.is_complex() else torch.float64
    error = (got.to(wide) - wanted.to(wide)).abs().max() / wanted.to(wide).abs().max().clamp(min=1e-30)
    assert error <= tolerance, f"{name}: relative error {error:.1e} above {tolerance:.0e}"  # NaN fails too


def check(
    op: Callable[..., Any],
    reference: Callable[..., Any],
    inputs: Sequence[Tensor | None],
    face: Face | None = None,
    tolerance: dict[torch.dtype, float] | None = None,
) -> None:
    """Every output of op (a tensor or several, such as a final state) and every gradient against `reference`.

    The reference runs in float64 on the same rounded numbers, so that only the computation differs; what op allocates
    is filled with NaN. Tensors of whole numbers and masks are passed as they are.
    """
    face = Face("torch") if face is None else face
    wanted = _tensors(reference(*inputs))
    cotangents = [torch.randn_like(y) for y in wanted]
    for dtype in face.dtypes:
        limit = ({**TOLERANCE, **(tolerance or {})})[dtype]
        rounded = [_cast(x, dtype) for x in inputs]
        right = _with_gradients(reference, [_cast(x, torch.float64) for x in rounded], cotangents)
        moved = [None if x is None else x.to(face.device) for x in rounded]
        with poisoned():
            got = _with_gradients(op, moved, [c.to(face.device) for c in cotangents])
        for index, (ours, theirs) in enumerate(zip(got, right, strict=True)):
            name = f"output {index}" if index < len(wanted) else f"gradient {index - len(wanted)}"
            assert_close(f"{name} in {dtype}", ours, theirs, limit)
        assert got[0].dtype == dtype or got[0].is_complex()


def _tensors(y: Any) -> list[Tensor]:
    return [y] if isinstance(y, Tensor) else list(y)


def _cast(x: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    if x is not None and x.is_complex():
        return x.to(torch.complex128 if dtype == torch.float64 else torch.complex64)
    return x.to(dtype) if x is not None and x.is_floating_point() else x


def _with_gradients(f: Callable[..., Any], inputs: Sequence[Tensor | None], cotangents: list[Tensor]) -> list[Tensor]:
    leaves = [x if x is None else x.detach().clone() for x in inputs]
    trained = [x.requires_grad_() for x in leaves if x is not None and (x.is_floating_point() or x.is_complex())]
    outputs = _tensors(f(*leaves))
    total = sum((y * c.to(y.dtype).conj()).sum() for y, c in zip(outputs, cotangents, strict=True))
    return [*(y.detach() for y in outputs), *torch.autograd.grad(total.real if total.is_complex() else total, trained)]


@contextmanager
def poisoned() -> Iterator[None]:
    """Memory that is allocated without a value holds NaN, so that a result which is not written shows."""

    def nan(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def filled(*args: Any, **options: Any) -> Tensor:
            x = make(*args, **options)
            return x.fill_(torch.nan) if x.is_floating_point() and not x.is_meta else x

        return filled

    with (
        mock.patch.object(torch, "empty", nan(torch.empty)),
        mock.patch.object(torch, "empty_like", nan(torch.empty_like)),
        mock.patch.object(Tensor, "new_empty", nan(Tensor.new_empty)),
    ):
        yield


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


def is_an_operator(op: Callable[..., Any], *inputs: Any) -> None:
    """What torch.library itself demands of an operator: its schema, fake, autograd and compilation agree."""
    torch.library.opcheck(op, inputs)
