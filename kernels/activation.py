"""Activation functions of published models that torch.nn.functional does not have."""

import torch
import torch.nn.functional as F
from torch import Tensor


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


def clamped_swiglu(gate: Tensor, up: Tensor, alpha: float = 1.702, limit: float = 7.0) -> Tensor:
    """(up + 1) * gate * sigmoid(alpha gate), gate <= limit and |up| <= limit (gpt-oss)."""
    gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
    return (up + 1.0) * gate * torch.sigmoid(alpha * gate)
