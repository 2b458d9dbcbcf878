"""Softmax attention on a GPU without the (T, S) matrix of scores: the softmax runs along with the sum over keys.

Milakov and Gimelshein 2018 (the running maximum and sum), Dao et al. 2022 (blocks, and the backward pass that computes
the scores again from the stored log-sum-exp). Shapes and the rule of who sees whom as in `kernels.attention.softmax`.
A program holds one block of queries and visits the blocks of keys that it may see (`attention_mask`), those seen whole
without a mask. Scores are kept in base 2, where the hardware has its exponential. Compiled for sm_80 and sm_90 and run
in Triton's interpreter; not measured on a GPU, where the block sizes are those that fit without spilling much.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from archspec.kernels.attention.blocks import Scores
from archspec.kernels.attention.mask import Rules
from archspec.kernels.gpu.attention_backward import gradients
from archspec.kernels.gpu.attention_mask import key_blocks, masked_block, masked_count, sight, visible
from archspec.kernels.gpu.attention_scores import (
    LN2,
    LOG2E,
    accumulate,
    in_one_type,
    load_rows,
    logits,
    padded,
    rows,
    scoring,
    store_rows,
)
from archspec.kernels.gpu.decode_attention import decode, latent_decode

__all__ = ["MAX_WIDTH", "backward", "decode", "forward", "latent_decode"]

MAX_WIDTH = 256  # of D and Dv: wider blocks do not fit


def forward(
    q: Tensor, k: Tensor, v: Tensor, scores: Scores, sinks: Tensor | None, rules: Rules
) -> tuple[Tensor, Tensor]:
    """Output (B, H, T, Dv) in the type of v, and the log-sum-exp of each query's visible scores and sink (B, H, T)."""
    (B, H, T, D), Dv = q.shape, v.shape[3]
    out = torch.empty(B, H, T, Dv, dtype=v.dtype, device=q.device)
    lse = torch.empty(B, H, T, dtype=torch.float32, device=q.device)
    if not lse.numel():
        return out, lse
    q, k, v = in_one_type(q, k, v)
    sizes = _sizes(T, max(padded(D), padded(Dv)), q.element_size())
    grid = (triton.cdiv(T, sizes["ROWS"]) * B * H,)
    sinks = None if sinks is None else sinks.contiguous()
    settings = (sight(rules), scoring(q, k, scores))
    _forward_kernel[grid](rows(q), rows(k), rows(v), rows(out), lse, sinks, *settings, **sizes)
    return out, lse


def backward(
    grads: list[Tensor | None],
    outputs: list[Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scores: Scores,
    sinks: Tensor | None,
    rules: Rules,
    learns: bool = True,
) -> list[Tensor]:
    """Gradients of q, k, v and of those of bias, alibi and sinks that are there.

    Without `learns` those of bias and alibi, which cost a pass of their own, are zeros.
    """
    return gradients(grads, outputs, q, k, v, scores, sinks, sight(rules), learns)


def _sizes(T: int, width: int, bytes_each: int) -> dict[str, int]:
    """Blocks whose accumulators fit the registers and whose two or three stages of k and v fit the shared memory."""
    if bytes_each == 4:
        ROWS, COLUMNS, warps, stages = 32, 16, 4, 2
    elif width <= 64:
        ROWS, COLUMNS, warps, stages = 128, 64, 4, 3
    elif width <= 128:
        ROWS, COLUMNS, warps, stages = 128, 64, 8, 3
    else:
        ROWS, COLUMNS, warps, stages = 128, 32, 8, 2
    few = padded(T)
    if few < ROWS:
        ROWS, warps = few, 4
    return {"ROWS": ROWS, "COLUMNS": COLUMNS, "num_warps": warps, "num_stages": stages}


@triton.jit
def _forward_kernel(q, k, v, out, lse_ptr, sinks_ptr, sight, scoring, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """One program: a block of ROWS queries of one head, for out (B, H, T, Dv) and lse (B, H, T).

    q (B, H, T, D), k (B, Hkv, S, D), v (B, Hkv, S, Dv), sinks (H,) or None. The last queries come first: under
    causality they have the most to do.
    """
    T = q.count
    S = k.count
    blocks = tl.cdiv(T, ROWS)
    pid = tl.program_id(0)
    b = pid // blocks // q.heads
    h = pid // blocks % q.heads
    start = (blocks - 1 - pid % blocks) * ROWS
    queries = start + tl.arange(0, ROWS)
    places = (queries + (S - T))[:, None]
    first, last = start + (S - T), tl.minimum(start + ROWS, T) - 1 + (S - T)

    q_block = load_rows(q, b, h, queries, True)
    sums = tl.zeros((ROWS, v.padded), tl.float32)
    highest = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    if sinks_ptr is not None:
        highest = total + tl.load(sinks_ptr + h).to(tl.float32) * LOG2E
        total += 1.0
    extra, begin, full_begin, full_end, end = key_blocks(sight, b, first, last, T, S, ROWS, COLUMNS)
    if sight.whole:
        for block in range(full_begin, full_end):
            keys = block * COLUMNS + tl.arange(0, COLUMNS)
            sums, highest, total = _take(
                q_block, k, v, keys, True, sums, highest, total, scoring, b, h, places, T, False
            )
    for n in range(masked_count(extra, begin, full_begin, full_end, end)):
        keys = masked_block(n, extra, begin, full_begin, full_end) * COLUMNS + tl.arange(0, COLUMNS)
        seen = visible(sight, b, places, keys[None, :], S)
        if sight.patchy:
            if tl.max(tl.max(seen.to(tl.int32), axis=1), axis=0) > 0:
                sums, highest, total = _take(
                    q_block, k, v, keys, seen, sums, highest, total, scoring, b, h, places, T, True
                )
        else:
            sums, highest, total = _take(
                q_block, k, v, keys, seen, sums, highest, total, scoring, b, h, places, T, True
            )
    total = tl.where(total == 0.0, 1.0, total)  # nothing seen: the output is 0, and highest is -inf
    store_rows(out, b, h, queries, sums / total[:, None])
    lse = (highest + tl.log2(total)) * LN2
    tl.store(lse_ptr + (b.to(tl.int64) * q.heads + h) * T + queries, lse, mask=queries < T)


@triton.jit
def _take(q_block, k, v, keys, seen, sums, highest, total, scoring, b, h, places, T, MASKED: tl.constexpr):
    """Takes one block of keys into the running sums; without MASKED all of its keys exist and are seen."""
    kv_head = h // (scoring.heads // k.heads)
    k_block = load_rows(k, b, kv_head, keys, MASKED)
    v_block = load_rows(v, b, kv_head, keys, MASKED)
    products = tl.dot(q_block, tl.trans(k_block), input_precision="ieee")
    scores = logits(products, scoring, b, h, places, keys[None, :], T, k.count)
    if MASKED:
        scores = tl.where(seen, scores, float("-inf"))
    return accumulate(scores, v_block, sums, highest, total)
