"""Short causal depthwise convolution: z[t, d] = b[d] + sum_j w[d, 0, j] u[t - (K-1) + j, d], with u = gate_in * x.

The result is y = gate_out * act(z), act being SiLU or nothing and either gate absent as a rule. Shapes: x, both gates
and y (B, T, D), w (D, 1, K) as in nn.Conv1d with groups = D, b (D,). K is small (3 or 4; H3, Mamba, gated delta nets;
with two gates, LFM2; up to 128 in the filters of StripedHyena 2), so the state of decoding is the K - 1 values of u
before the next token.

The backward pass computes z again rather than keep it. In PyTorch the convolution and the gradient of its input are
convolutions of images in channels-last order, and the gradient of w is a sum of products taken a cacheful at a time.
On one thread of a CPU with AVX-512, forward and backward with SiLU against autograd through the same convolution: for
K = 4 a third to a half of the time from 4 M values on and the same below, for K = 32 a tenth, for K = 3 1.1 to 1.5
times as much; a sum of K shifted products is no faster forward, and slower from K = 8 on. On a GPU Triton kernels do
this for K of at most 8; they were not measured on a GPU.
"""

from math import prod
from types import ModuleType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.backend import gpu
from archspec.kernels.contract import require, require_choice
from archspec.kernels.library import Shape, operator
from archspec.kernels.padding import hide
from archspec.kernels.plain.state import close_gap
from archspec.kernels.precision import wide_type
from archspec.kernels.state import State, recall

CACHED = 1 << 16  # products that are summed while they lie in the second-level cache
UNROLLED = 8  # taps that the Triton kernels take


def reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    gate_in: Tensor | None = None,
    gate_out: Tensor | None = None,
    tail: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    """The sum above in float64, one output after another; tail (B, K - 1, D) are the values of u before the first."""
    u = x.double() if gate_in is None else x.double() * gate_in.double()
    taps = weight.double().squeeze(1).mT  # (K, D)
    before = u.new_zeros(u.shape[0], len(taps) - 1, u.shape[2]) if tail is None else tail.double()
    seen = torch.cat((before, u), dim=1)
    z = torch.stack([(taps * seen[:, t : t + len(taps)]).sum(1) for t in range(u.shape[1])], dim=1)
    z = z if bias is None else z + bias.double()
    y = z * torch.sigmoid(z) if activation == "silu" else z
    return y if gate_out is None else y * gate_out.double()


