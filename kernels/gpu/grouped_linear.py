"""Grouped matrix products on a GPU.

Row counts of experts stay on the GPU: the grid has a tile for each possible one, ceil(R / block) + E + 1 at most, and a
program finds its expert by a running sum over the E ends, or ends at once where it is one tile too many. The rows of
nobody are the last group, whose tiles write zeros.
"""

import triton
import triton.language as tl
from torch import Tensor

from archspec.kernels.gpu.tune import tuned

TILES = [
    triton.Config({"row_block": 64, "out_block": 64, "in_block": 32}, num_warps=4, num_stages=3),
    triton.Config({"row_block": 128, "out_block": 128, "in_block": 32}, num_warps=8, num_stages=3),
    triton.Config({"row_block": 16, "out_block": 128, "in_block": 64}, num_warps=4, num_stages=4),
]

WEIGHT_TILES = [
    triton.Config({"row_block": 32, "out_block": 64, "in_block": 64}, num_warps=4, num_stages=3),
    triton.Config({"row_block": 32, "out_block": 128, "in_block": 128}, num_warps=8, num_stages=3),
]


@triton.jit
def _bounds(ends_ptr, index, n_experts, n_rows):
    """First and last row (exclusive) of the groups numbered by `index`, group n_experts being nobody's."""
    first = tl.load(ends_ptr + index - 1, mask=(index > 0) & (index <= n_experts), other=0).to(tl.int64)
    last = tl.load(ends_ptr + index, mask=index < n_experts, other=0).to(tl.int64)
    last = tl.where(index == n_experts, n_rows, last)
    first = tl.where(index <= n_experts, first, 0)
    return first, last


@tuned(TILES, ["n_experts", "n_out", "n_in", "size"])
@triton.jit
def _grouped_kernel(
    x_ptr,  # (R, I)
    weight_ptr,  # (E, O, I) by strides
    bias_ptr,  # (E, O)
    ends_ptr,  # (E,)
    y_ptr,  # (R, O) contiguous
    n_rows,
    n_experts,
    n_out,
    n_in,
    size,
    x_row_stride,
    x_in_stride,
    weight_expert_stride,
    weight_out_stride,
    weight_in_stride,
    has_bias: tl.constexpr,
    groups: tl.constexpr,
    row_block: tl.constexpr,
    out_block: tl.constexpr,
    in_block: tl.constexpr,
):
    """One program computes one tile of y: row_block rows of one expert, out_block outputs."""
    out_tiles = tl.cdiv(n_out, out_block)
    tile = tl.program_id(0) // out_tiles
    index = tl.arange(0, groups)
    first, last = _bounds(ends_ptr, index, n_experts, n_rows)
    tiles = (last - first + row_block - 1) // row_block
    tiles_end = tl.cumsum(tiles, 0)
    expert = tl.sum((tiles_end <= tile).to(tl.int32), 0)
    if expert <= n_experts:
        here = index == expert
        before = tl.sum(tl.where(here, tiles_end - tiles, 0), 0)
        start = tl.sum(tl.where(here, first, 0), 0) + (tile - before) * row_block
        end = tl.sum(tl.where(here, last, 0), 0)
        rows = start + tl.arange(0, row_block)
        outs = (tl.program_id(0) % out_tiles).to(tl.int64) * out_block + tl.arange(0, out_block)
        total = tl.zeros((row_block, out_block), tl.float32)
        if expert < n_experts:
            w_ptr = weight_ptr + expert.to(tl.int64) * weight_expert_stride
            for i in range(0, n_in, in_block):
                ins = i + tl.arange(0, in_block).to(tl.int64)
                x = tl.load(
                    x_ptr + rows[:, None] * x_row_stride + ins[None, :] * x_in_stride,
                    mask=(rows < end)[:, None] & (ins < n_in)[None, :],
                    other=0.0,
                )
                w = tl.load(
                    w_ptr + ins[:, None] * weight_in_stride + outs[None, :] * weight_out_stride,
                    mask=(ins < n_in)[:, None] & (outs < n_out)[None, :],
                    other=0.0,
                )
                total = tl.dot(x, w.to(x.dtype), total, input_precision="ieee")
            if has_bias:
                bias = tl.load(bias_ptr + expert.to(tl.int64) * n_out + outs, mask=outs < n_out, other=0.0)
                total += bias.to(tl.float32)[None, :]
        tl.store(
            y_ptr + rows[:, None] * n_out + outs[None, :],
            total.to(y_ptr.dtype.element_ty),
            mask=(rows < end)[:, None] & (outs < n_out)[None, :],
        )


