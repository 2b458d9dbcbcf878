"""Attention of few queries over a long cache: reading the keys is all the work, so the keys are split among programs.

Each program visits one stretch of the keys for all query heads that share them (Ainslie et al. 2023), or, with latents
(DeepSeek-V2, Liu et al. 2024), for up to 64 heads; so a key is read once. A second kernel weighs the stretches by their
log-sum-exp (Dao et al. 2023, "Flash-Decoding"). A query sees the keys up to its own position, the last T of S.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from archspec.kernels.attention.blocks import Scores
from archspec.kernels.gpu.attention_scores import (
    LOG2E,
    accumulate,
    in_one_type,
    load_rows,
    logits,
    padded,
    rows,
    scoring,
)

ENOUGH = 264  # programs that keep a GPU busy: two for each multiprocessor of an H100
SHORTEST = 128  # keys that are worth a program of their own
WIDE = 32  # columns of a block of the combining kernel


def decode(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_mask: Tensor | None,
    sinks: Tensor | None,
    window: int,
    scale: float,
    softcap: float,
) -> Tensor:
    """q (B, H, T, D) over k (B, Hkv, S, D), v (B, Hkv, S, Dv) -> (B, H, T, Dv) in the type of v.

    key_mask (B, S), sinks (H,), window (0 for none) and softcap (0.0 for none) as in `kernels.attention.softmax`.
    """
    (B, H, T, _), (shared, S, Dv) = q.shape, v.shape[1:]
    out = torch.empty(B, H, T, Dv, dtype=v.dtype, device=q.device)
    q, k, v = in_one_type(q, k, v)
    visited = S if window == 0 else min(S, window + T - 1)
    lines = H // shared * T
    sizes = _sizes(lines, max(padded(q.shape[3]), padded(Dv)), q.element_size())
    partial, lse, step = _stretches(out, visited, B * shared * triton.cdiv(lines, sizes["LINES"]), sizes["COLUMNS"])
    if out.numel():
        score = scoring(q, k, Scores(scale, softcap, None, None))
        mask = None if key_mask is None else key_mask.contiguous()
        sinks = None if sinks is None else sinks.contiguous()
        grid = (partial.shape[0] * B * shared * triton.cdiv(lines, sizes["LINES"]),)
        _decode_kernel[grid](
            rows(q),
            rows(k),
            rows(v),
            None,
            None,
            partial,
            lse,
            mask,
            sinks,
            score,
            B,
            window,
            S - visited,
            step,
            **sizes,
        )
        _combine(partial, lse, out)
    return out


def latent_decode(q_latent: Tensor, q_rope: Tensor, latent: Tensor, k_rope: Tensor, scale: float) -> Tensor:
    """Attention in the latent space, where keys are [latent, k_rope] and values are the latents.

    q_latent (B, H, T, R), q_rope (B, H, T, Dr), latent (B, 1, S, R), k_rope (B, 1, S, Dr) -> (B, H, T, R) in the type
    of the latents; the up-projections of keys and values belong to the caller.
    """
    (B, H, T, R), S = q_latent.shape, latent.shape[2]
    out = torch.empty(B, H, T, R, dtype=latent.dtype, device=q_latent.device)
    q, q_rope, latent, k_rope = in_one_type(q_latent, q_rope, latent, k_rope)
    sizes = _sizes(H * T, padded(R), q.element_size())
    programs = B * triton.cdiv(H * T, sizes["LINES"])
    partial, lse, step = _stretches(out, S, programs, sizes["COLUMNS"])
    if out.numel():
        score = scoring(q, latent, Scores(scale, 0.0, None, None))
        tensors = (rows(q), rows(latent), rows(latent), rows(q_rope), rows(k_rope), partial, lse, None, None)
        _decode_kernel[(partial.shape[0] * programs,)](*tensors, score, B, 0, 0, step, **sizes)
        _combine(partial, lse, out)
    return out


def _sizes(lines: int, width: int, bytes_each: int) -> dict[str, int]:
    """Query lines and keys of a block; few lines are the rule, and keys should come in large pieces."""
    LINES = min(padded(lines), 64 if bytes_each < 4 and width <= 512 else 16)
    COLUMNS = max(16, min(64, 2**15 // (width * bytes_each)))
    return {"LINES": LINES, "COLUMNS": COLUMNS, "num_warps": 8 if width * LINES > 2**13 else 4, "num_stages": 2}


def _stretches(out: Tensor, visited: int, programs: int, block: int) -> tuple[Tensor, Tensor, int]:
    """Room for each stretch's output (stretches, B, H, T, Dv) and lse, in float32, and the keys of a stretch."""
    wanted = max(1, min(triton.cdiv(ENOUGH, max(programs, 1)), visited // SHORTEST))
    step = triton.cdiv(triton.cdiv(visited, wanted), block) * block
    stretches = max(1, triton.cdiv(visited, max(step, 1)))
    partial = torch.empty(stretches, *out.shape, dtype=torch.float32, device=out.device)
    return partial, torch.empty(partial.shape[:-1], dtype=torch.float32, device=out.device), step


def _combine(partial: Tensor, lse: Tensor, out: Tensor) -> None:
    stretches, Dv = partial.shape[0], partial.shape[-1]
    queries = lse[0].numel()
    grid = (queries * triton.cdiv(Dv, WIDE),)
    _combine_kernel[grid](partial, lse, out, stretches, queries, Dv, WIDE=WIDE)


@triton.jit
def _decode_kernel(
    q,
    k,
    v,
    q_more,
    k_more,
    partial_ptr,
    lse_ptr,
    mask_ptr,
    sinks_ptr,
    scoring,
    BATCH,
    WINDOW,
    FIRST,
    STEP,
    LINES: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One program: LINES of the (head, query) pairs of one key head over one stretch of STEP keys.

    q (B, H, T, D), k (B, Hkv, S, D), v (B, Hkv, S, Dv). With q_more and k_more, further columns of queries and keys,
    the values are k and read once. partial (stretches, B, H, T, Dv) and lse (stretches, B, H, T, in base 2).
    The first stretch begins at key FIRST.
    """
    T = q.count
    S = k.count
    group = q.heads // k.heads
    line_blocks = tl.cdiv(group * T, LINES)
    pid = tl.program_id(0)
    line = pid % line_blocks * LINES + tl.arange(0, LINES)
    kv_head = pid // line_blocks % k.heads
    b = pid // line_blocks // k.heads % BATCH
    stretch = pid // line_blocks // k.heads // BATCH
    real = line < group * T
    h = kv_head * group + line // T
    query = line % T
    place = query + (S - T)

    q_block = _load_lines(q, b, h, query, real)
    if q_more is not None:
        q_more_block = _load_lines(q_more, b, h, query, real)
    sums = tl.zeros((LINES, v.padded), tl.float32)
    highest = tl.full((LINES,), float("-inf"), tl.float32)
    total = tl.zeros((LINES,), tl.float32)
    if sinks_ptr is not None:
        sink = tl.load(sinks_ptr + h, mask=real, other=float("-inf")).to(tl.float32) * LOG2E
        highest = tl.where(stretch == 0, sink, float("-inf"))
        total = tl.where(highest == float("-inf"), 0.0, 1.0)
    start = FIRST + stretch * STEP
    for first in range(start, tl.minimum(start + STEP, S), COLUMNS):
        keys = first + tl.arange(0, COLUMNS)
        k_block = load_rows(k, b, kv_head, keys, True)
        products = tl.dot(q_block, tl.trans(k_block), input_precision="ieee")
        if k_more is not None:
            more = load_rows(k_more, b, kv_head, keys, True)
            products = tl.dot(q_more_block, tl.trans(more), products, input_precision="ieee")
        scores = logits(products, scoring, b, kv_head, place[:, None], keys[None, :], T, S)
        d = place[:, None] - keys[None, :]
        seen = (d >= 0) & (keys < S)[None, :]
        if WINDOW > 0:
            seen = seen & (d < WINDOW)
        if mask_ptr is not None:
            known = tl.load(mask_ptr + b.to(tl.int64) * S + keys, mask=keys < S, other=0).to(tl.int1)
            seen = seen & known[None, :]
        if k_more is None:
            v_block = load_rows(v, b, kv_head, keys, True)
        else:
            v_block = k_block
        sums, highest, total = accumulate(tl.where(seen, scores, float("-inf")), v_block, sums, highest, total)
    columns = tl.arange(0, v.padded)
    here = ((stretch * BATCH + b).to(tl.int64) * q.heads + h) * T + query
    total = tl.where(total == 0.0, 1.0, total)  # nothing seen: the output is 0, and highest is -inf
    tl.store(lse_ptr + here, highest + tl.log2(total), mask=real)
    sums = sums / total[:, None]
    place_out = partial_ptr + here[:, None] * v.width + columns[None, :]
    tl.store(place_out, sums, mask=real[:, None] & (columns < v.width)[None, :])


@triton.jit
def _load_lines(x, b, h, query, real):
    """Rows `query` of heads h, one pair a line."""
    columns = tl.arange(0, x.padded)
    base = x.ptr + b.to(tl.int64) * x.batch + h.to(tl.int64) * x.head + query.to(tl.int64) * x.row
    mask = real[:, None] & (columns < x.width)[None, :]
    return tl.load(base[:, None] + columns.to(tl.int64)[None, :] * x.column, mask=mask, other=0.0)


@triton.jit
def _combine_kernel(partial_ptr, lse_ptr, out_ptr, STRETCHES, QUERIES, width, WIDE: tl.constexpr):
    """One program: WIDE columns of one query's output, from partial (STRETCHES, QUERIES, width) and its lse."""
    blocks = tl.cdiv(width, WIDE)
    query = (tl.program_id(0) // blocks).to(tl.int64)
    columns = tl.program_id(0) % blocks * WIDE + tl.arange(0, WIDE)
    level = tl.load(lse_ptr + query)
    line = query
    for _ in range(1, STRETCHES):
        line += QUERIES
        level = tl.maximum(level, tl.load(lse_ptr + line))
    level = tl.where(level == float("-inf"), 0.0, level)
    total = level * 0.0
    sums = tl.zeros((WIDE,), tl.float32)
    line = query
    for _ in range(STRETCHES):
        weight = tl.exp2(tl.load(lse_ptr + line) - level)
        total += weight
        sums += weight * tl.load(partial_ptr + line * width + columns, mask=columns < width, other=0.0)
        line += QUERIES
    out = sums / tl.where(total == 0.0, 1.0, total)
    tl.store(out_ptr + query * width + columns, out.to(out_ptr.dtype.element_ty), mask=columns < width)
