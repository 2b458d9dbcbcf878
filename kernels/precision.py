"""In which type an operation computes."""

import torch
from torch import Tensor


def wide_type(x: Tensor) -> torch.dtype:
    """The type that sums over x are taken in: float32, or its own where that is wider."""
    return torch.promote_types(x.dtype, torch.float32)


def autocast_type(x: Tensor) -> torch.dtype | None:
    """The type that autocast gives x before a matrix product; None where it leaves x alone."""
    device = x.device.type
    casts = device in ("cpu", "cuda") and x.dtype != torch.float64 and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if casts else None


def linear_type(x: Tensor) -> torch.dtype:
    """The type that a Linear would compute in: that of autocast, or of x."""
    return autocast_type(x) or x.dtype
