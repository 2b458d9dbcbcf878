"""The backward pass of attention on a GPU: no score is kept, all are computed again from the stored log-sum-exp.

With p = exp(score - lse), dp = dout . v and delta = sum_j p dp - dlse = out . dout - dlse, the gradient of a score is
ds = p (dp - delta). One kernel holds a block of keys and sums dk and dv over the queries that see it, in every query
head of its group; one holds a block of queries and sums dq. Both visit blocks in one order, so that results are the
same from run to run. The gradient of a bias has a kernel of its own, which sums over broadcast axes as it goes.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from archspec.kernels.gpu.attention_mask import Sight, key_blocks, masked_block, masked_count, query_blocks, visible
from archspec.kernels.gpu.attention_scores import (
    LOG2E,
    before_softcap,
    in_one_type,
    load_rows,
    logits,
    padded,
    rows,
    scoring,
    store_rows,
)

ENOUGH = 132  # programs that keep a GPU busy, the multiprocessors of an H100


def gradients(
    grads: list[Tensor | None],
    outputs: list[Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    alibi: Tensor | None,
    sinks: Tensor | None,
    seen: Sight,
    scale: float,
    softcap: float,
    learns: bool,
) -> list[Tensor]:
    """Gradients of q, k, v and of those of bias, alibi and sinks that are there; outputs are out and lse.

    Without `learns` those of bias and alibi are zeros.
    """
    out, lse = outputs
    dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    dslopes = torch.zeros(q.shape[:3] if alibi is not None else 0, dtype=torch.float32, device=q.device)
    dbias = None if bias is None else torch.zeros_like(bias)
    delta = torch.zeros_like(lse)
    if lse.numel():
        dout = torch.zeros_like(out) if grads[0] is None else grads[0]
        delta = _delta(out, dout, grads[1])
    if lse.numel() and k.shape[2]:
        score = scoring(q, k, bias, alibi, scale, softcap)
        arguments = (*(rows(x) for x in in_one_type(q, k, v)), rows(dout), lse, delta, seen, score)
        _query_gradients(arguments, dq, dslopes if learns and alibi is not None else None)
        dk, dv = _key_gradients(arguments, q, k, v)
        dbias = _bias_gradient(arguments, q, k, v, bias) if learns and bias is not None else dbias
    found = [dq, dk, dv]
    if dbias is not None:
        found.append(dbias)
    if alibi is not None:
        found.append(dslopes.sum((0, 2)))
    if sinks is not None:
        share = torch.exp(sinks.float()[:, None] - lse).masked_fill(lse == -torch.inf, 0.0)
        found.append(-(share * delta).sum((0, 2)))
    return found


def _delta(out: Tensor, dout: Tensor, dlse: Tensor | None) -> Tensor:
    """out . dout - dlse for each query, (B, H, T)."""
    B, H, T, _ = out.shape
    delta = torch.empty(B, H, T, dtype=torch.float32, device=out.device)
    size = min(64, padded(T))
    grid = (triton.cdiv(T, size) * B * H,)
    _delta_kernel[grid](rows(out), rows(dout), None if dlse is None else dlse.contiguous(), delta, ROWS=size)
    return delta


def _query_gradients(arguments: tuple[Any, ...], dq: Tensor, dslopes: Tensor | None) -> None:
    B, H, T, _ = dq.shape
    sizes = _sizes(arguments, T)
    grid = (triton.cdiv(T, sizes["ROWS"]) * B * H,)
    _queries_kernel[grid](*arguments, rows(dq), dslopes, **sizes)


def _key_gradients(arguments: tuple[Any, ...], q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """dk and dv. Where key heads and keys are too few for the GPU, the heads of a group are split and summed after."""
    (B, shared, S, _), group = k.shape, q.shape[1] // k.shape[1]
    sizes = _sizes(arguments, q.shape[2], S)
    programs = triton.cdiv(S, sizes["COLUMNS"]) * B * shared
    splits = next(n for n in range(1, group + 1) if group % n == 0 and (n * programs >= ENOUGH or n == group))
    dk, dv = (
        torch.empty(splits * B, *x.shape[1:], dtype=torch.float32 if splits > 1 else x.dtype, device=x.device)
        for x in (k, v)
    )
    _keys_kernel[(programs * splits,)](*arguments, rows(dk), rows(dv), B, splits, **sizes)
    if splits > 1:
        dk, dv = (x.view(splits, B, *x.shape[1:]).sum(0) for x in (dk, dv))
    return dk, dv


def _bias_gradient(arguments: tuple[Any, ...], q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """The gradient of a bias in its own broadcast shape; a block's part of an axis of size 1 is summed in the block."""
    B, H, T, S = *q.shape[:3], k.shape[2]
    shape = (1,) * (4 - bias.dim()) + tuple(bias.shape)
    sizes = _sizes(arguments, T, S)
    blocks = (triton.cdiv(T, sizes["ROWS"]), triton.cdiv(S, sizes["COLUMNS"]))
    one_row, one_column = shape[2] == 1 and T > 1, shape[3] == 1 and S > 1
    parts = (blocks[0] if one_row else T, blocks[1] if one_column else S)
    partial = torch.empty(*shape[:2], *parts, dtype=torch.float32, device=q.device)
    grid = (blocks[0] * blocks[1] * shape[0] * shape[1],)
    repeats = (B // shape[0], H // shape[1])  # of one bias among sequences and heads
    _bias_kernel[grid](*arguments, partial, *parts, shape[1], *repeats, ONE_ROW=one_row, ONE_COLUMN=one_column, **sizes)
    partial = partial.sum(2, keepdim=True) if one_row else partial
    partial = partial.sum(3, keepdim=True) if one_column else partial
    return partial.view(bias.shape)


def _sizes(arguments: tuple[Any, ...], T: int, S: int | None = None) -> dict[str, int]:
    """Blocks for queries (T alone) or for keys."""
    q, _, v = arguments[:3]
    width, single = max(q.padded.value, v.padded.value), q.ptr.element_size() == 4
    if single:
        large, small, warps, stages = (32, 16, 4, 1) if width <= 64 else (16, 16, 4, 1)
    elif width <= 128:
        large, small, warps, stages = 128, 64, 8, 2
    else:
        large, small, warps, stages = 64, 32, 8, 1
    ROWS, COLUMNS = (large, small) if S is None else (small, large)
    ROWS = min(ROWS, padded(T))
    COLUMNS = COLUMNS if S is None else min(COLUMNS, padded(S))
    return {"ROWS": ROWS, "COLUMNS": COLUMNS, "num_warps": warps, "num_stages": stages}


@triton.jit
def _delta_kernel(out, dout, dlse_ptr, delta_ptr, ROWS: tl.constexpr):
    """One program: out . dout - dlse for ROWS queries of one head; out, dout (B, H, T, Dv), dlse, delta (B, H, T)."""
    blocks = tl.cdiv(out.count, ROWS)
    head = tl.program_id(0) // blocks
    queries = tl.program_id(0) % blocks * ROWS + tl.arange(0, ROWS)
    b = head // out.heads
    h = head % out.heads
    left = load_rows(out, b, h, queries, True).to(tl.float32)
    right = load_rows(dout, b, h, queries, True).to(tl.float32)
    delta = tl.sum(left * right, axis=1)
    here = head.to(tl.int64) * out.count + queries
    if dlse_ptr is not None:
        delta -= tl.load(dlse_ptr + here, mask=queries < out.count, other=0.0).to(tl.float32)
    tl.store(delta_ptr + here, delta, mask=queries < out.count)


@triton.jit
def _queries_kernel(
    q, k, v, dout, lse_ptr, delta_ptr, sight, scoring, dq, dslopes_ptr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """One program: dq (B, H, T, D) of ROWS queries of one head, and their part of the gradient of its ALiBi slope.

    q (B, H, T, D), k (B, Hkv, S, D), v (B, Hkv, S, Dv), dout (B, H, T, Dv); lse, delta, dslopes (B, H, T).
    """
    T = q.count
    S = k.count
    blocks = tl.cdiv(T, ROWS)
    head = tl.program_id(0) // blocks
    b = head // q.heads
    h = head % q.heads
    kv_head = h // (q.heads // k.heads)
    start = (blocks - 1 - tl.program_id(0) % blocks) * ROWS
    queries = start + tl.arange(0, ROWS)
    places = (queries + (S - T))[:, None]
    first, last = start + (S - T), tl.minimum(start + ROWS, T) - 1 + (S - T)

    q_block = load_rows(q, b, h, queries, True)
    dout_block = load_rows(dout, b, h, queries, True).to(q_block.dtype)
    lse, delta = _of_queries(lse_ptr, delta_ptr, head, queries, T)
    dq_block = tl.zeros((ROWS, q.padded), tl.float32)
    dslope = tl.zeros((ROWS,), tl.float32)
    extra, begin, full_begin, full_end, end = key_blocks(sight, b, first, last, T, S, ROWS, COLUMNS)
    if sight.whole:
        for block in range(full_begin, full_end):
            keys = block * COLUMNS + tl.arange(0, COLUMNS)
            dq_block, dslope = _add_keys(
                q_block, dout_block, k, v, lse, delta, dq_block, dslope, scoring, b, h, kv_head, places, keys, True, T,
                dslopes_ptr is not None, False,
            )  # fmt: skip
    for n in range(masked_count(extra, begin, full_begin, full_end, end)):
        keys = masked_block(n, extra, begin, full_begin, full_end) * COLUMNS + tl.arange(0, COLUMNS)
        seen = visible(sight, b, places, keys[None, :], S)
        if sight.patchy:
            if tl.max(tl.max(seen.to(tl.int32), axis=1), axis=0) > 0:
                dq_block, dslope = _add_keys(
                    q_block, dout_block, k, v, lse, delta, dq_block, dslope, scoring, b, h, kv_head, places, keys, seen,
                    T, dslopes_ptr is not None, True,
                )  # fmt: skip
        else:
            dq_block, dslope = _add_keys(
                q_block, dout_block, k, v, lse, delta, dq_block, dslope, scoring, b, h, kv_head, places, keys, seen, T,
                dslopes_ptr is not None, True,
            )  # fmt: skip
    store_rows(dq, b, h, queries, dq_block * scoring.scale)
    if dslopes_ptr is not None:
        tl.store(dslopes_ptr + head.to(tl.int64) * T + queries, dslope, mask=queries < T)


@triton.jit
def _add_keys(
    q_block,
    dout_block,
    k,
    v,
    lse,
    delta,
    dq_block,
    dslope,
    scoring,
    b,
    h,
    kv_head,
    places,
    keys,
    seen,
    T,
    SLOPES: tl.constexpr,
    MASKED: tl.constexpr,
):
    """Adds the part of a block of keys to dq / scale and to the gradient of the slope."""
    k_block = load_rows(k, b, kv_head, keys, MASKED)
    v_block = load_rows(v, b, kv_head, keys, MASKED)
    products = tl.dot(q_block, tl.trans(k_block), input_precision="ieee")
    scores = logits(products, scoring, b, h, places, keys[None, :], T, k.count)
    if MASKED:
        scores = tl.where(seen, scores, float("-inf"))
    dweights = tl.dot(dout_block, tl.trans(v_block), input_precision="ieee")
    dscores = tl.exp2(scores - lse[:, None]) * (dweights - delta[:, None])
    if SLOPES:
        dslope -= tl.sum(dscores * tl.abs(places - keys[None, :]).to(tl.float32), axis=1)
    dproducts = before_softcap(dscores, products, scoring).to(k_block.dtype)
    return tl.dot(dproducts, k_block, dq_block, input_precision="ieee"), dslope


@triton.jit
def _keys_kernel(
    q,
    k,
    v,
    dout,
    lse_ptr,
    delta_ptr,
    sight,
    scoring,
    dk,
    dv,
    BATCH,
    SPLITS,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One program: dk and dv of COLUMNS keys of one key head, from 1 of SPLITS shares of the query heads of its group.

    q (B, H, T, D), k (B, Hkv, S, D), v (B, Hkv, S, Dv), dout (B, H, T, Dv), lse, delta (B, H, T);
    dk, dv (SPLITS * B, Hkv, S, D or Dv). The first keys come first: under causality they have the most to do.
    """
    T = q.count
    S = k.count
    blocks = tl.cdiv(S, COLUMNS)
    start = tl.program_id(0) % blocks * COLUMNS
    keys = start + tl.arange(0, COLUMNS)
    kv_head = tl.program_id(0) // blocks % k.heads
    share = tl.program_id(0) // blocks // k.heads
    b = share % BATCH
    heads = q.heads // k.heads // SPLITS
    first_head = (kv_head * SPLITS + share // BATCH) * heads

    k_block = load_rows(k, b, kv_head, keys, True)
    v_block = load_rows(v, b, kv_head, keys, True)
    dk_block = tl.zeros((COLUMNS, k.padded), tl.float32)
    dv_block = tl.zeros((COLUMNS, v.padded), tl.float32)
    last = tl.minimum(start + COLUMNS, S) - 1
    extra, begin, full_begin, full_end, end = query_blocks(sight, b, start, last, T, S, ROWS, COLUMNS)
    if sight.whole:
        count = full_end - full_begin
        for n in range(count * heads):
            queries = (full_begin + n % count) * ROWS + tl.arange(0, ROWS)
            dk_block, dv_block = _add_queries(
                k_block, v_block, q, dout, lse_ptr, delta_ptr, dk_block, dv_block, scoring, b, first_head + n // count,
                queries, keys, True, S, False,
            )  # fmt: skip
    masked = masked_count(extra, begin, full_begin, full_end, end)
    for n in range(masked * heads):
        queries = masked_block(n % masked, extra, begin, full_begin, full_end) * ROWS + tl.arange(0, ROWS)
        seen = visible(sight, b, (queries + (S - T))[None, :], keys[:, None], S)
        if sight.patchy:
            if tl.max(tl.max(seen.to(tl.int32), axis=1), axis=0) > 0:
                dk_block, dv_block = _add_queries(
                    k_block, v_block, q, dout, lse_ptr, delta_ptr, dk_block, dv_block, scoring, b,
                    first_head + n // masked, queries, keys, seen, S, True,
                )  # fmt: skip
        else:
            dk_block, dv_block = _add_queries(
                k_block, v_block, q, dout, lse_ptr, delta_ptr, dk_block, dv_block, scoring, b,
                first_head + n // masked, queries, keys, seen, S, True,
            )  # fmt: skip
    store_rows(dk, share, kv_head, keys, dk_block * scoring.scale)
    store_rows(dv, share, kv_head, keys, dv_block)


@triton.jit
def _add_queries(
    k_block,
    v_block,
    q,
    dout,
    lse_ptr,
    delta_ptr,
    dk_block,
    dv_block,
    scoring,
    b,
    h,
    queries,
    keys,
    seen,
    S,
    MASKED: tl.constexpr,
):
    """Adds the part of a block of queries to dk / scale and dv; scores are (keys, queries) here."""
    q_block = load_rows(q, b, h, queries, MASKED)
    dout_block = load_rows(dout, b, h, queries, MASKED).to(q_block.dtype)
    lse, delta = _of_queries(lse_ptr, delta_ptr, b * q.heads + h, queries, q.count)
    places = queries + (S - q.count)
    products = tl.dot(k_block, tl.trans(q_block), input_precision="ieee")
    scores = logits(products, scoring, b, h, places[None, :], keys[:, None], q.count, S)
    if MASKED:
        scores = tl.where(seen, scores, float("-inf"))
    weights = tl.exp2(scores - lse[None, :])
    dv_block = tl.dot(weights.to(q_block.dtype), dout_block, dv_block, input_precision="ieee")
    dweights = tl.dot(v_block, tl.trans(dout_block), input_precision="ieee")
    dscores = weights * (dweights - delta[None, :])
    dproducts = before_softcap(dscores, products, scoring).to(q_block.dtype)
    return tl.dot(dproducts, q_block, dk_block, input_precision="ieee"), dv_block


@triton.jit
def _of_queries(lse_ptr, delta_ptr, head, queries, T):
    """lse in base 2 and delta; +inf, which makes every weight 0, for queries that see nothing or are not there."""
    here = head.to(tl.int64) * T + queries
    lse = tl.load(lse_ptr + here, mask=queries < T, other=float("inf"))
    lse = tl.where(lse == float("-inf"), float("inf"), lse)
    return lse * LOG2E, tl.load(delta_ptr + here, mask=queries < T, other=0.0)


@triton.jit
def _bias_kernel(
    q,
    k,
    v,
    dout,
    lse_ptr,
    delta_ptr,
    sight,
    scoring,
    dbias_ptr,
    PARTS_T,
    PARTS_S,
    BIAS_HEADS,
    SEQUENCES,
    HEADS,
    ONE_ROW: tl.constexpr,
    ONE_COLUMN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One program: a block of dbias (Bb, Hb, PARTS_T, PARTS_S) summed over the SEQUENCES and HEADS that share it.

    ONE_ROW, ONE_COLUMN: the bias has one entry for all queries or keys, and a block gives its sum over them.
    """
    T = q.count
    S = k.count
    column_blocks = tl.cdiv(S, COLUMNS)
    row_blocks = tl.cdiv(T, ROWS)
    column = tl.program_id(0) % column_blocks
    row = tl.program_id(0) // column_blocks % row_blocks
    own = tl.program_id(0) // column_blocks // row_blocks  # which of the Bb * Hb
    queries = row * ROWS + tl.arange(0, ROWS)
    keys = column * COLUMNS + tl.arange(0, COLUMNS)
    places = (queries + (S - T))[:, None]
    dbias = tl.zeros((ROWS, COLUMNS), tl.float32)
    for n in range(SEQUENCES * HEADS):
        b = own // BIAS_HEADS * SEQUENCES + n // HEADS
        h = own % BIAS_HEADS * HEADS + n % HEADS
        seen = visible(sight, b, places, keys[None, :], S)
        if tl.max(tl.max(seen.to(tl.int32), axis=1), axis=0) > 0:
            q_block = load_rows(q, b, h, queries, True)
            dout_block = load_rows(dout, b, h, queries, True).to(q_block.dtype)
            k_block = load_rows(k, b, h // (q.heads // k.heads), keys, True)
            v_block = load_rows(v, b, h // (q.heads // k.heads), keys, True)
            lse, delta = _of_queries(lse_ptr, delta_ptr, b * q.heads + h, queries, T)
            products = tl.dot(q_block, tl.trans(k_block), input_precision="ieee")
            scores = logits(products, scoring, b, h, places, keys[None, :], T, S)
            dweights = tl.dot(dout_block, tl.trans(v_block), input_precision="ieee")
            weights = tl.exp2(tl.where(seen, scores, float("-inf")) - lse[:, None])
            dbias += weights * (dweights - delta[:, None])
    base = dbias_ptr + own.to(tl.int64) * PARTS_T * PARTS_S
    if ONE_ROW and ONE_COLUMN:
        tl.store(base + row.to(tl.int64) * PARTS_S + column, tl.sum(tl.sum(dbias, axis=1), axis=0))
    elif ONE_ROW:
        tl.store(base + row.to(tl.int64) * PARTS_S + keys, tl.sum(dbias, axis=0), mask=keys < S)
    elif ONE_COLUMN:
        tl.store(base + queries.to(tl.int64) * PARTS_S + column, tl.sum(dbias, axis=1), mask=queries < T)
    else:
        here = base + queries.to(tl.int64)[:, None] * PARTS_S + keys[None, :]
        tl.store(here, dbias, mask=(queries < T)[:, None] & (keys < S)[None, :])
