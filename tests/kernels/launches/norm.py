"""Norms at the widths of published models: blocks, heads, gates in groups, and rows wider than one block."""

import torch
from torch import Tensor

from archspec.kernels.pointwise import norm


def launches() -> None:
    for width in (64, 4096, 16384):
        both(width, one_plus=width == 64)
    both(1024, residual=True)
    both(4096, residual=True, centred=True)
    both(1536, gate=True, group_size=256)
    both(4096, gate=True, gate_first=True)
    both(4096, gate=True, gate_first=True, dtype=torch.float32)


def both(
    width: int,
    group_size: int = 0,
    residual: bool = False,
    gate: bool = False,
    one_plus: bool = False,
    centred: bool = False,
    gate_first: bool = False,
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Forward and backward of a (2, 8, 4, width) view of (2, 4, 8, width)."""

    def x() -> Tensor:
        return torch.zeros(2, 4, 8, width, dtype=dtype).transpose(1, 2)

    weight = torch.zeros(width, dtype=dtype)
    arguments = (
        x(),
        x() if residual else None,
        x() if gate else None,
        weight,
        weight if centred else None,
        1e-5,
        group_size or width,
        one_plus,
        centred,
        gate_first,
    )
    y, *kept = norm._forward(*arguments)
    norm._backward([y, kept[0] if residual else None, None, None], kept, *arguments)
