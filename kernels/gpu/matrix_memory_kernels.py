"""The three Triton kernels of the matrix memory, each for the forward and the backward pass.

States through the chunks, outputs (backwards, the gradients of values), and gradients of queries, keys and decays; see
`archspec.kernels.gpu.matrix_memory`, which launches them.
"""

import triton
import triton.language as tl

from archspec.kernels.gpu.matrix_memory_tiles import (
    NONE,
    SCALAR,
    VECTOR,
    _at_most_zero,
    _decays_between,
    _halves,
    _program,
    _same_block,
    _scalar_sums,
    _state_tile,
    _sums_at,
    _tile,
)


@triton.jit
def _states_kernel(
    x_ptr,  # (B, T, G, K) keys, or queries backwards
    v_ptr,  # (B, T, H, V) values, or gradients of outputs
    sums_ptr,  # log decays summed up, (B, chunks, L, H) or (B, chunks, L, H, K)
    fine_ptr,  # the rest of the sums
    first_ptr,  # (B, H, K, V)
    states_ptr,  # (chunks, B, H / RS, K, RS, V)
    last_ptr,  # (B, H, K, V)
    scale,
    B,
    T,
    G,
    H,
    K,
    V,
    L,
    chunks,
    sums_batch,
    sums_chunk,
    sums_row,
    sums_head,
    RS,
    TILE: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
    DECAY: tl.constexpr,
    EXCLUSIVE: tl.constexpr,
    BACK: tl.constexpr,
    HAS_FIRST: tl.constexpr,
    TYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One block of the state of one head through all chunks: stores the state at each, then the one after the last."""
    k_block, v_block, sequence = _program(tl.cdiv(K, BLOCK_K), tl.cdiv(V, BLOCK_V))
    batch, head = sequence // H, sequence % H
    rows = tl.arange(0, TILE)
    k_columns = k_block * BLOCK_K + tl.arange(0, BLOCK_K)
    v_columns = v_block * BLOCK_V + tl.arange(0, BLOCK_V)
    wide = sequence.to(tl.int64)
    x_ptr += batch.to(tl.int64) * T * G * K + head // (H // G) * K
    v_ptr += batch.to(tl.int64) * T * H * V + head * V
    sums_ptr += batch.to(tl.int64) * sums_batch + head * sums_head
    fine_ptr += batch.to(tl.int64) * sums_batch + head * sums_head
    given = wide * K * V + k_columns.to(tl.int64)[:, None] * V + v_columns[None, :]
    held = batch.to(tl.int64) * H * K * V + (head // RS).to(tl.int64) * K * RS * V + head % RS * V
    held += k_columns.to(tl.int64)[:, None] * RS * V + v_columns[None, :]
    inside = (k_columns < K)[:, None] & (v_columns < V)[None, :]
    state = tl.zeros((BLOCK_K, BLOCK_V), tl.float32)
    if HAS_FIRST:
        state += tl.load(first_ptr + given, mask=inside, other=0.0).to(tl.float32)
    for i in range(chunks):
        chunk = chunks - 1 - i if BACK else i
        tl.store(states_ptr + chunk.to(tl.int64) * B * H * K * V + held, state, mask=inside)
        tokens = chunk * L + rows
        ok = (rows < L) & (tokens < T)
        x = _tile(x_ptr, tokens, ok, k_columns, K, G * K, TYPE)
        v = _tile(v_ptr, tokens, ok, v_columns, V, H * V, TYPE)
        end = tl.minimum(L, T - chunk * L) - 1
        used = rows - EXCLUSIVE if BACK else rows
        if DECAY == SCALAR:
            at = sums_ptr + chunk.to(tl.int64) * sums_chunk
            fine_at = fine_ptr + chunk.to(tl.int64) * sums_chunk
            last_coarse, last_fine = tl.load(at + end * sums_row), tl.load(fine_at + end * sums_row)
            coarse, fine = _scalar_sums(at, fine_at, used, (used >= 0) & ok, sums_row)
            exponent = coarse + fine if BACK else (last_coarse - coarse) + (last_fine - fine)
            v = (v * tl.exp(_at_most_zero(exponent))[:, None]).to(TYPE)
            state *= tl.exp(last_coarse + last_fine)
        if DECAY == VECTOR:
            at = sums_ptr + chunk.to(tl.int64) * sums_chunk
            last = tl.load(at + end * sums_row + k_columns, mask=k_columns < K, other=0.0)
            own = _sums_at(at, used, (used >= 0) & ok, k_columns, K, sums_row)
            exponent = own if BACK else last[None, :] - own
            x = (x * tl.exp(_at_most_zero(exponent))).to(TYPE)
            state *= tl.exp(last)[:, None]
        state += tl.dot(tl.trans(x), v, input_precision=PRECISION) * scale
    tl.store(last_ptr + given, state, mask=inside)


@triton.jit
def _outputs_kernel(
    q_ptr,  # (B, T, G, K)
    k_ptr,  # (B, T, G, K)
    v_ptr,  # (B, T, H, V) values, or gradients of outputs
    states_ptr,  # (chunks, B, H / RS, K, RS, V) states that enter, or gradients of those that leave
    sums_ptr,
    fine_ptr,
    y_ptr,  # (B, T, H, V) outputs, or gradients of values
    scale,
    B,
    T,
    G,
    H,
    K,
    V,
    L,
    sums_batch,
    sums_chunk,
    sums_row,
    sums_head,
    RS,
    TILE: tl.constexpr,
    LEVELS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
    DECAY: tl.constexpr,
    EXCLUSIVE: tl.constexpr,
    BACK: tl.constexpr,
    TYPE: tl.constexpr,
    STATE_TYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One chunk, head and block of value columns: what the tokens read from the state and from one another."""
    chunk, v_block, sequence = _program(tl.cdiv(T, L), tl.cdiv(V, BLOCK_V))
    batch, head = sequence // H, sequence % H
    rows = tl.arange(0, TILE)
    tokens = chunk * L + rows
    ok = (rows < L) & (tokens < T)
    v_columns = v_block * BLOCK_V + tl.arange(0, BLOCK_V)
    key_offset = batch.to(tl.int64) * T * G * K + head // (H // G) * K
    value_offset = batch.to(tl.int64) * T * H * V + head * V
    states_ptr += (chunk.to(tl.int64) * B + batch) * H * K * V + (head // RS).to(tl.int64) * K * RS * V + head % RS * V
    sums_offset = batch.to(tl.int64) * sums_batch + chunk.to(tl.int64) * sums_chunk + head * sums_head
    sums_ptr += sums_offset
    fine_ptr += sums_offset
    end = tl.minimum(L, T - chunk * L) - 1
    past = rows - EXCLUSIVE
    scores = tl.zeros((TILE, TILE), tl.float32)
    out = tl.zeros((TILE, BLOCK_V), tl.float32)
    for start in range(0, K, BLOCK_K):
        columns = start + tl.arange(0, BLOCK_K)
        q = _tile(q_ptr + key_offset, tokens, ok, columns, K, G * K, TYPE)
        k = _tile(k_ptr + key_offset, tokens, ok, columns, K, G * K, TYPE)
        state = _state_tile(states_ptr, columns, v_columns, K, V, RS * V)
        side = k if BACK else q
        if DECAY == VECTOR:
            own = _sums_at(sums_ptr, rows, ok, columns, K, sums_row)
            read = _sums_at(sums_ptr, past, (past >= 0) & ok, columns, K, sums_row)
            if not EXCLUSIVE:
                same = tl.sum(q.to(tl.float32) * k.to(tl.float32), 1)
                scores += tl.where(rows[:, None] == rows[None, :], same[:, None], 0.0)
            for level in range(LEVELS):
                late, early, _, _ = _halves(
                    q, k, own, read, sums_ptr, rows, 1 << level, L, columns, K, sums_row, EXCLUSIVE
                )
                both = tl.dot(late.to(TYPE), tl.trans(early.to(TYPE)), input_precision=PRECISION)
                scores += _same_block(both, rows, 1 << level)
            last = tl.load(sums_ptr + end * sums_row + columns, mask=columns < K, other=0.0)
            exponent = last[None, :] - own if BACK else read
            side = (side * tl.exp(_at_most_zero(exponent))).to(TYPE)
        else:
            scores += tl.dot(q, tl.trans(k), input_precision=PRECISION)
        out += tl.dot(side.to(STATE_TYPE), state.to(STATE_TYPE), input_precision=PRECISION)
    if DECAY == SCALAR:
        scores *= _decays_between(sums_ptr, fine_ptr, rows, L, sums_row, TILE, EXCLUSIVE)
        if BACK:
            coarse, fine = _scalar_sums(sums_ptr, fine_ptr, rows, ok, sums_row)
            exponent = (tl.load(sums_ptr + end * sums_row) - coarse) + (tl.load(fine_ptr + end * sums_row) - fine)
        else:
            coarse, fine = _scalar_sums(sums_ptr, fine_ptr, past, (past >= 0) & ok, sums_row)
            exponent = coarse + fine
        out *= tl.exp(_at_most_zero(exponent))[:, None]
    elif DECAY == NONE:
        scores = tl.where(past[:, None] >= rows[None, :], scores, 0.0)
    v = _tile(v_ptr + value_offset, tokens, ok, v_columns, V, H * V, TYPE)
    weights = (tl.trans(scores) if BACK else scores).to(TYPE)
    if BACK:
        out += tl.dot(weights, v, input_precision=PRECISION) * scale
    else:
        out = (out + tl.dot(weights, v, input_precision=PRECISION)) * scale
    place = value_offset + tokens.to(tl.int64)[:, None] * H * V + v_columns[None, :]
    tl.store(y_ptr + place, out, mask=ok[:, None] & (v_columns < V)[None, :])


@triton.jit
def _keys_kernel(
    q_ptr,  # (B, T, G, K)
    k_ptr,  # (B, T, G, K)
    v_ptr,  # (B, T, H, V)
    dy_ptr,  # (B, T, H, V)
    states_ptr,  # (chunks, B, H / RS, K, RS, V) states that enter
    dstates_ptr,  # the same, gradients of the states that leave
    sums_ptr,
    fine_ptr,
    dq_ptr,  # (parts, B, T, G, K)
    dk_ptr,  # (parts, B, T, G, K)
    dg_ptr,  # (blocks of K, B, T, H) or (B, T, H, K)
    scale,
    B,
    T,
    G,
    H,
    K,
    V,
    L,
    sums_batch,
    sums_chunk,
    sums_row,
    sums_head,
    RS,
    parts,
    PART: tl.constexpr,
    TILE: tl.constexpr,
    LEVELS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
    DECAY: tl.constexpr,
    EXCLUSIVE: tl.constexpr,
    LEARNED: tl.constexpr,
    TYPE: tl.constexpr,
    STATE_TYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One chunk, block of key columns and PART heads of a group: gradients of queries and keys, summed over those
    heads, and of the log decays of each head."""
    chunk, k_block, rest = _program(tl.cdiv(T, L), tl.cdiv(K, BLOCK_K))
    part = rest % parts
    batch, group = rest // parts // G, rest // parts % G
    shared = H // G
    rows = tl.arange(0, TILE)
    tokens = chunk * L + rows
    ok = (rows < L) & (tokens < T)
    columns = k_block * BLOCK_K + tl.arange(0, BLOCK_K)
    key_offset = batch.to(tl.int64) * T * G * K + group * K
    end = tl.minimum(L, T - chunk * L) - 1
    past = rows - EXCLUSIVE
    equal = rows[:, None] == rows[None, :]
    q = _tile(q_ptr + key_offset, tokens, ok, columns, K, G * K, TYPE)
    k = _tile(k_ptr + key_offset, tokens, ok, columns, K, G * K, TYPE)
    dq = tl.zeros((TILE, BLOCK_K), tl.float32)
    dk = tl.zeros((TILE, BLOCK_K), tl.float32)
    for member in range(part * PART, tl.minimum(part * PART + PART, shared)):
        head = group * shared + member
        value_offset = batch.to(tl.int64) * T * H * V + head * V
        state_offset = (chunk.to(tl.int64) * B + batch) * H * K * V
        state_offset += (head // RS).to(tl.int64) * K * RS * V + head % RS * V
        sums_offset = batch.to(tl.int64) * sums_batch + chunk.to(tl.int64) * sums_chunk + head * sums_head
        dscores = tl.zeros((TILE, TILE), tl.float32)
        dq_before = tl.zeros((TILE, BLOCK_K), tl.float32)
        dk_after = tl.zeros((TILE, BLOCK_K), tl.float32)
        common = tl.zeros((BLOCK_K,), tl.float32)
        for start in range(0, V, BLOCK_V):
            v_columns = start + tl.arange(0, BLOCK_V)
            v = _tile(v_ptr + value_offset, tokens, ok, v_columns, V, H * V, TYPE)
            dy = _tile(dy_ptr + value_offset, tokens, ok, v_columns, V, H * V, TYPE)
            state = _state_tile(states_ptr + state_offset, columns, v_columns, K, V, RS * V)
            dstate = _state_tile(dstates_ptr + state_offset, columns, v_columns, K, V, RS * V)
            dscores += tl.dot(dy, tl.trans(v), input_precision=PRECISION)
            dq_before += tl.dot(dy.to(STATE_TYPE), tl.trans(state.to(STATE_TYPE)), input_precision=PRECISION)
            dk_after += tl.dot(v.to(STATE_TYPE), tl.trans(dstate.to(STATE_TYPE)), input_precision=PRECISION)
            common += tl.sum(state * dstate, 1)
        dscores = tl.where(past[:, None] >= rows[None, :], dscores, 0.0) * scale
        dq_before *= scale
        if DECAY == NONE:
            dscores = dscores.to(TYPE)
            dq += dq_before + tl.dot(dscores, k, input_precision=PRECISION)
            dk += dk_after + tl.dot(tl.trans(dscores), q, input_precision=PRECISION)
        elif DECAY == SCALAR:
            at, fine_at = sums_ptr + sums_offset, fine_ptr + sums_offset
            dscores *= _decays_between(at, fine_at, rows, L, sums_row, TILE, EXCLUSIVE)
            last_coarse, last_fine = tl.load(at + end * sums_row), tl.load(fine_at + end * sums_row)
            coarse, fine = _scalar_sums(at, fine_at, rows, ok, sums_row)
            read_coarse, read_fine = _scalar_sums(at, fine_at, past, (past >= 0) & ok, sums_row)
            write = tl.exp(_at_most_zero((last_coarse - coarse) + (last_fine - fine)))
            dq_before *= tl.exp(read_coarse + read_fine)[:, None]
            dk_after *= write[:, None]
            own = tl.sum(tl.where(equal, dscores, 0.0), 1)[:, None]
            others = tl.where(equal, 0.0, dscores).to(TYPE)
            dq_head = dq_before + tl.dot(others, k, input_precision=PRECISION)
            dk_head = dk_after + tl.dot(tl.trans(others), q, input_precision=PRECISION)
            dq += dq_head + own * k
            dk += dk_head + own * q
            if LEARNED:
                read_share = tl.sum(dq_head * q, 1)
                share = read_share - tl.sum(dk_head * k, 1)
                total = tl.sum(common) * tl.exp(last_coarse + last_fine) + tl.sum(tl.sum(dk_after * k, 1), 0)
                dg = tl.sum(tl.where(rows[None, :] >= rows[:, None], share[None, :], 0.0), 1) + total
                dg -= EXCLUSIVE * read_share
                place = (k_block.to(tl.int64) * B + batch) * T * H + tokens.to(tl.int64) * H + head
                tl.store(dg_ptr + place, dg, mask=ok)
        else:
            at = sums_ptr + sums_offset
            last = tl.load(at + end * sums_row + columns, mask=columns < K, other=0.0)
            own_sums = _sums_at(at, rows, ok, columns, K, sums_row)
            read = _sums_at(at, past, (past >= 0) & ok, columns, K, sums_row)
            dq_head = dq_before * tl.exp(read)
            dk_head = dk_after * tl.exp(_at_most_zero(last[None, :] - own_sums))
            total = common * tl.exp(last) + tl.sum(dk_head * k, 0)
            for level in range(LEVELS):
                late, early, late_decay, early_decay = _halves(
                    q, k, own_sums, read, at, rows, 1 << level, L, columns, K, sums_row, EXCLUSIVE
                )
                meet = _same_block(dscores, rows, 1 << level).to(TYPE)
                dq_head += tl.dot(meet, early.to(TYPE), input_precision=PRECISION) * late_decay
                dk_head += tl.dot(tl.trans(meet), late.to(TYPE), input_precision=PRECISION) * early_decay
            own = tl.sum(tl.where(equal, dscores, 0.0), 1)[:, None]
            dq += dq_head + own * k
            dk += dk_head + own * q
            if LEARNED:
                read_share = dq_head * q
                dg = tl.cumsum(read_share - dk_head * k, 0, reverse=True) + total[None, :]
                dg -= EXCLUSIVE * read_share
                place = ((batch.to(tl.int64) * T + tokens) * H + head)[:, None] * K + columns[None, :]
                tl.store(dg_ptr + place, dg, mask=ok[:, None] & (columns < K)[None, :])
    place = part.to(tl.int64) * B * T * G * K + key_offset + tokens.to(tl.int64)[:, None] * G * K + columns[None, :]
    mask = ok[:, None] & (columns < K)[None, :]
    tl.store(dq_ptr + place, dq, mask=mask)
    tl.store(dk_ptr + place, dk, mask=mask)
