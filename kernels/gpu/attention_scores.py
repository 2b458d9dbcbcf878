"""What the attention kernels share: loading rows of a head, and scores from products of queries and keys."""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from archspec.kernels.attention.blocks import Scores

LOG2E = tl.constexpr(1.4426950408889634)  # exp(x) = exp2(LOG2E x)
LN2 = tl.constexpr(0.6931471805599453)


class Rows(NamedTuple):
    """A tensor (B, heads, count, width) as an argument of a kernel: strides (0 for a broadcast axis) and sizes."""

    ptr: Any
    batch: Any
    head: Any
    row: Any
    column: Any
    heads: Any
    count: Any
    width: Any
    padded: Any  # the power of two that a block of this width takes; products of blocks want at least 16


class Grid(NamedTuple):
    """A tensor (B, H, T, S) as an argument of a kernel."""

    ptr: Any
    batch: Any
    head: Any
    row: Any
    column: Any


class Scoring(NamedTuple):
    """What happens to a product q . k before the softmax."""

    heads: Any  # H
    scale: Any
    softcap: Any  # 0.0 for none
    bias: Grid | None  # broadcast to (B, H, T, S)
    alibi: Tensor | None  # (H,)


def rows(x: Tensor) -> Rows:
    """x (B, heads, count, width) for a kernel, wherever its strides lead."""
    _, heads, count, width = x.shape
    return Rows(x, *x.stride(), heads, count, tl.constexpr(width), tl.constexpr(padded(width)))


def scoring(q: Tensor, k: Tensor, scores: Scores) -> Scoring:
    """What makes scores, as an argument of a kernel."""
    grid = None
    if scores.bias is not None:
        bias = scores.bias.expand(*q.shape[:3], k.shape[2])
        grid = Grid(bias, *bias.stride())
    slopes = None if scores.alibi is None else scores.alibi.contiguous()
    return Scoring(q.shape[1], float(scores.scale), tl.constexpr(scores.softcap), grid, slopes)


def in_one_type(*tensors: Tensor) -> list[Tensor]:
    """The tensors in the type that holds them all, as products of blocks want; autocast mixes them."""
    common = tensors[0].dtype
    for x in tensors[1:]:
        common = torch.promote_types(common, x.dtype)
    common = torch.float32 if common == torch.float64 else common
    return [x.to(common) for x in tensors]


def padded(size: int) -> int:
    """The power of two that a block for this size takes; products of blocks want at least 16."""
    return max(16, triton.next_power_of_2(size))


@triton.jit
def load_rows(x, b, h, places, BOUNDED: tl.constexpr):
    """Rows `places` of head (b, h) of x as a block (places, padded), 0 outside; BOUNDED: some may be past the last."""
    columns = tl.arange(0, x.padded)
    if BOUNDED and (x.width < x.padded):
        mask = (places < x.count)[:, None] & (columns < x.width)[None, :]
        return tl.load(_pointers(x, b, h, places, columns), mask=mask, other=0.0)
    elif BOUNDED:
        return tl.load(_pointers(x, b, h, places, columns), mask=(places < x.count)[:, None], other=0.0)
    elif x.width < x.padded:
        return tl.load(_pointers(x, b, h, places, columns), mask=(columns < x.width)[None, :], other=0.0)
    else:
        return tl.load(_pointers(x, b, h, places, columns))


@triton.jit
def store_rows(x, b, h, places, block):
    """The reverse of `load_rows`."""
    columns = tl.arange(0, x.padded)
    mask = (places < x.count)[:, None] & (columns < x.width)[None, :]
    tl.store(_pointers(x, b, h, places, columns), block.to(x.ptr.dtype.element_ty), mask=mask)


@triton.jit
def _pointers(x, b, h, places, columns):
    base = x.ptr + b.to(tl.int64) * x.batch + h.to(tl.int64) * x.head
    return base + places.to(tl.int64)[:, None] * x.row + columns.to(tl.int64)[None, :] * x.column


@triton.jit
def logits(products, scoring, b, h, i, j, T, S):
    """Logits times LOG2E from products q . k of queries at positions i and keys at j, which broadcast to the block."""
    if (scoring.softcap == 0.0) and (scoring.bias is None) and (scoring.alibi is None):
        return products * (scoring.scale * LOG2E)
    else:
        scores = products * scoring.scale
        if scoring.softcap > 0.0:
            scores = scoring.softcap * _tanh(scores / scoring.softcap)
        if scoring.bias is not None:
            scores += _bias(scoring.bias, b, h, i, j, T, S)
        if scoring.alibi is not None:
            scores -= tl.load(scoring.alibi + h).to(tl.float32) * tl.abs(i - j).to(tl.float32)
        return scores * LOG2E


@triton.jit
def accumulate(scores, v_block, sums, highest, total):
    """Takes scores (rows, keys), -inf for what is not seen, and the keys' values into the running softmax.

    sums (rows, Dv) and total (rows,) are relative to 2^highest; a row that has seen nothing has highest = -inf.
    """
    now = tl.maximum(highest, tl.max(scores, axis=1))
    level = tl.where(now == float("-inf"), 0.0, now)
    weights = tl.exp2(scores - level[:, None])
    fade = tl.exp2(highest - level)
    total = total * fade + tl.sum(weights, axis=1)
    sums = tl.dot(weights.to(v_block.dtype), v_block, sums * fade[:, None], input_precision="ieee")
    return sums, now, total


@triton.jit
def before_softcap(dscores, products, scoring):
    """The gradient of scale * products from that of the scores."""
    if scoring.softcap > 0.0:
        bent = _tanh(products * scoring.scale / scoring.softcap)
        return dscores * (1.0 - bent * bent)
    else:
        return dscores


@triton.jit
def _bias(bias, b, h, i, j, T, S):
    t = i - (S - T)
    here = bias.ptr + b.to(tl.int64) * bias.batch + h.to(tl.int64) * bias.head
    here = here + t.to(tl.int64) * bias.row + j.to(tl.int64) * bias.column
    return tl.load(here, mask=(t < T) & (j < S), other=0.0).to(tl.float32)


@triton.jit
def _tanh(x):
    return 2.0 * tl.sigmoid(2.0 * x) - 1.0
