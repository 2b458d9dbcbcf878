"""The backward pass of `archspec.kernels.pointwise.norm` on a GPU.

A row of up to WIDEST channels is one block, and the programs then also add up the gradients of weight and bias.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from archspec.kernels.gpu.rows import grid_of_rows, program_of, row_start
from archspec.kernels.pointwise.norm import Form

BLOCK = 4096  # channels taken at a time, of rows that are no single block
WIDEST = 8192  # channels whose gradients of weight and bias fit the registers of one program
PROGRAMS = 512  # at most: partial sums of the gradients of weight and bias


def gate_place(gate: Tensor | None, gate_first: bool) -> str:
    """Where a kernel applies the gate."""
    return "none" if gate is None else "first" if gate_first else "last"


def backward(
    dy: Tensor,
    dtotal: Tensor | None,
    adds: bool,
    total: Tensor,
    gate: Tensor | None,
    weight: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    form: Form,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor, Tensor | None]:
    """Gradients of x, residual, gate, weight and, for layer norms, bias.

    The first two are equal and may not share memory.
    """
    _, group_size, one_plus, centred, gate_first = form
    groups, width = rstd.shape[-1], total.shape[-1]
    weight = None if weight is None else weight.contiguous()
    grid = grid_of_rows(total)
    beside = grid if gate is None else grid_of_rows(gate)
    rows = grid.shape[0] * grid.shape[1] * grid.shape[2]
    dx = torch.empty(total.shape, dtype=total.dtype, device=total.device)
    dresidual = torch.empty_like(dx) if adds else None
    dgate = None if gate is None else torch.empty(gate.shape, dtype=gate.dtype, device=gate.device)
    one_block = group_size <= WIDEST
    block_rows, block, warps = program_of(group_size, WIDEST if one_block else BLOCK)
    programs = min(triton.cdiv(rows, block_rows), PROGRAMS if one_block else rows)
    sums = torch.empty((2, programs if one_block else 0, width), dtype=torch.float32, device=total.device)
    read = (dy.contiguous(), grid, beside, weight, mean, rstd)
    places = (rows, *grid.shape[1:3], *grid.stride()[:3], *beside.stride()[:3], group_size)
    settings = {"GATE": gate_place(gate, gate_first), "CENTRED": centred, "ONE_PLUS": one_plus}
    _backward_kernel[programs, groups](
        *read,
        None if dtotal is None else dtotal.contiguous(),
        dx,
        dresidual,
        dgate,
        sums,
        *places,
        ONE_BLOCK=one_block,
        BLOCK_ROWS=block_rows,
        BLOCK=block,
        num_warps=warps,
        **settings,
    )
    if not one_block:
        chunks = min(triton.cdiv(rows, 16), 32)
        sums = torch.empty((2, chunks, width), dtype=torch.float32, device=total.device)
        _sums_kernel[triton.cdiv(group_size, 256), chunks, groups](
            *read, sums, *places, BLOCK_ROWS=16, BLOCK=256, num_warps=8, **settings
        )
    dbias = sums[1].sum(0) if centred else None
    return dx, dresidual, dgate, sums[0].sum(0), dbias


@triton.jit
def _backward_kernel(
    dy_ptr,  # (rows, groups * D)
    x_ptr,  # (size_0, size_1, size_2, groups * D), the sum with the residual where there is one
    gate_ptr,  # likewise
    weight_ptr,  # (groups * D,), or None
    mean_ptr,  # (rows, groups)
    rstd_ptr,  # (rows, groups)
    dtotal_ptr,  # (rows, groups * D), or None
    dx_ptr,  # (rows, groups * D)
    dresidual_ptr,  # (rows, groups * D), or None
    dgate_ptr,  # (rows, groups * D), or None
    sums_ptr,  # (2, programs, groups * D), written with ONE_BLOCK
    rows,
    size_1,
    size_2,
    x_stride_0,
    x_stride_1,
    x_stride_2,
    gate_stride_0,
    gate_stride_1,
    gate_stride_2,
    D,
    GATE: tl.constexpr,
    CENTRED: tl.constexpr,
    ONE_PLUS: tl.constexpr,
    ONE_BLOCK: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program gives the gradient of every so many-th block of rows of one group, and its share of the sums."""
    group, groups = tl.program_id(1), tl.num_programs(1)
    weight_sums = tl.zeros((BLOCK_ROWS, BLOCK), tl.float32)
    bias_sums = tl.zeros((BLOCK_ROWS, BLOCK), tl.float32)
    for block in range(tl.program_id(0), tl.cdiv(rows, BLOCK_ROWS), tl.num_programs(0)):
        row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS).to(tl.int64)
        there = row < rows
        x_row = x_ptr + row_start(row, size_1, size_2, x_stride_0, x_stride_1, x_stride_2) + group * D
        gate_row = gate_ptr + row_start(row, size_1, size_2, gate_stride_0, gate_stride_1, gate_stride_2) + group * D
        y_row = (row * groups + group) * D
        rstd = tl.load(rstd_ptr + row * groups + group, there, 0.0)
        mean = tl.zeros((BLOCK_ROWS,), tl.float32)
        if CENTRED:
            mean = tl.load(mean_ptr + row * groups + group, there, 0.0)

        along = tl.zeros((BLOCK_ROWS, BLOCK), tl.float32)
        plain = tl.zeros((BLOCK_ROWS, BLOCK), tl.float32)
        for start in range(0, D, BLOCK):
            channel = start + tl.arange(0, BLOCK)
            mask = there[:, None] & (channel < D)[None, :]
            normed, outer, grad = _gradient(
                dy_ptr + y_row, x_row, gate_row, weight_ptr, group * D, channel, mask, mean, rstd, D, GATE, ONE_PLUS
            )
            along += grad * normed
            if ONE_BLOCK:
                weight_sums += outer * normed
            if CENTRED:
                plain += grad
                if ONE_BLOCK:
                    bias_sums += outer
        along_mean = tl.sum(along, 1) / D
        plain_mean = tl.sum(plain, 1) / D

        for start in range(0, D, BLOCK):
            channel = start + tl.arange(0, BLOCK)
            mask = there[:, None] & (channel < D)[None, :]
            at = y_row[:, None] + channel[None, :]
            normed, outer, grad = _gradient(
                dy_ptr + y_row, x_row, gate_row, weight_ptr, group * D, channel, mask, mean, rstd, D, GATE, ONE_PLUS
            )
            dx = (grad - plain_mean[:, None] - normed * along_mean[:, None]) * rstd[:, None]
            if GATE != "none":
                z = tl.load(gate_row[:, None] + channel[None, :], mask, 0.0).to(tl.float32)
                share = tl.sigmoid(z)
                slope = share * (1.0 + z * (1.0 - share))
                if GATE == "first":
                    x = tl.load(x_row[:, None] + channel[None, :], mask, 0.0).to(tl.float32)
                    dgate = dx * x * slope
                    dx *= z * share
                else:
                    dy = tl.load(dy_ptr + at, mask, 0.0).to(tl.float32)
                    dgate = dy * normed * _factor(weight_ptr, group * D, channel, D, ONE_PLUS)[None, :] * slope
                tl.store(dgate_ptr + at, dgate.to(dgate_ptr.dtype.element_ty), mask)
            if dtotal_ptr is not None:
                dx += tl.load(dtotal_ptr + at, mask, 0.0).to(tl.float32)
            tl.store(dx_ptr + at, dx.to(dx_ptr.dtype.element_ty), mask)
            if dresidual_ptr is not None:
                tl.store(dresidual_ptr + at, dx.to(dx_ptr.dtype.element_ty), mask)
    if ONE_BLOCK:
        channel = tl.arange(0, BLOCK)
        mine = (tl.program_id(0).to(tl.int64) * groups + group) * D + channel
        every = tl.num_programs(0).to(tl.int64) * groups * D
        tl.store(sums_ptr + mine, tl.sum(weight_sums, 0), channel < D)
        if CENTRED:
            tl.store(sums_ptr + every + mine, tl.sum(bias_sums, 0), channel < D)


