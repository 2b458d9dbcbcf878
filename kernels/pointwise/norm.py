"""Normalisation over the last axis.

    rms_norm(x) = x / sqrt(mean(x^2) + eps) * w                 (Zhang and Sennrich 2019, equation 4)
    layer_norm(x) = (x - mean(x)) / sqrt(var(x) + eps) * w + b  (Ba et al. 2016, equation 4)

Shapes: x (..., D), w and b (D,) -> (..., D). Statistics are taken in float32 for 16-bit inputs, in the input's type
otherwise. With r = 1 / sqrt(...), n = (x - mean) r and g the gradient of n, that of x is r (g - mean(g) - n mean(g n)),
without mean(g) for the RMS norm: the backward pass needs x and r (and the mean), and computes n again.

On a CPU the operations of PyTorch run, except where a large RMS norm is trained: an operator with its own backward pass
gives the same bits, keeps one tensor of the size of x less, and took 0.43 to 0.55 of the time of forward and backward
on one core in float32 and 0.7 to 0.85 in bfloat16 (512 x 1024 to 4096 x 4096). On a GPU one operator runs, as one
Triton kernel each way: it reads rows wherever they lie, adds a residual or applies a gate on the way, and keeps one or
two float32 numbers a row. The kernels were compiled for sm_90 and checked in Triton's interpreter, and not measured on
a GPU.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.backend import gpu, on_gpu
from archspec.kernels.contract import require
from archspec.kernels.library import operator
from archspec.kernels.precision import wide
from archspec.kernels.thresholds import NUMBERS_NORMED

EXAMPLES = (
    {"B": 2, "T": 63, "D": 48},
    {"B": 1, "T": 1, "D": 1},
    {"B": 2, "T": 5, "D": 257},
    {"B": 3, "T": 2, "D": 100},
    {"B": 1, "T": 2, "D": 4099},
    {"B": 0, "T": 3, "D": 8},
)


def example(B: int = 2, T: int = 63, D: int = 48) -> dict[str, Tensor | float]:
    """Arguments of rms_norm."""
    x = torch.randn(B, T, D, dtype=torch.float64)
    return {"x": x, "weight": 1.0 + 0.2 * torch.randn(D, dtype=torch.float64), "eps": 1e-5}


def reference(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """rms_norm in float64."""
    x = x.double()
    y = x / (x.square().mean(-1, keepdim=True) + eps).sqrt()
    return y if weight is None else y * weight.double()


def rms_norm(x: Tensor, weight: Tensor | None, eps: float, one_plus: bool = False) -> Tensor:
    """RMS norm of x (..., D) with weight (D,) or None.

    As in Llama, the normalised value is cast back before it meets the weight. With one_plus the factor is 1 + weight,
    applied before the cast, as in Gemma.
    """
    require("rms_norm", x=(x, "... D"), weight=(weight, "D"))
    if on_gpu(x) or _trains_many(x, weight):
        return normalise(x, None, None, weight, None, eps, x.shape[-1], one_plus, False, False)[0]
    return _rms_norm(x, weight, eps, one_plus)


def add_rms_norm(
    x: Tensor, residual: Tensor, weight: Tensor | None, eps: float, one_plus: bool = False
) -> tuple[Tensor, Tensor]:
    """rms_norm(x + residual) and x + residual, both (..., D): what a block adds and what the next one reads."""
    require("add_rms_norm", x=(x, "... D"), residual=(residual, "... D"), weight=(weight, "D"))
    _require_same_shape("add_rms_norm", x, "residual", residual)
    if on_gpu(x):
        return normalise(x, residual, None, weight, None, eps, x.shape[-1], one_plus, False, False)[:2]
    total = x + residual
    return rms_norm(total, weight, eps, one_plus), total


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Layer norm of x (..., D) with weight and bias (D,), either of them None."""
    require("layer_norm", x=(x, "... D"), weight=(weight, "D"), bias=(bias, "D"))
    if on_gpu(x):
        return normalise(x, None, None, weight, bias, eps, x.shape[-1], False, True, False)[0]
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


