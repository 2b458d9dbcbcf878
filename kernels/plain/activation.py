"""Activation functions, and the gated ones: y = act(gate) * up. Without up, the second half of gate is up."""

import torch
import torch.nn.functional as F
from torch import Tensor


def swiglu(gate: Tensor, up: Tensor | None = None) -> Tensor:
    """silu(gate) * up."""
    if up is None:
        gate, up = gate.chunk(2, dim=-1)
    return F.silu(gate) * up


def geglu(gate: Tensor, up: Tensor | None = None, tanh: bool = False) -> Tensor:
    """gelu(gate) * up, exact or by tanh."""
    if up is None:
        gate, up = gate.chunk(2, dim=-1)
    return F.gelu(gate, approximate="tanh" if tanh else "none") * up


def reglu(gate: Tensor, up: Tensor | None = None) -> Tensor:
    """max(gate, 0) * up."""
    if up is None:
        gate, up = gate.chunk(2, dim=-1)
    return F.relu(gate) * up


def glu(gate: Tensor, up: Tensor | None = None) -> Tensor:
    """sigmoid(gate) * up."""
    if up is None:
        gate, up = gate.chunk(2, dim=-1)
    return torch.sigmoid(gate) * up


def clamped_swiglu(gate: Tensor, up: Tensor | None = None, alpha: float = 1.702, limit: float = 7.0) -> Tensor:
    """(up + 1) * gate * sigmoid(alpha gate), gate <= limit and |up| <= limit (gpt-oss)."""
    if up is None:
        gate, up = gate.chunk(2, dim=-1)
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
    """(1 + erf((x - sqrt(1/2)) / (sqrt(1 / 4 pi) sqrt(2)))) / 2 (Mega, Ma et al. 2022)."""
    return 0.5 * (1.0 + torch.erf((x - 0.7071067811865476) / (0.28209479177387814 * 1.4142135623730951)))