@triton.jit
def _gradient(
    dy_row,
    x_row,
    gate_row,
    weight_ptr,
    first,
    channel,
    mask,
    mean,
    rstd,
    D,
    GATE: tl.constexpr,
    ONE_PLUS: tl.constexpr,
):
    """The normalised value, the gradient of its product with the weight, and its own gradient, in float32."""
    value = tl.load(x_row[:, None] + channel[None, :], mask, 0.0).to(tl.float32)
    outer = tl.load(dy_row[:, None] + channel[None, :], mask, 0.0).to(tl.float32)
    if GATE != "none":
        z = tl.load(gate_row[:, None] + channel[None, :], mask, 0.0).to(tl.float32)
        if GATE == "first":
            value *= z * tl.sigmoid(z)
        else:
            outer *= z * tl.sigmoid(z)
    normed = (value - mean[:, None]) * rstd[:, None]
    return normed, outer, outer * _factor(weight_ptr, first, channel, D, ONE_PLUS)[None, :]


@triton.jit
def _factor(weight_ptr, first, channel, D, ONE_PLUS: tl.constexpr):
    """What the normalised channels are multiplied by: 1, weight or 1 + weight."""
    factor = tl.full(channel.shape, 1.0, tl.float32)
    if weight_ptr is not None:
        weight = tl.load(weight_ptr + first + channel, channel < D, 0.0).to(tl.float32)
        factor = 1.0 + weight if ONE_PLUS else weight
    return factor


