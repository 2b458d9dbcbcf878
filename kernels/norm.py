"""Normalisation over the last axis. Statistics are taken in float32 for 16-bit inputs, in the input's type otherwise.

rms_norm(x) = x / sqrt(mean(x^2) + eps) * w                 (Zhang and Sennrich 2019)
layer_norm(x) = (x - mean(x)) / sqrt(var(x) + eps) * w + b  (Ba et al. 2016)
"""

import torch
import torch.nn.functional as F
from torch import Tensor


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
    if weight is not None and not one_plus and x.dtype == weight.dtype and x.dtype in (torch.float32, torch.float64):
        return F.rms_norm(x, x.shape[-1:], weight, eps)
    y = F.rms_norm(_wide(x), x.shape[-1:], None, eps)
    if weight is None:
        return y.to(x.dtype)
    if one_plus:
        return (y * (1.0 + weight.to(y.dtype))).to(x.dtype)
    return y.to(x.dtype) * weight


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Layer norm of x (..., D) with weight and bias (D,), either of them None."""
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


def gated_rms_norm(
    x: Tensor, z: Tensor, weight: Tensor, eps: float, group_size: int | None = None, norm_before_gate: bool = False
) -> Tensor:
    """RMS norm of x (..., D) gated by silu(z), the norm taken over groups of group_size channels (all of them if None).

    norm(x * silu(z)) * weight as in Mamba-2, or norm(x) * weight * silu(z) with norm_before_gate.
    """
    gate = F.silu(_wide(z))
    y = _wide(x) if norm_before_gate else _wide(x) * gate
    size = y.shape[-1] if group_size is None else group_size
    y = F.rms_norm(y.unflatten(-1, (-1, size)), (size,), None, eps).flatten(-2)
    y = weight * y.to(x.dtype)
    return (y * gate).to(x.dtype) if norm_before_gate else y


def _wide(x: Tensor) -> Tensor:
    """x in float32 where its own type is narrower."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
