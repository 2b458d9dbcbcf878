"""Tensors as rows of channels, where the rows may lie anywhere in memory."""

import triton
import triton.language as tl
from torch import Tensor


def grid_of_rows(x: Tensor) -> Tensor:
    """x (..., D) with three leading axes and neighbouring channels; copied only where strides cannot say it."""
    x = x if x.stride(-1) == 1 or x.shape[-1] <= 1 else x.contiguous()
    return x.flatten(0, x.dim() - 4) if x.dim() > 4 else x[(None,) * (4 - x.dim())]


@triton.jit
def row_start(row, size_1, size_2, stride_0, stride_1, stride_2):
    """Where row number `row` of a (size_0, size_1, size_2) grid of rows starts."""
    row = row.to(tl.int64)
    return row // size_2 // size_1 * stride_0 + row // size_2 % size_1 * stride_1 + row % size_2 * stride_2


def program_of(width: int, most: int) -> tuple[int, int, int]:
    """Rows and channels of a program, and its warps."""
    channels = min(triton.next_power_of_2(width), most)
    rows = min(max(2048 // channels, 1), 32)
    return rows, channels, min(max(rows * channels // 512, 1), 16)