def add_layer_norm(
    x: Tensor, residual: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """layer_norm(x + residual) and x + residual, both (..., D)."""
    require("add_layer_norm", x=(x, "... D"), residual=(residual, "... D"), weight=(weight, "D"), bias=(bias, "D"))
    _require_same_shape("add_layer_norm", x, "residual", residual)
    if on_gpu(x):
        return normalise(x, residual, None, weight, bias, eps, x.shape[-1], False, True, False)[:2]
    total = x + residual
    return F.layer_norm(total, total.shape[-1:], weight, bias, eps), total


def gated_rms_norm(
    x: Tensor, z: Tensor, weight: Tensor, eps: float, group_size: int | None = None, norm_before_gate: bool = False
) -> Tensor:
    """RMS norm of x (..., D) gated by silu(z), the norm taken over groups of group_size channels (all of them if None).

    norm(x * silu(z)) * weight as in Mamba-2, or norm(x) * weight * silu(z) with norm_before_gate.
    """
    sizes = require("gated_rms_norm", x=(x, "... D"), z=(z, "... D"), weight=(weight, "D"))
    _require_same_shape("gated_rms_norm", x, "z", z)
    size = sizes["D"] if group_size is None else group_size
    if size < 1 or sizes["D"] % size:
        raise ValueError(f"gated_rms_norm: group_size is {size}, expected a divisor of D = {sizes['D']}")
    if on_gpu(x):
        return normalise(x, None, z, weight, None, eps, size, False, False, not norm_before_gate)[0]
    return _gated_rms_norm(x, z, weight, eps, size, norm_before_gate)


def _require_same_shape(op: str, x: Tensor, name: str, other: Tensor) -> None:
    if other.shape != x.shape:
        raise ValueError(f"{op}: {name} has shape {tuple(other.shape)}, expected {tuple(x.shape)} like x")


def _trains_many(x: Tensor, weight: Tensor | None) -> bool:
    """Whether there is a backward pass to save on; a compiler fuses the formulas itself."""
    trained = x.requires_grad or (weight is not None and weight.requires_grad)
    if torch.compiler.is_compiling():  # first, as a question about the size would bind a graph of any size to some
        return False
    return x.numel() >= NUMBERS_NORMED and trained and torch.is_grad_enabled()


def _rms_norm(x: Tensor, weight: Tensor | None, eps: float, one_plus: bool) -> Tensor:
    if weight is not None and not one_plus and x.dtype == weight.dtype and x.dtype in (torch.float32, torch.float64):
        return F.rms_norm(x, x.shape[-1:], weight, eps)
    y = F.rms_norm(wide(x), x.shape[-1:], None, eps)
    if weight is None:
        return y.to(x.dtype)
    if one_plus:
        return (y * (1.0 + weight.to(y.dtype))).to(x.dtype)
    return y.to(x.dtype) * weight


def _gated_rms_norm(x: Tensor, z: Tensor, weight: Tensor, eps: float, size: int, norm_before_gate: bool) -> Tensor:
    gate = F.silu(wide(z))
    y = wide(x) if norm_before_gate else wide(x) * gate
    y = F.rms_norm(y.unflatten(-1, (-1, size)), (size,), None, eps).flatten(-2)
    y = weight * y.to(x.dtype)
    return (y * gate).to(x.dtype) if norm_before_gate else y


class Form(NamedTuple):
    """Which norm of the family it is; group_size channels are normalised together."""

    eps: float
    group_size: int
    one_plus: bool  # the factor of a channel is 1 + weight
    centred: bool  # layer norm, the only one with a bias
    gate_first: bool  # a gate is applied before the norm, otherwise after it

    def casts_first(self, gate: Tensor | None) -> bool:
        """Whether the result is cast to the type of the input before it is scaled, as in Llama."""
        return not (self.one_plus or self.centred or (gate is not None and not self.gate_first))


def _types(
    x: Tensor, residual: Tensor | None, gate: Tensor | None, weight: Tensor | None, form: Form
) -> tuple[torch.dtype, torch.dtype]:
    """Types of x + residual and of the result: Llama's order casts first, and a wider weight then widens the result."""
    total = x.dtype if residual is None else torch.promote_types(x.dtype, residual.dtype)
    widens = weight is not None and form.casts_first(gate)
    return total, torch.promote_types(total, weight.dtype) if widens else total


def _forward(
    x: Tensor,
    residual: Tensor | None,
    gate: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    group_size: int,
    one_plus: bool,
    centred: bool,
    gate_first: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The result, x + residual, and for each group of a row its mean and 1 / sqrt(...); what is not needed is empty."""
    form = Form(eps, group_size, one_plus, centred, gate_first)
    types = total_type, y_type = _types(x, residual, gate, weight, form)
    fast = gpu("norm", x)
    if fast:
        return fast.forward(x, residual, gate, weight, bias, form, types)
    total = x if residual is None else x + residual
    value = _normalised_input(total, gate, group_size, gate_first)
    mean = value.mean(-1, keepdim=True) if centred else None
    value = value if mean is None else value - mean
    rstd = value.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
    y = (value * rstd).flatten(-2)
    if weight is not None:
        y = y.to(total_type) if form.casts_first(gate) else y
        factor = _factor(weight, one_plus, y.dtype)
        y = y.mul_(factor) if torch.promote_types(y.dtype, factor.dtype) == y.dtype else y * factor
    y = y if bias is None else y + bias
    y = y if gate is None or gate_first else y * F.silu(wide(gate))
    empty = x.new_empty(0)
    kept_mean = rstd.new_empty(0) if mean is None else mean.squeeze(-1)
    return y.to(y_type), empty if residual is None else total, kept_mean, rstd.squeeze(-1)


def _normalised_input(total: Tensor, gate: Tensor | None, group_size: int, gate_first: bool) -> Tensor:
    """What the statistics are taken of, (..., groups, group_size)."""
    value = wide(total) * F.silu(wide(gate)) if gate is not None and gate_first else wide(total)
    return value.unflatten(-1, (value.shape[-1] // group_size, group_size))


def _factor(weight: Tensor, one_plus: bool, dtype: torch.dtype) -> Tensor:
    return 1.0 + weight.to(dtype) if one_plus else weight


def _backward(grads: list[Tensor | None], outputs: list[Tensor], *inputs: Any) -> list[Tensor]:
    """Gradients of what is present of x, residual, gate, weight and bias."""
    (x, residual, gate, weight, bias), form = inputs[:5], Form(*inputs[5:])
    total, mean, rstd = outputs
    total = x if residual is None else total
    dy, dtotal = grads[0], None if residual is None else grads[1]
    dy = torch.zeros_like(total) if dy is None else dy
    fast = gpu("norm", x)
    run = fast.backward if fast else _gradients
    found = run(dy, dtotal, residual is not None, total, gate, weight, mean, rstd, form)
    dx, dresidual, dgate, dweight, dbias = found
    wanted = ((x, dx), (residual, dresidual), (gate, dgate), (weight, dweight), (bias, dbias))
    return [gradient for tensor, gradient in wanted if tensor is not None]


def _gradients(
    dy: Tensor,
    dtotal: Tensor | None,
    adds: bool,
    total: Tensor,
    gate: Tensor | None,
    weight: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    form: Form,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor, Tensor]:
    """Gradients of x, residual, gate, weight, bias. The first two are equal and may not share memory."""
    _, group_size, one_plus, centred, gate_first = form
    if gate is None and not centred:
        dx, dweight = _rms_gradients(wide(dy), wide(total), weight, rstd, one_plus)
        dx = dx if dtotal is None else dx + dtotal
        return dx, dx.clone() if adds else None, None, dweight, dweight
    value, grad = _normalised_input(total, gate, group_size, gate_first), wide(dy)
    rstd = rstd.unsqueeze(-1)
    normed = (value - mean.unsqueeze(-1) if centred else value) * rstd
    factor = grad.new_ones(()) if weight is None else _factor(weight, one_plus, grad.dtype)
    dgate = None
    if gate is not None and not gate_first:
        dgate = grad * normed.flatten(-2) * factor * _silu_slope(wide(gate))
        grad = grad * F.silu(wide(gate))
    rows = grad.flatten(0, -2) if grad.dim() > 1 else grad.unsqueeze(0)
    dweight, dbias = (rows * normed.flatten(-2).reshape(rows.shape)).sum(0), rows.sum(0)
    grad = (grad * factor).unflatten(-1, normed.shape[-2:])
    pull = (grad * normed).mean(-1, keepdim=True) * normed
    dvalue = ((grad - grad.mean(-1, keepdim=True) if centred else grad) - pull) * rstd
    dx = dvalue.flatten(-2)
    if gate is not None and gate_first:
        dgate = dx * wide(total) * _silu_slope(wide(gate))
        dx = dx * F.silu(wide(gate))
    dx = dx if dtotal is None else dx + dtotal
    return dx, dx.clone() if adds else None, dgate, dweight, dbias


def _rms_gradients(dy: Tensor, x: Tensor, weight: Tensor | None, rstd: Tensor, one_plus: bool) -> tuple[Tensor, Tensor]:
    """Gradients of x and weight: r (g - x r^2 mean(g x)) with g = dy * weight, in few passes over memory."""
    D = x.shape[-1]
    x, rows, rstd = x.reshape(-1, D), dy.reshape(-1, D), rstd.reshape(-1, 1)
    factor = x.new_ones(D) if weight is None else _factor(weight, one_plus, x.dtype).to(x.dtype)
    product = rows.to(x.dtype) * x
    dweight = (rstd.mT @ product).squeeze(0)
    # a row of zeros comes with a large rstd, whose cube could overflow on its own
    pull = (product @ factor).unsqueeze(-1).div_(-D) * rstd * rstd * rstd
    return (rows * factor).mul_(rstd).addcmul_(x, pull).view(dy.shape), dweight


def _silu_slope(z: Tensor) -> Tensor:
    share = z.sigmoid()
    return share * (1.0 + z * (1.0 - share))


def _fake(
    x: Tensor, residual: Tensor | None, gate: Tensor | None, weight: Tensor | None, bias: Tensor | None, *settings: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    form = Form(*settings)
    total_type, y_type = _types(x, residual, gate, weight, form)
    statistics_type = torch.promote_types(total_type, torch.float32)
    statistics = (*x.shape[:-1], x.shape[-1] // form.group_size)
    return (
        x.new_empty(x.shape, dtype=y_type),
        x.new_empty(0) if residual is None else x.new_empty(x.shape, dtype=total_type),
        x.new_empty(statistics if form.centred else 0, dtype=statistics_type),
        x.new_empty(statistics, dtype=statistics_type),
    )


normalise = operator("norm", _forward, _backward, _fake, keeps=(1, 2, 3))
