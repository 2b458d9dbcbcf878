"""The weighted sum of slots on a GPU: every output is written by one program, so sums are always the same."""

import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _sum_kernel(
    rows_ptr,  # (N k, D)
    weights_ptr,  # (N, k) contiguous
    places_ptr,  # (N, k) contiguous
    y_ptr,  # (N, D) contiguous
    width,
    row_stride,
    channel_stride,
    k: tl.constexpr,
    weighted: tl.constexpr,
    block: tl.constexpr,
):
    """One program computes `block` channels of one token: the sum of its k rows by their weights."""
    token = tl.program_id(0).to(tl.int64)
    channels = tl.program_id(1).to(tl.int64) * block + tl.arange(0, block)
    total = tl.zeros((block,), tl.float32)
    for j in range(k):
        place = tl.load(places_ptr + token * k + j).to(tl.int64)
        row = tl.load(rows_ptr + place * row_stride + channels * channel_stride, mask=channels < width, other=0.0)
        row = row.to(tl.float32)
        if weighted:
            row *= tl.load(weights_ptr + token * k + j).to(tl.float32)
        total += row
    tl.store(y_ptr + token * width + channels, total.to(y_ptr.dtype.element_ty), mask=channels < width)


@triton.jit
def _sum_backward_kernel(
    dy_ptr,  # (N, D) contiguous
    rows_ptr,  # (N k, D)
    weights_ptr,  # (N, k) contiguous
    places_ptr,  # (N, k) contiguous
    drows_ptr,  # (N k, D) contiguous
    dweights_ptr,  # (N, k) contiguous
    width,
    row_stride,
    channel_stride,
    block: tl.constexpr,
):
    """One program writes the gradients of one slot: of its row, weight * dy, and of its weight, <dy, row>."""
    token, j, k = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    place = tl.load(places_ptr + token * k + j).to(tl.int64)
    weight = tl.load(weights_ptr + token * k + j).to(tl.float32)
    total = tl.zeros((block,), tl.float32)
    for start in range(0, width, block):
        channels = start + tl.arange(0, block).to(tl.int64)
        dy = tl.load(dy_ptr + token * width + channels, mask=channels < width, other=0.0).to(tl.float32)
        row = tl.load(rows_ptr + place * row_stride + channels * channel_stride, mask=channels < width, other=0.0)
        total += dy * row.to(tl.float32)
        drow = (weight * dy).to(drows_ptr.dtype.element_ty)
        tl.store(drows_ptr + place * width + channels, drow, mask=channels < width)
    tl.store(dweights_ptr + token * k + j, tl.sum(total, 0).to(dweights_ptr.dtype.element_ty))


def weighted_sum(rows: Tensor, weights: Tensor | None, places: Tensor) -> Tensor:
    """sum_j weights[n, j] rows[places[n, j]] (N, D), a missing weight being 1."""
    (N, k), D = places.shape, rows.shape[1]
    y = rows.new_empty(N, D)
    if not k:
        return y.zero_()
    block = min(triton.next_power_of_2(D), 1024)
    if y.numel():
        _sum_kernel[(N, triton.cdiv(D, block))](
            rows, rows if weights is None else weights.contiguous(), places.contiguous(), y, D, *rows.stride(),
            k=k, weighted=weights is not None, block=block,
        )  # fmt: skip
    return y


def weighted_sum_backward(dy: Tensor, rows: Tensor, weights: Tensor, places: Tensor) -> list[Tensor]:
    """Gradients of rows and weights."""
    D = rows.shape[1]
    drows, dweights = rows.new_empty(rows.shape), weights.new_empty(weights.shape)
    if dweights.numel():
        _sum_backward_kernel[tuple(places.shape)](
            dy.contiguous(), rows, weights.contiguous(), places.contiguous(), drows, dweights, D, *rows.stride(),
            block=min(triton.next_power_of_2(max(D, 1)), 1024),
        )  # fmt: skip
    return [drows, dweights]
