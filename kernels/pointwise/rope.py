"""Rotary position embedding (RoFormer, Su et al. 2021, equation 34).

    y[first] = x[first] cos(a) - x[second] sin(a)
    y[second] = x[second] cos(a) + x[first] sin(a),  a = position * inv_freq[i]

Channel pair i of a query or key is turned by an angle that grows with its position; frequencies are in
`rope_frequencies`. A pair is channels (i, i + R) in the half-split layout (GPT-NeoX, Llama) and (2i, 2i + 1) in the
interleaved one (GPT-J); channels beyond 2R pass through. Shapes: x (..., T, D), tables (T, R), or (B, T, R) where B is
the first axis of x.

The backward pass is the rotation by -a and keeps nothing but the tables, which have no gradient of their own.
Everything runs in float32, or float64 where x or the tables are float64. On a CPU few numbers go through the formulas
under autograd, many through an operator with one temporary of half the size, to the same bits (half-split), or through
a complex product (interleaved). On one core, forward and backward of (B, 8, T, 64) in float32 then took 0.75 to 0.93 of
the time of the formulas in the half-split layout and 0.5 to 0.65 in the interleaved one. A GPU has one Triton kernel
for queries and keys together, compiled for sm_90 and checked in Triton's interpreter, and not measured on a GPU.
"""

import torch
from torch import Tensor

from archspec.kernels.backend import gpu, on_gpu
from archspec.kernels.contract import require
from archspec.kernels.library import operator
from archspec.kernels.precision import wide_type
from archspec.kernels.thresholds import NUMBERS_TURNED

EXAMPLES = (
    {"B": 2, "H": 3, "T": 63, "D": 16, "R": 8},
    {"B": 1, "H": 1, "T": 1, "D": 2, "R": 1},
    {"B": 2, "H": 2, "T": 100, "D": 7, "R": 3},
    {"B": 1, "H": 3, "T": 257, "D": 12, "R": 5},
    {"B": 0, "H": 2, "T": 5, "D": 8, "R": 4},
)


def example(B: int = 2, H: int = 3, T: int = 63, D: int = 16, R: int = 8) -> dict[str, Tensor]:
    """Arguments of rotate."""
    angle = torch.arange(T, dtype=torch.float64).unsqueeze(-1) * 10000.0 ** (-torch.arange(R) / R)
    return {"x": torch.randn(B, H, T, D, dtype=torch.float64), "cos": angle.cos(), "sin": angle.sin()}


def reference(x: Tensor, positions: Tensor, inv_freq: Tensor, interleaved: bool = False) -> Tensor:
    """Rotation of x (B, H, T, D) by complex multiplication in float64; channels beyond 2 * len(inv_freq) stay."""
    n = inv_freq.shape[0]
    turned, rest = x.double().split((2 * n, x.shape[-1] - 2 * n), dim=-1)
    pairs = turned.unflatten(-1, (n, 2)) if interleaved else turned.unflatten(-1, (2, n)).transpose(-1, -2)
    angle = positions.double().unsqueeze(-1) * inv_freq.double()
    pairs = torch.view_as_real(torch.view_as_complex(pairs.contiguous()) * torch.polar(torch.ones_like(angle), angle))
    return torch.cat(((pairs if interleaved else pairs.transpose(-1, -2)).flatten(-2), rest), dim=-1)


def rope_tables(positions: Tensor, inv_freq: Tensor, attention_factor: float = 1.0) -> tuple[Tensor, Tensor]:
    """cos and sin of every angle, in float32: positions (T,) or (B, T), inv_freq (R,) -> (T, R) or (B, T, R)."""
    angle = positions.float().unsqueeze(-1) * inv_freq.float()
    return angle.cos() * attention_factor, angle.sin() * attention_factor


def rotate(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool = False) -> Tensor:
    """Turn the first 2R channels of x (..., T, D) by tables (T, R) or (B, T, R); the other channels pass through.

    The result has the type of x. Raises ValueError where the tables do not fit x.
    """
    _require_tables("rotate", cos, sin, x=x)
    if not on_gpu(x) and _is_small(x):
        return _formulas(x, cos, sin, interleaved)
    return turn(x, None, cos, sin, interleaved)[0]


def rotate_pair(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, interleaved: bool = False) -> tuple[Tensor, Tensor]:
    """`rotate` of queries q (..., T, D) and keys k (..., T, D), which may differ in heads and channels."""
    _require_tables("rotate_pair", cos, sin, q=q, k=k)
    if q.dim() != k.dim() or (q.dim() > 2 and q.shape[0] != k.shape[0]):
        raise ValueError(f"rotate_pair: k has shape {tuple(k.shape)}, expected a batch like q, {tuple(q.shape)}")
    if not on_gpu(q) and _is_small(q, k):
        return _formulas(q, cos, sin, interleaved), _formulas(k, cos, sin, interleaved)
    return turn(q, k, cos, sin, interleaved)