@tuned(WEIGHT_TILES, ["n_experts", "n_out", "n_in", "size"])
@triton.jit
def _weight_kernel(
    dy_ptr,  # (R, O)
    x_ptr,  # (R, I)
    ends_ptr,  # (E,)
    dw_ptr,  # (E, O, I) contiguous
    db_ptr,  # (E, O) contiguous
    n_experts,
    n_out,
    n_in,
    size,
    dy_row_stride,
    dy_out_stride,
    x_row_stride,
    x_in_stride,
    has_bias: tl.constexpr,
    row_block: tl.constexpr,
    out_block: tl.constexpr,
    in_block: tl.constexpr,
):
    """One program sums one tile of an expert's weight gradient over its rows; the first tiles of I also the bias's."""
    expert = tl.program_id(2).to(tl.int64)
    start, end = _bounds(ends_ptr, expert, n_experts, 0)
    outs = tl.program_id(0).to(tl.int64) * out_block + tl.arange(0, out_block)
    ins = tl.program_id(1).to(tl.int64) * in_block + tl.arange(0, in_block)
    total = tl.zeros((out_block, in_block), tl.float32)
    bias_total = tl.zeros((out_block,), tl.float32)
    for r in range(start, end, row_block):
        rows = r + tl.arange(0, row_block)
        dy = tl.load(
            dy_ptr + rows[None, :] * dy_row_stride + outs[:, None] * dy_out_stride,
            mask=(rows < end)[None, :] & (outs < n_out)[:, None],
            other=0.0,
        )
        x = tl.load(
            x_ptr + rows[:, None] * x_row_stride + ins[None, :] * x_in_stride,
            mask=(rows < end)[:, None] & (ins < n_in)[None, :],
            other=0.0,
        )
        total = tl.dot(dy, x.to(dy.dtype), total, input_precision="ieee")
        if has_bias:
            bias_total += tl.sum(dy.to(tl.float32), 1)
    tl.store(
        dw_ptr + expert * n_out * n_in + outs[:, None] * n_in + ins[None, :],
        total.to(dw_ptr.dtype.element_ty),
        mask=(outs < n_out)[:, None] & (ins < n_in)[None, :],
    )
    if has_bias:  # noqa: SIM102  (known when compiling, unlike the other)
        if tl.program_id(1) == 0:
            tl.store(db_ptr + expert * n_out + outs, bias_total.to(db_ptr.dtype.element_ty), mask=outs < n_out)


def grouped_linear(x: Tensor, weight: Tensor, ends: Tensor, bias: Tensor | None) -> Tensor:
    """x (R, I), weight (E, O, I), ends (E,), bias (E, O) or None -> (R, O)."""
    R, n_in = x.shape
    E, n_out, _ = weight.shape
    y = x.new_empty(R, n_out)
    bias = None if bias is None else bias.contiguous()

    def grid(meta: dict[str, int]) -> tuple[int]:
        return (triton.cdiv(n_out, meta["out_block"]) * (triton.cdiv(R, meta["row_block"]) + E),)

    if y.numel():
        _grouped_kernel[grid](
            x, weight, x if bias is None else bias, ends.contiguous(), y,
            R, E, n_out, n_in, _size(R), *x.stride(), *weight.stride(),
            has_bias=bias is not None, groups=triton.next_power_of_2(E + 1),
        )  # fmt: skip
    return y


def grouped_linear_backward(
    dy: Tensor, x: Tensor, weight: Tensor, ends: Tensor, bias: Tensor | None, needed: list[bool]
) -> list[Tensor | None]:
    """Gradients of x, weight and, where there is one, bias; the last two come out of one kernel."""
    R, n_in = x.shape
    E, n_out, _ = weight.shape
    dx = grouped_linear(dy, weight.mT, ends, None) if needed[0] else None
    if not any(needed[1:]):
        return [dx] + [None] * len(needed[1:])
    dw = weight.new_empty(weight.shape)
    db = None if bias is None else bias.new_empty(bias.shape)

    def grid(meta: dict[str, int]) -> tuple[int, int, int]:
        return triton.cdiv(n_out, meta["out_block"]), triton.cdiv(n_in, meta["in_block"]), E

    if dw.numel():
        _weight_kernel[grid](
            dy, x, ends.contiguous(), dw, dw if db is None else db,
            E, n_out, n_in, _size(R), *dy.stride(), *x.stride(), has_bias=db is not None,
        )  # fmt: skip
    return [dx, dw] if db is None else [dx, dw, db]


def _size(rows: int) -> int:
    """Rows as a power of two, so that launch settings are sought for few sizes."""
    return min(triton.next_power_of_2(rows), 2**16)
