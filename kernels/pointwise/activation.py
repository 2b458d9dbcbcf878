"""Activation functions of published models, and the gated ones: y = act(gate) * up (Shazeer 2020).

    swiglu: gate sigmoid(gate)   geglu: gate Phi(gate)   reglu: max(gate, 0)   glu: sigmoid(gate) (Dauphin et al. 2017)

Shapes: gate, up (..., F) -> (..., F); without up, gate is (..., 2F) and its second half is up. On a CPU the operations
of PyTorch run: an operator that keeps gate and up alone and computes the activation again in the backward pass holds
one tensor in three less, but took 0.9 to 2.4 times the time of forward and backward on one core. A GPU runs that
operator as one Triton kernel each way, in float32 inside, which reads the halves of a (..., 2F) tensor where they lie.
The kernels were compiled for sm_90 and checked in Triton's interpreter, and not measured on a GPU.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.backend import gpu, on_gpu
from archspec.kernels.contract import require
from archspec.kernels.library import operator
from archspec.kernels.precision import wide

EXAMPLES = (
    {"B": 2, "T": 63, "F": 48},
    {"B": 1, "T": 1, "F": 1},
    {"B": 2, "T": 5, "F": 257},
    {"B": 3, "T": 2, "F": 100},
    {"B": 0, "T": 3, "F": 8},
)


def example(B: int = 2, T: int = 63, F: int = 48) -> dict[str, Tensor]:
    """Arguments of swiglu."""
    gate, up = (torch.randn(B, T, F, dtype=torch.float64) for _ in range(2))
    return {"gate": 2.0 * gate, "up": up}


def reference(gate: Tensor, up: Tensor) -> Tensor:
    """swiglu in float64."""
    gate, up = gate.double(), up.double()
    return gate / (1.0 + torch.exp(-gate)) * up


def swiglu(gate: Tensor, up: Tensor | None = None) -> Tensor:
    """silu(gate) * up."""
    gate, up = _checked("swiglu", gate, up)
    if on_gpu(gate):
        return gated(gate, up, "silu", 1.0, 0.0)
    gate, up = _halves(gate, up)
    return F.silu(gate) * up


def geglu(gate: Tensor, up: Tensor | None = None, tanh: bool = False) -> Tensor:
    """gelu(gate) * up, exact or by tanh (Hendrycks and Gimpel 2016)."""
    gate, up = _checked("geglu", gate, up)
    if on_gpu(gate):
        return gated(gate, up, "gelu_tanh" if tanh else "gelu", 1.0, 0.0)
    gate, up = _halves(gate, up)
    return F.gelu(gate, approximate="tanh" if tanh else "none") * up


def reglu(gate: Tensor, up: Tensor | None = None) -> Tensor:
    """max(gate, 0) * up."""
    gate, up = _checked("reglu", gate, up)
    if on_gpu(gate):
        return gated(gate, up, "relu", 1.0, 0.0)
    gate, up = _halves(gate, up)
    return F.relu(gate) * up


def glu(gate: Tensor, up: Tensor | None = None) -> Tensor:
    """sigmoid(gate) * up."""
    gate, up = _checked("glu", gate, up)
    if on_gpu(gate):
        return gated(gate, up, "sigmoid", 1.0, 0.0)
    gate, up = _halves(gate, up)
    return torch.sigmoid(gate) * up


def clamped_swiglu(gate: Tensor, up: Tensor | None = None, alpha: float = 1.702, limit: float = 7.0) -> Tensor:
    """(up + 1) * gate * sigmoid(alpha gate), gate <= limit and |up| <= limit (gpt-oss)."""
    gate, up = _checked("clamped_swiglu", gate, up)
    if on_gpu(gate):
        return gated(gate, up, "clamped", alpha, limit)
    gate, up = _halves(gate, up)
    gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
    return (up + 1.0) * gate * torch.sigmoid(alpha * gate)


def relu2(x: Tensor) -> Tensor:
    """Squared ReLU, max(x, 0)^2 (Primer, So et al. 2021)."""
    return F.relu(x).square()


def quick_gelu(x: Tensor) -> Tensor:
    """x * sigmoid(1.702 x), the sigmoid approximation of GELU (Hendrycks and Gimpel 2016; CLIP)."""
    return x * torch.sigmoid(1.702 * x)


def softcap(x: Tensor, cap: float) -> Tensor:
    """cap * tanh(x / cap): squashes logits smoothly into (-cap, cap) (Gemma 2)."""
    return cap * torch.tanh(x / cap)


def laplace(x: Tensor) -> Tensor:
    """(1 + erf((x - mu) / (sigma sqrt 2))) / 2 with mu = sqrt(1/2), sigma = sqrt(1 / 4 pi) (Mega, Ma et al. 2022)."""
    return 0.5 * (1.0 + torch.erf((x - 0.7071067811865476) / (0.28209479177387814 * 1.4142135623730951)))


def _checked(op: str, gate: Tensor, up: Tensor | None) -> tuple[Tensor, Tensor | None]:
    require(op, gate=(gate, "... F"), up=(up, "... F"))
    if up is None and gate.shape[-1] % 2:
        raise ValueError(f"{op}: gate has shape {tuple(gate.shape)}, expected an even number of channels without up")
    if up is not None and up.shape != gate.shape:
        raise ValueError(f"{op}: up has shape {tuple(up.shape)}, expected {tuple(gate.shape)} like gate")
    return gate, up


def _halves(gate: Tensor, up: Tensor | None) -> tuple[Tensor, Tensor]:
    if up is not None:
        return gate, up
    gate, up = gate.chunk(2, dim=-1)
    return gate, up


def _result(gate: Tensor, up: Tensor | None) -> tuple[tuple[int, ...], torch.dtype]:
    """Shape and type of y."""
    if up is None:
        return (*gate.shape[:-1], gate.shape[-1] // 2), gate.dtype
    return tuple(gate.shape), torch.promote_types(gate.dtype, up.dtype)


def _value_and_slope(x: Tensor, kind: str, alpha: float, limit: float) -> tuple[Tensor, Tensor]:
    """act(x) and its derivative."""
    if kind == "relu":
        return x.clamp(min=0.0), (x > 0).to(x.dtype)
    if kind == "sigmoid":
        y = x.sigmoid()
        return y, y * (1.0 - y)
    if kind == "gelu":
        share = 0.5 * (1.0 + torch.erf(x * math.sqrt(0.5)))
        return x * share, share + x * torch.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)
    if kind == "gelu_tanh":
        scale = 2.0 * math.sqrt(2.0 / math.pi)  # (1 + tanh(u)) / 2 = sigmoid(2 u)
        share = torch.sigmoid(scale * (x + 0.044715 * x * x * x))
        return x * share, share + x * share * (1.0 - share) * scale * (1.0 + 0.134145 * x * x)
    kept = x if kind == "silu" else x.clamp(max=limit)
    share = torch.sigmoid(alpha * kept)
    slope = share * (1.0 + alpha * kept * (1.0 - share))
    return kept * share, slope if kind == "silu" else slope * (x <= limit)


def _forward(gate: Tensor, up: Tensor | None, kind: str, alpha: float, limit: float) -> Tensor:
    """act(gate) * up; kinds: "silu", "gelu", "gelu_tanh", "relu", "sigmoid", "clamped"."""
    shape, dtype = _result(gate, up)
    fast = gpu("activation", gate)
    if fast:
        return fast.forward(gate, up, shape, dtype, kind, alpha, limit)
    gate, up = _halves(gate, up)
    up = wide(up).clamp(-limit, limit) + 1.0 if kind == "clamped" else wide(up)
    return (_value_and_slope(wide(gate), kind, alpha, limit)[0] * up).to(dtype)


def _backward(
    grads: list[Tensor],
    outputs: list[Tensor],
    gate: Tensor,
    up: Tensor | None,
    kind: str,
    alpha: float,
    limit: float,
) -> list[Tensor]:
    """Gradients of gate and up, or of both in one."""
    (dy,) = grads
    fast = gpu("activation", gate)
    if fast:
        return fast.backward(dy, gate, up, kind, alpha, limit)
    first, second = _halves(gate, up)
    value, slope = _value_and_slope(wide(first), kind, alpha, limit)
    dy, second = wide(dy), wide(second)
    dsecond = dy * value
    if kind == "clamped":
        dsecond = dsecond * (second.abs() <= limit)
        second = second.clamp(-limit, limit) + 1.0
    found = [dy * second * slope, dsecond]
    return found if up is not None else [torch.cat(found, dim=-1)]


def _fake(gate: Tensor, up: Tensor | None, kind: str, alpha: float, limit: float) -> Tensor:
    shape, dtype = _result(gate, up)
    return gate.new_empty(shape, dtype=dtype)


gated = operator("gated_activation", _forward, _backward, _fake)
