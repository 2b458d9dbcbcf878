"""In which type an operation computes."""

from functools import reduce

import torch
from torch import Tensor


def wide_type(*tensors: Tensor) -> torch.dtype:
    """The type that sums over these tensors are taken in: float32, or their own where that is wider."""
    return reduce(torch.promote_types, (x.dtype for x in tensors), torch.float32)


def wide(x: Tensor) -> Tensor:
    """x in float32 where its own type is narrower: for what adds up over a sequence, or differs by little."""
    return x.to(wide_type(x))


def autocast_type(x: Tensor) -> torch.dtype | None:
    """The type that autocast gives x before a matrix product; None where it leaves x alone."""
    device = x.device.type
    casts = device in ("cpu", "cuda") and x.dtype != torch.float64 and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if casts else None


def linear_type(x: Tensor) -> torch.dtype:
    """The type that a Linear would compute in: that of autocast, or of x."""
    return autocast_type(x) or x.dtype