def _is_small(*tensors: Tensor) -> bool:
    """Whether the formulas do; for a compiler they do, whose graph a question about the size would bind to some."""
    return torch.compiler.is_compiling() or sum(x.numel() for x in tensors) < NUMBERS_TURNED


def _require_tables(op: str, cos: Tensor, sin: Tensor, **tensors: Tensor) -> None:
    """The tables fit the tokens and channels of every tensor, and its first axis where they have one of their own."""
    for name, x in tensors.items():
        if cos.dim() == 3:
            between = " ".join(f"H{i}" for i in range(x.dim() - 3))
            require(op, **{name: (x, f"B {between} T D"), "cos": (cos, "B T R"), "sin": (sin, "B T R")})
        else:
            require(op, **{name: (x, "... T D"), "cos": (cos, "T R"), "sin": (sin, "T R")})
        if 2 * cos.shape[-1] > x.shape[-1]:
            raise ValueError(
                f"{op}: cos must turn at most D = {x.shape[-1]} channels of {name}, found {2 * cos.shape[-1]}"
            )


def _beside(table: Tensor, x: Tensor) -> Tensor:
    """A table (T, R) or (B, T, R) with as many axes as x needs."""
    return table if table.dim() == 2 else table.view(table.shape[0], *(1,) * (x.dim() - 3), *table.shape[1:])


def _formulas(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """The formulas as they stand; autograd follows them."""
    n, wide = cos.shape[-1], wide_type(x, cos)
    cos, sin = _beside(cos.detach(), x).to(wide), _beside(sin.detach(), x).to(wide)
    turned, rest = x[..., : 2 * n], x[..., 2 * n :]
    first, second = turned.unflatten(-1, (n, 2)).unbind(-1) if interleaved else turned.chunk(2, dim=-1)
    pair = (first * cos - second * sin, second * cos + first * sin)
    turned = torch.stack(pair, dim=-1).flatten(-2) if interleaved else torch.cat(pair, dim=-1)
    return torch.cat((turned.to(x.dtype), rest), dim=-1)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """The same with a single temporary of half the size, written where the result goes."""
    n, wide = cos.shape[-1], wide_type(x, cos)
    cos, sin = _beside(cos, x).to(wide), _beside(sin, x).to(wide)
    y = torch.empty(x.shape, dtype=wide, device=x.device)
    y[..., 2 * n :] = x[..., 2 * n :]
    if interleaved:
        pairs = torch.view_as_complex(x[..., : 2 * n].to(wide).unflatten(-1, (n, 2)).contiguous())
        y[..., : 2 * n] = torch.view_as_real(pairs * torch.complex(cos, sin)).flatten(-2)
        return y.to(x.dtype)
    first, second = x[..., :n], x[..., n : 2 * n]
    product = second * sin
    torch.mul(first, cos, out=y[..., :n]).sub_(product)
    torch.mul(first, sin, out=product)
    torch.mul(second, cos, out=y[..., n : 2 * n]).add_(product)
    return y.to(x.dtype)


def _forward(q: Tensor, k: Tensor | None, cos: Tensor, sin: Tensor, interleaved: bool) -> tuple[Tensor, Tensor]:
    """q and k turned; the second is empty without k."""
    fast = gpu("rope", q)
    if fast and cos.dtype != torch.float64:
        return fast.rotate(q, k, cos, sin, interleaved, False)
    turned = q.new_empty(0) if k is None else _rotated(k, cos, sin, interleaved)
    return _rotated(q, cos, sin, interleaved), turned


def _backward(
    grads: list[Tensor | None],
    outputs: list[Tensor],
    q: Tensor,
    k: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    interleaved: bool,
) -> list[Tensor]:
    """Gradients of q and k, turned back, and zeros for the tables."""
    dq = torch.zeros_like(q) if grads[0] is None else grads[0]
    dk = None if k is None else torch.zeros_like(k) if grads[1] is None else grads[1]
    fast = gpu("rope", q)
    if fast and cos.dtype != torch.float64:
        dq, dk = fast.rotate(dq, dk, cos, sin, interleaved, True)
    else:
        dq = _rotated(dq, cos, -sin, interleaved)
        dk = None if dk is None else _rotated(dk, cos, -sin, interleaved)
    return [dq, *([] if k is None else [dk]), torch.zeros_like(cos), torch.zeros_like(sin)]


def _fake(q: Tensor, k: Tensor | None, cos: Tensor, sin: Tensor, interleaved: bool) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(0) if k is None else k.new_empty(k.shape)


turn = operator("rope", _forward, _backward, _fake)