def short_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    state: State | None = None,
    gate_in: Tensor | None = None,
    gate_out: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Causal depthwise convolution of x (B, T, D) with weight (D, 1, K); activation is None or "silu".

    bias (D,); gate_in and gate_out (B, T, D) multiply what goes in and what comes out (LFM2). The state keeps the last
    K - 1 inputs, gated, as (B, K - 1, D) under "conv". mask (B, T) is True for real tokens, before which padding
    stands: a row begins, or goes on from its state, at its first real token. The result has the type of x.
    """
    require(
        "short_conv",
        x=(x, "B T D"),
        weight=(weight, "D 1 K"),
        bias=(bias, "D"),
        gate_in=(gate_in, "B T D"),
        gate_out=(gate_out, "B T D"),
    )
    require_choice("short_conv", "activation", activation, (None, "silu"))
    tail = recall(state, "conv")
    if tail is not None:
        require("short_conv", x=(x, "B T D"), conv=(tail, f"B {weight.shape[2] - 1} D"))
    if mask is not None:
        return _padded(x, weight, bias, activation, state, gate_in, gate_out, mask, tail)
    if state is not None and x.shape[1] == 1:
        y, state["conv"] = _step(x, weight, bias, activation, tail, gate_in, gate_out)
        return y
    if state is not None:
        state["conv"] = _last_inputs(x, gate_in, tail, weight.shape[2] - 1)
    return convolve(x, weight, bias, gate_in, gate_out, tail, activation == "silu")


def _padded(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str | None,
    state: State | None,
    gate_in: Tensor | None,
    gate_out: Tensor | None,
    mask: Tensor,
    tail: Tensor | None,
) -> Tensor:
    """`short_conv` of padded rows: zeros for padding, and before that what each row had last."""
    before = weight.shape[2] - 1
    u = hide(x if gate_in is None else x * gate_in, mask)
    if tail is None:
        seen = u
    else:
        seen = close_gap(torch.cat((tail, u), dim=1).unsqueeze(1), mask).squeeze(1)
    if state is not None:
        state["conv"] = _last_inputs(seen, None, None, before)
    y = convolve(seen, weight, bias, None, None, None, activation == "silu")[:, seen.shape[1] - x.shape[1] :]
    return y if gate_out is None else y * gate_out


def _step(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str | None,
    tail: Tensor | None,
    gate_in: Tensor | None,
    gate_out: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """`short_conv` of one token, and the inputs to keep."""
    wide = wide_type(x)
    taps = weight.squeeze(1).to(wide)  # (D, K)
    seen = _last_inputs(x, gate_in, tail, taps.shape[1])
    y = torch.einsum("bkd,dk->bd", seen.to(wide), taps).unsqueeze(1)
    y = y if bias is None else y + bias
    y = F.silu(y) if activation == "silu" else y
    return (y if gate_out is None else y * gate_out).to(x.dtype), seen[:, 1:].clone()


def _last_inputs(x: Tensor, gate: Tensor | None, tail: Tensor | None, n: int) -> Tensor:
    """The last n inputs, (B, n, D): of tail and gate * x, with zeros before them."""
    T = x.shape[1]
    wide = wide_type(x)
    last = x[:, max(T - n, 0) :]
    last = last if gate is None else last.to(wide) * gate[:, max(T - n, 0) :].to(wide)
    if n <= T:
        return last.clone()  # a view would keep all inputs alive
    if tail is None:
        return F.pad(last, (0, 0, n - T, 0))
    kept = min(tail.shape[1], n - T)
    return F.pad(torch.cat((tail[:, tail.shape[1] - kept :], last), dim=1), (0, 0, n - T - kept, 0))


def _inputs_seen(x: Tensor, gate_in: Tensor | None, tail: Tensor | None, before: int) -> Tensor:
    """What the taps slide over, (B, before + T, D)."""
    u = x if gate_in is None else x * gate_in
    return torch.cat((_zeros_beside(u, before) if tail is None else tail, u), dim=1)


def _zeros_beside(x: Tensor, n: int) -> Tensor:
    """For torch.cat, which writes x once where F.pad would fill all of it with zeros first."""
    return x.new_zeros(x.shape[0], n, x.shape[2])


def _slide(seen: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(B, K - 1 + T, D) -> (B, T, D). An image of height 1 has the tokens in channels-last order."""
    if seen.shape[1] < weight.shape[2]:
        return seen[:, :0]  # no token, for which PyTorch has no convolution
    image = seen.transpose(1, 2).unsqueeze(2)
    return F.conv2d(image, weight.unsqueeze(2), bias, groups=weight.shape[0]).squeeze(2).transpose(1, 2)


