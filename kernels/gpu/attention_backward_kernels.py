"""The Triton kernels of the backward pass of attention; what they compute is said in `attention_backward`."""

import triton
import triton.language as tl

from archspec.kernels.gpu.attention_mask import key_blocks, masked_block, masked_count, query_blocks, visible
from archspec.kernels.gpu.attention_scores import (
    LOG2E,
    before_softcap,
    load_rows,
    logits,
    store_rows,
)


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
