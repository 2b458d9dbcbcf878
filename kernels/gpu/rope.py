"""Triton kernel of `archspec.kernels.pointwise.rope`: queries and keys of any stride turned in one launch."""

import torch
import triton
import triton.language as tl
from torch import Tensor

PAIRS = 1024  # pairs that one program turns


def rotate(
    q: Tensor, k: Tensor | None, cos: Tensor, sin: Tensor, interleaved: bool, back: bool
) -> tuple[Tensor, Tensor]:
    """q and k (empty without k) turned by the angles of the tables, or `back` by their negatives."""
    turned = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k) if x is not None]
    grids = [_heads(x) for x in (q, k) if x is not None]
    outs = [_heads(y) for y in turned]
    if len(grids) == 1:
        grids, outs = grids * 2, outs * 2
    B, heads, T, width = grids[0].shape
    key_heads = 0 if k is None else grids[1].shape[1]
    cos, sin = cos.contiguous(), sin.contiguous()
    R = cos.shape[-1]
    block_pairs = triton.next_power_of_2(max(R, 1))
    block_tokens = min(max(PAIRS // block_pairs, 1), triton.next_power_of_2(max(T, 1)))
    _rotate_kernel[B * triton.cdiv(T, block_tokens) * (heads + key_heads),](
        grids[0],
        grids[1],
        cos,
        sin,
        outs[0],
        outs[1],
        heads,
        key_heads,
        T,
        width,
        grids[1].shape[3],
        *grids[0].stride(),
        *grids[1].stride(),
        T * R if cos.dim() == 3 else 0,
        R,
        INTERLEAVED=interleaved,
        BACK=back,
        BLOCK_TOKENS=block_tokens,
        BLOCK_PAIRS=block_pairs,
        num_warps=4,
    )
    return turned[0], turned[1] if k is not None else q.new_empty(0)


def _heads(x: Tensor) -> Tensor:
    """x (..., T, D) as (B, H, T, D): all axes between the first and T are heads."""
    if x.dim() < 4:
        return x[None, None] if x.dim() == 2 else x.unsqueeze(1)
    return x.flatten(1, -3)


@triton.jit
def _rotate_kernel(
    q_ptr,  # (B, heads, T, width)
    k_ptr,  # (B, key_heads, T, key_width)
    cos_ptr,  # (T, R) or (B, T, R)
    sin_ptr,  # likewise
    turned_q_ptr,  # like q, contiguous
    turned_k_ptr,  # like k, contiguous
    heads,
    key_heads,
    T,
    width,
    key_width,
    q_batch_stride,
    q_head_stride,
    q_token_stride,
    q_channel_stride,
    k_batch_stride,
    k_head_stride,
    k_token_stride,
    k_channel_stride,
    table_stride,
    R,
    INTERLEAVED: tl.constexpr,
    BACK: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    BLOCK_PAIRS: tl.constexpr,
):
    """One program turns BLOCK_TOKENS tokens of one head of q or k; neighbouring programs have neighbouring heads."""
    head = tl.program_id(0) % (heads + key_heads)
    block = tl.program_id(0) // (heads + key_heads)
    blocks = tl.cdiv(T, BLOCK_TOKENS)
    b = (block // blocks).to(tl.int64)
    token = (block % blocks) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS).to(tl.int64)
    pair = tl.arange(0, BLOCK_PAIRS)
    mask = (token < T)[:, None] & (pair < R)[None, :]
    table = b * table_stride + token[:, None] * R + pair[None, :]
    cos = tl.load(cos_ptr + table, mask, 0.0).to(tl.float32)
    sin = tl.load(sin_ptr + table, mask, 0.0).to(tl.float32)
    if BACK:
        sin = -sin
    if head < heads:
        row = b * q_batch_stride + head.to(tl.int64) * q_head_stride + token * q_token_stride
        out = ((b * heads + head) * T + token) * width
        _turn(
            q_ptr + row, q_channel_stride, turned_q_ptr + out, token < T, cos, sin, R, width, INTERLEAVED, BLOCK_PAIRS
        )
    else:
        head -= heads
        row = b * k_batch_stride + head.to(tl.int64) * k_head_stride + token * k_token_stride
        out = ((b * key_heads + head) * T + token) * key_width
        _turn(
            k_ptr + row,
            k_channel_stride,
            turned_k_ptr + out,
            token < T,
            cos,
            sin,
            R,
            key_width,
            INTERLEAVED,
            BLOCK_PAIRS,
        )


@triton.jit
def _turn(
    x_row, channel_stride, y_row, there, cos, sin, R, width, INTERLEAVED: tl.constexpr, BLOCK_PAIRS: tl.constexpr
):
    """Turns the pairs of rows that start at x_row into those that start at y_row, and copies the other channels."""
    pair = tl.arange(0, BLOCK_PAIRS)
    mask = there[:, None] & (pair < R)[None, :]
    if INTERLEAVED:
        one, other = 2 * pair, 2 * pair + 1
    else:
        one, other = pair, pair + R
    first = tl.load(x_row[:, None] + one[None, :].to(tl.int64) * channel_stride, mask, 0.0).to(tl.float32)
    second = tl.load(x_row[:, None] + other[None, :].to(tl.int64) * channel_stride, mask, 0.0).to(tl.float32)
    turned_first = (first * cos - second * sin).to(y_row.dtype.element_ty)
    turned_second = (second * cos + first * sin).to(y_row.dtype.element_ty)
    if INTERLEAVED:
        both = tl.interleave(turned_first, turned_second)
        place = tl.arange(0, 2 * BLOCK_PAIRS)
        tl.store(y_row[:, None] + place[None, :], both, there[:, None] & (place < 2 * R)[None, :])
    else:
        tl.store(y_row[:, None] + one[None, :], turned_first, mask)
        tl.store(y_row[:, None] + other[None, :], turned_second, mask)
    for start in range(2 * R, width, BLOCK_PAIRS):
        channel = start + pair
        rest = there[:, None] & (channel < width)[None, :]
        value = tl.load(x_row[:, None] + channel[None, :].to(tl.int64) * channel_stride, rest, 0.0)
        tl.store(y_row[:, None] + channel[None, :], value, rest)
