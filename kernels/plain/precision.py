"""In which type an operation computes."""

import torch
from torch import Tensor


def wide_type(*tensors: Tensor) -> torch.dtype:
    """The type that sums over these tensors are taken in: float32, or their own where that is wider."""
    dtype = torch.float32
    for x in tensors:
        dtype = torch.promote_types(dtype, x.dtype)
    return dtype


def wide(x: Tensor) -> Tensor:
    """x in float32 where its own type is narrower: for what adds up over a sequence, or differs by little."""
    return x.to(torch.promote_types(torch.float32, x.dtype))  # float64 stays
