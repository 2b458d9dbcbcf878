"""Triton kernels of `archspec.kernels.pointwise.norm`: rows of any stride, statistics and gradients in float32.

Rows are read in blocks of channels, a second and a third time out of the cache, so that any width works. The backward
pass is in `norm_backward`.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from archspec.kernels.gpu.norm_backward import BLOCK, backward, gate_place
from archspec.kernels.gpu.rows import grid_of_rows, program_of, row_start
from archspec.kernels.pointwise.norm import Form

__all__ = ["backward", "forward"]


def forward(
    x: Tensor,
    residual: Tensor | None,
    gate: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    form: Form,
    types: tuple[torch.dtype, torch.dtype],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The result, x + residual, mean and 1 / sqrt(...) of each group of a row; what is not needed is empty."""
    eps, group_size, one_plus, centred, gate_first = form
    groups, (total_type, y_type) = x.shape[-1] // group_size, types
    y = torch.empty(x.shape, dtype=y_type, device=x.device)
    total = torch.empty(0 if residual is None else x.shape, dtype=total_type, device=x.device)
    rstd = torch.empty((*x.shape[:-1], groups), dtype=torch.float32, device=x.device)
    mean = torch.empty(rstd.shape if centred else 0, dtype=torch.float32, device=x.device)
    weight, bias = (None if t is None else t.contiguous() for t in (weight, bias))
    grid = grid_of_rows(x)
    other = next((t for t in (residual, gate) if t is not None), None)
    beside = grid if other is None else grid_of_rows(other)
    rows = grid.shape[0] * grid.shape[1] * grid.shape[2]
    block_rows, block, warps = program_of(group_size, BLOCK)
    _forward_kernel[triton.cdiv(rows, block_rows), groups](
        grid,
        beside,
        weight,
        bias,
        y,
        total,
        mean,
        rstd,
        rows,
        *grid.shape[1:3],
        *grid.stride()[:3],
        *beside.stride()[:3],
        group_size,
        eps,
        ADDS=residual is not None,
        GATE=gate_place(gate, gate_first),
        CENTRED=centred,
        ONE_PLUS=one_plus,
        CASTS_FIRST=form.casts_first(gate),
        BLOCK_ROWS=block_rows,
        BLOCK=block,
        num_warps=warps,
    )
    return y, total if residual is not None else x.new_empty(0), mean, rstd


@triton.jit
def _forward_kernel(
    x_ptr,  # (size_0, size_1, size_2, groups * D)
    beside_ptr,  # residual or gate, likewise
    weight_ptr,  # (groups * D,), or None
    bias_ptr,  # (groups * D,), or None
    y_ptr,  # (rows, groups * D)
    total_ptr,  # (rows, groups * D)
    mean_ptr,  # (rows, groups)
    rstd_ptr,  # (rows, groups)
    rows,
    size_1,
    size_2,
    x_stride_0,
    x_stride_1,
    x_stride_2,
    beside_stride_0,
    beside_stride_1,
    beside_stride_2,
    D,
    eps,
    ADDS: tl.constexpr,
    GATE: tl.constexpr,
    CENTRED: tl.constexpr,
    ONE_PLUS: tl.constexpr,
    CASTS_FIRST: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program normalises BLOCK_ROWS rows of one group of D channels."""
    group, groups = tl.program_id(1), tl.num_programs(1)
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    there = row < rows
    x_row = x_ptr + row_start(row, size_1, size_2, x_stride_0, x_stride_1, x_stride_2) + group * D
    beside_row = beside_ptr + row_start(row, size_1, size_2, beside_stride_0, beside_stride_1, beside_stride_2)
    beside_row += group * D
    y_row = (row * groups + group) * D

    mean = tl.zeros((BLOCK_ROWS,), tl.float32)
    if CENTRED:
        partial = tl.zeros((BLOCK_ROWS, BLOCK), tl.float32)
        for start in range(0, D, BLOCK):
            channel = start + tl.arange(0, BLOCK)
            mask = there[:, None] & (channel < D)[None, :]
            partial += _value(x_row, beside_row, channel, mask, total_ptr, ADDS, GATE)
        mean = tl.sum(partial, 1) / D
        tl.store(mean_ptr + row * groups + group, mean, there)

    squares = tl.zeros((BLOCK_ROWS, BLOCK), tl.float32)
    for start in range(0, D, BLOCK):
        channel = start + tl.arange(0, BLOCK)
        mask = there[:, None] & (channel < D)[None, :]
        value = _value(x_row, beside_row, channel, mask, total_ptr, ADDS, GATE)
        if ADDS:
            tl.store(total_ptr + y_row[:, None] + channel[None, :], value.to(total_ptr.dtype.element_ty), mask)
        distance = tl.where(mask, value - mean[:, None], 0.0)
        squares += distance * distance
    rstd = 1.0 / tl.sqrt_rn(tl.sum(squares, 1) / D + eps)
    tl.store(rstd_ptr + row * groups + group, rstd, there)

    for start in range(0, D, BLOCK):
        channel = start + tl.arange(0, BLOCK)
        mask = there[:, None] & (channel < D)[None, :]
        y = (_value(x_row, beside_row, channel, mask, total_ptr, ADDS, GATE) - mean[:, None]) * rstd[:, None]
        if weight_ptr is not None:
            weight = tl.load(weight_ptr + group * D + channel, channel < D, 0.0).to(tl.float32)
            if CASTS_FIRST:
                y = y.to(total_ptr.dtype.element_ty).to(tl.float32)
            y *= (1.0 + weight if ONE_PLUS else weight)[None, :]
        if bias_ptr is not None:
            y += tl.load(bias_ptr + group * D + channel, channel < D, 0.0).to(tl.float32)[None, :]
        if GATE == "last":
            z = tl.load(beside_row[:, None] + channel[None, :], mask, 0.0).to(tl.float32)
            y *= z * tl.sigmoid(z)
        tl.store(y_ptr + y_row[:, None] + channel[None, :], y.to(y_ptr.dtype.element_ty), mask)


@triton.jit
def _value(x_row, beside_row, channel, mask, total_ptr, ADDS: tl.constexpr, GATE: tl.constexpr):
    """What is normalised: x, x + residual rounded to its type, or x * silu(gate), in float32."""
    value = tl.load(x_row[:, None] + channel[None, :], mask, 0.0).to(tl.float32)
    if ADDS:
        value += tl.load(beside_row[:, None] + channel[None, :], mask, 0.0).to(tl.float32)
        value = value.to(total_ptr.dtype.element_ty).to(tl.float32)
    if GATE == "first":
        z = tl.load(beside_row[:, None] + channel[None, :], mask, 0.0).to(tl.float32)
        value *= z * tl.sigmoid(z)
    return value