class Inputs(NamedTuple):
    """What goes into a convolution: arguments of `short_conv`, with the K - 1 inputs before the first token."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    gate_in: Tensor | None
    gate_out: Tensor | None
    tail: Tensor | None
    silu: bool


def _fast(given: Inputs) -> ModuleType | None:
    """The Triton kernels, where they take so many taps."""
    return gpu("short_conv", given.x) if given.weight.shape[2] <= UNROLLED else None


def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gate_in: Tensor | None,
    gate_out: Tensor | None,
    tail: Tensor | None,
    silu: bool,
) -> Tensor:
    given = Inputs(x, weight, bias, gate_in, gate_out, tail, silu)
    if (fast := _fast(given)) is not None:
        return fast.forward(given)
    u, w, b, i, o, before = _widen(*given[:-1])
    y = _slide(_inputs_seen(u, i, before, w.shape[2] - 1), w, b)
    y = F.silu(y, inplace=True) if silu else y
    return (y if o is None else y.mul_(o)).to(x.dtype)


def _backward(grads: list[Tensor | None], outputs: list[Tensor], *inputs: Any) -> list[Tensor]:
    """Gradients of x, weight, bias, both gates and tail, as far as they are given.

    With dz the gradient of z: dw[j] = sum_t dz[t] seen[t + j], and that of seen is dz convolved with the taps reversed.
    """
    given = Inputs(*inputs)
    if (fast := _fast(given)) is not None:
        return fast.backward(grads[0], given)
    u, w, b, i, o, before = _widen(*given[:-1])
    (dz,) = _widen(grads[0])
    seen = _inputs_seen(u, i, before, w.shape[2] - 1)
    d_out = None
    if given.silu or o is not None:
        z = _slide(seen, w, b)
        d_out = None if o is None else dz * (F.silu(z) if given.silu else z)
        dz = dz if o is None else dz * o
        dz = torch.ops.aten.silu_backward(dz, z) if given.silu else dz
    n = w.shape[2] - 1
    zeros = _zeros_beside(dz, n)
    dseen = _slide(torch.cat((dz, zeros) if before is None else (zeros, dz, zeros), dim=1), w.flip(2), None)
    dtail, du = (None, dseen) if before is None else (dseen[:, :n].clone(), dseen[:, n:])
    found = [
        du if i is None else du * i,
        _weight_gradient(dz, seen, w.shape[2]),
        None if b is None else dz.sum((0, 1)),
        None if i is None else du * u,
        d_out,
        dtail,
    ]
    return [grad for grad in found if grad is not None]


def _weight_gradient(dz: Tensor, seen: Tensor, n: int) -> Tensor:
    """dw (D, 1, K), without a temporary as large as x on a CPU."""
    B, T, D = dz.shape
    some = max(CACHED // max(D, 1), 1) if dz.device.type == "cpu" else max(B * T, 1)
    tokens, rows = max(min(T, some), 1), max(some // max(T, 1), 1)
    total = dz.new_zeros(n, D)
    for row in range(0, B, rows):
        for start in range(0, T, tokens):
            part = dz[row : row + rows, start : start + tokens]
            length = part.shape[1]
            for j in range(n):
                total[j] += (part * seen[row : row + rows, start + j : start + j + length]).sum((0, 1))
    return total.mT.unsqueeze(1)


def _widen(x: Tensor, *others: Tensor | None) -> list[Tensor | None]:
    """All in the type that sums are taken in: float32, or float64 where x is."""
    wide = wide_type(x)
    return [None if tensor is None else tensor.to(wide) for tensor in (x, *others)]


def _fake(x: Tensor, *others: Any) -> Tensor:
    return x.new_empty(x.shape)


def _flops(x: Shape, weight: Shape, *rest: object) -> int:
    """Two for each output and tap."""
    return 2 * prod(x) * weight[2]


def _backward_flops(x: Shape, weight: Shape, *rest: object) -> int:
    """As many for the gradient of the inputs and for that of the taps; what is computed again does not count."""
    return 4 * prod(x) * weight[2]


convolve = operator("short_conv", _forward, _backward, _fake, flops=_flops, backward_flops=_backward_flops)


def example(B: int = 2, T: int = 63, D: int = 6, K: int = 4) -> dict[str, Tensor]:
    """Example arguments of `short_conv`."""
    x, gate_in, gate_out = (torch.randn(B, T, D, dtype=torch.float64) for _ in range(3))
    weight = torch.randn(D, 1, K, dtype=torch.float64) / K**0.5
    return {
        "x": x,
        "weight": weight,
        "bias": torch.randn(D, dtype=torch.float64),
        "gate_in": gate_in,
        "gate_out": gate_out,
    }


EXAMPLES: tuple[dict[str, int], ...] = (
    {},
    {"T": 1},
    {"B": 1, "T": 100, "D": 17, "K": 3},
    {"B": 3, "T": 257, "D": 5, "K": 8},
    {"B": 1, "T": 70, "D": 3, "K": 128},
    {"T": 5, "K": 1},
    {"B": 0, "T": 7},
)
