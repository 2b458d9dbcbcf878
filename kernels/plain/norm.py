"""Normalisation over the last axis, with statistics in float32 or wider."""

import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.plain.precision import wide


def rms_norm(x: Tensor, weight: Tensor | None, eps: float, one_plus: bool = False) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight; with one_plus the factor is 1 + weight, applied in float32 (Gemma)."""
    if weight is None:
        return F.rms_norm(x, x.shape[-1:], eps=eps)
    if one_plus:
        return (F.rms_norm(wide(x), x.shape[-1:], eps=eps) * (1.0 + wide(weight))).to(x.dtype)
    return F.rms_norm(x, x.shape[-1:], eps=eps) * weight


def add_rms_norm(
    x: Tensor, residual: Tensor, weight: Tensor | None, eps: float, one_plus: bool = False
) -> tuple[Tensor, Tensor]:
    """rms_norm(x + residual) and x + residual, both (..., D): what a block adds and what the next one reads."""
    total = x + residual
    return rms_norm(total, weight, eps, one_plus), total


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """(x - mean(x)) / sqrt(var(x) + eps) * weight + bias."""
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


def add_layer_norm(
    x: Tensor, residual: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """layer_norm(x + residual) and x + residual, both (..., D)."""
    total = x + residual
    return F.layer_norm(total, total.shape[-1:], weight, bias, eps), total


def gated_rms_norm(
    x: Tensor, z: Tensor, weight: Tensor, eps: float, group_size: int | None = None, norm_before_gate: bool = False
) -> Tensor:
    """RMS norm of x gated by silu(z), before or after the gate, over groups of channels or all of them."""
    gate = F.silu(wide(z))
    if norm_before_gate:
        y = grouped_norm(wide(x), x.shape[-1] if group_size is None else group_size, eps)
        return (weight * y.to(x.dtype) * gate).to(x.dtype)
    y = grouped_norm(wide(x) * gate, x.shape[-1] if group_size is None else group_size, eps)
    return weight * y.to(x.dtype)


def grouped_norm(x: Tensor, size: int, eps: float) -> Tensor:
    """The norm of each group of `size` channels."""
    return F.rms_norm(x.unflatten(-1, (-1, size)), (size,), eps=eps).flatten(-2)