@triton.jit
def _sums_kernel(
    dy_ptr,  # (rows, groups * D)
    x_ptr,  # (size_0, size_1, size_2, groups * D)
    gate_ptr,  # likewise
    weight_ptr,  # (groups * D,), or None
    mean_ptr,  # (rows, groups)
    rstd_ptr,  # (rows, groups)
    sums_ptr,  # (2, chunks, groups * D)
    rows,
    size_1,
    size_2,
    x_stride_0,
    x_stride_1,
    x_stride_2,
    gate_stride_0,
    gate_stride_1,
    gate_stride_2,
    D,
    GATE: tl.constexpr,
    CENTRED: tl.constexpr,
    ONE_PLUS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program adds up the gradients of weight and bias of BLOCK channels over every so many-th block of rows."""
    channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    group, groups = tl.program_id(2), tl.num_programs(2)
    weight_sums = tl.zeros((BLOCK_ROWS, BLOCK), tl.float32)
    bias_sums = tl.zeros((BLOCK_ROWS, BLOCK), tl.float32)
    for block in range(tl.program_id(1), tl.cdiv(rows, BLOCK_ROWS), tl.num_programs(1)):
        row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS).to(tl.int64)
        there = row < rows
        x_row = x_ptr + row_start(row, size_1, size_2, x_stride_0, x_stride_1, x_stride_2) + group * D
        gate_row = gate_ptr + row_start(row, size_1, size_2, gate_stride_0, gate_stride_1, gate_stride_2) + group * D
        rstd = tl.load(rstd_ptr + row * groups + group, there, 0.0)
        mean = tl.zeros((BLOCK_ROWS,), tl.float32)
        if CENTRED:
            mean = tl.load(mean_ptr + row * groups + group, there, 0.0)
        mask = there[:, None] & (channel < D)[None, :]
        dy_row = dy_ptr + (row * groups + group) * D
        normed, outer, _ = _gradient(
            dy_row, x_row, gate_row, weight_ptr, group * D, channel, mask, mean, rstd, D, GATE, ONE_PLUS
        )
        weight_sums += outer * normed
        if CENTRED:
            bias_sums += outer
    mine = (tl.program_id(1).to(tl.int64) * groups + group) * D + channel
    every = tl.num_programs(1).to(tl.int64) * groups * D
    tl.store(sums_ptr + mine, tl.sum(weight_sums, 0), channel < D)
    if CENTRED:
        tl.store(sums_ptr + every + mine, tl.sum(bias_sums, 0), channel < D)
