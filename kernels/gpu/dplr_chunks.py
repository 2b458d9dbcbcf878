"""Triton kernels of `memory.dplr` within chunks: decayed reads and writes, their scores, the triangular inverse.

Chunk m = (chunk * B + batch) * H + head, M of them. Decays are exponentials of sums of g alone, or of differences
within one token block, never above zero.
"""

import triton
import triton.language as tl

FAR = tl.constexpr(-110.0)  # exp of it is zero in float32, and sums over a tile still tell small decays apart
FLOOR = tl.constexpr(-1e4)  # the same for float64 sums over a chunk


@triton.jit
def _at_most_zero(x):
    return tl.where(x > 0, 0.0, x)  # keeps NaN


@triton.jit
def _not_below(x, floor):
    return tl.where(x < floor, floor, x)  # keeps NaN


@triton.jit
def _within_kernel(
    q_ptr,  # (B, T, G, K), as a_ptr and b_ptr
    a_ptr,
    b_ptr,
    beta_ptr,  # (B, T, H)
    decay_ptr,  # (B, T, H)
    near_ptr,  # (2, M, C, K) reads decayed back to the start of the chunk
    far_ptr,  # (M, C, K) writes decayed on to its end
    system_ptr,  # (M, C, C) float32, reads a times writes b
    late_ptr,  # (M, C, C) reads q times writes b
    total_ptr,  # (M, K) float32
    T,
    B,
    H,
    G,
    K,
    M,
    scale,
    C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    HAS_DECAY: tl.constexpr,
):
    """One chunk of the delta rule with one decay a token, or none: decayed reads and writes, and their scores."""
    m = tl.program_id(0).to(tl.int64)
    head, batch, chunk = m % H, (m // H) % B, m // (H * B)
    row = tl.arange(0, C)
    channel = tl.arange(0, BLOCK_K)
    t = chunk * C + row
    there = t < T
    token = batch * T + t
    mask = there[:, None] & (channel < K)[None, :]
    place = (token * G + head // (H // G))[:, None] * K + channel[None, :]
    a = tl.load(a_ptr + place, mask=mask, other=0.0).to(tl.float32)
    q = tl.load(q_ptr + place, mask=mask, other=0.0).to(tl.float32) * scale
    b = tl.load(b_ptr + place, mask=mask, other=0.0)
    a = a * tl.load(beta_ptr + token * H + head, mask=there, other=0.0).to(tl.float32)[:, None]
    kind: tl.constexpr = near_ptr.dtype.element_ty
    ab = tl.dot(a.to(kind), tl.trans(b.to(kind)), input_precision="ieee")
    qb = tl.dot(q.to(kind), tl.trans(b.to(kind)), input_precision="ieee")
    before = row[:, None] > row[None, :]
    until = row[:, None] >= row[None, :]
    if HAS_DECAY:
        g = tl.load(decay_ptr + token * H + head, mask=there, other=0.0).to(tl.float64)
        sums = tl.cumsum(_not_below(g, FLOOR), 0)
        total = tl.sum(_not_below(g, FLOOR), 0)
        pair = tl.exp(_at_most_zero(sums[:, None] - sums[None, :]).to(tl.float32))
        back = tl.exp(sums.to(tl.float32))[:, None]
        on = tl.exp(_at_most_zero(total - sums).to(tl.float32))[:, None]
        end = tl.exp(total.to(tl.float32))
    else:
        pair = tl.full((C, C), 1.0, tl.float32)
        back = tl.full((C, 1), 1.0, tl.float32)
        on = tl.full((C, 1), 1.0, tl.float32)
        end = tl.full((), 1.0, tl.float32)
    own = row[:, None] * K + channel[None, :]
    square = row[:, None] * C + row[None, :]
    inside = (row < C)[:, None] & (channel < K)[None, :]
    tl.store(near_ptr + m * C * K + own, (a * back).to(kind), mask=inside)
    tl.store(near_ptr + (M + m) * C * K + own, (q * back).to(kind), mask=inside)
    tl.store(far_ptr + m * C * K + own, (b.to(tl.float32) * on).to(kind), mask=inside)
    tl.store(system_ptr + m * C * C + square, tl.where(before, ab * pair, 0.0))
    tl.store(late_ptr + m * C * C + square, tl.where(until, qb * pair, 0.0).to(kind))
    tl.store(total_ptr + m * K + channel, tl.zeros((BLOCK_K,), tl.float32) + end, mask=channel < K)


@triton.jit
def _tile_products(read, column, kind: tl.constexpr):
    return tl.dot(read.to(kind), tl.trans(column.to(kind)), input_precision="ieee")


@triton.jit
def _within_channels_kernel(
    q_ptr,  # (B, T, G, K), as a_ptr, b_ptr and k_ptr
    a_ptr,
    b_ptr,
    k_ptr,
    beta_ptr,  # (B, T, H)
    decay_ptr,  # (B, T, H, K)
    near_ptr,  # (2, M, C, K) reads decayed back to the start of the chunk
    far_ptr,  # (M, m C, K) writes decayed on to its end
    system_ptr,  # (M, C, C) float32, reads a times writes b
    early_ptr,  # (M, C, C) reads a times writes k
    late_ptr,  # (M, C, m C) reads q times writes b and k
    total_ptr,  # (M, K) float32
    T,
    B,
    H,
    G,
    K,
    M,
    scale,
    C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    HAS_K: tl.constexpr,
):
    """One tile of 16 tokens of a chunk with one decay a channel: its reads with the writes of all tiles up to it."""
    m = tl.program_id(0).to(tl.int64)
    tile = tl.program_id(1)
    head, batch, chunk = m % H, (m // H) % B, m // (H * B)
    kind: tl.constexpr = near_ptr.dtype.element_ty
    writes: tl.constexpr = 2 if HAS_K else 1
    row = tl.arange(0, 16)
    channel = tl.arange(0, BLOCK_K)
    first = chunk * C + tile * 16  # token of the sequence
    t = first + row
    there = t < T
    mask = there[:, None] & (channel < K)[None, :]
    token = batch * T + t
    group = head // (H // G)
    place = (token * G + group)[:, None] * K + channel[None, :]
    a = tl.load(a_ptr + place, mask=mask, other=0.0).to(tl.float32)
    q = tl.load(q_ptr + place, mask=mask, other=0.0).to(tl.float32) * scale
    gates = decay_ptr + (token * H + head)[:, None] * K + channel[None, :]
    g = _not_below(tl.load(gates, mask=mask, other=0.0).to(tl.float32), FAR)
    inclusive = tl.cumsum(g, 0)
    if HAS_K:
        a = -a
        last = tl.load(gates - H * K, mask=mask & (row > 0)[:, None], other=0.0).to(tl.float32)
        since_a = tl.cumsum(_not_below(last, FAR), 0)
    else:
        a = a * tl.load(beta_ptr + token * H + head, mask=there, other=0.0).to(tl.float32)[:, None]
        since_a = inclusive

    ab = tl.zeros((16, 16), tl.float32)
    qb = tl.zeros((16, 16), tl.float32)
    ak = tl.zeros((16, 16), tl.float32)
    qk = tl.zeros((16, 16), tl.float32)
    for j in range(16):
        now = (batch * T + first + j) * G + group
        exists = (channel < K) & (first + j + 0 * channel < T)
        sum_j = tl.sum(tl.where(row[:, None] == j, inclusive, 0.0), 0)
        read_a = a * tl.exp(_at_most_zero(since_a - sum_j[None, :]))
        read_q = q * tl.exp(_at_most_zero(inclusive - sum_j[None, :]))
        b_j = tl.load(b_ptr + now * K + channel, mask=exists, other=0.0).to(tl.float32)
        here = (row[None, :] == j) & (row[:, None] >= j)
        ab = tl.where(here & (row[:, None] > j), tl.sum(read_a * b_j[None, :], 1)[:, None], ab)
        qb = tl.where(here, tl.sum(read_q * b_j[None, :], 1)[:, None], qb)
        if HAS_K:
            k_j = tl.load(k_ptr + now * K + channel, mask=exists, other=0.0).to(tl.float32)
            ak = tl.where(here & (row[:, None] > j), tl.sum(read_a * k_j[None, :], 1)[:, None], ak)
            qk = tl.where(here, tl.sum(read_q * k_j[None, :], 1)[:, None], qk)
    rows = tile * 16 + row
    square = rows[:, None] * C + rows[None, :]
    wide = rows[:, None] * (writes * C) + rows[None, :]
    tl.store(system_ptr + m * C * C + square, ab)
    tl.store(late_ptr + m * writes * C * C + wide, qb.to(kind))
    if HAS_K:
        tl.store(early_ptr + m * C * C + square, ak.to(kind))
        tl.store(late_ptr + m * writes * C * C + wide + C, qk.to(kind))

    # earlier tiles, nearest first: their writes decay to the start of this tile, where the reads decay back to
    a = a * tl.exp(since_a)
    q = q * tl.exp(inclusive)
    gap = tl.zeros((BLOCK_K,), tl.float32)
    for back in range(tile):
        other = tile - 1 - back
        t = chunk * C + other * 16 + row
        mask = (t < T)[:, None] & (channel < K)[None, :]
        token = batch * T + t
        gates = decay_ptr + (token * H + head)[:, None] * K + channel[None, :]
        g = _not_below(tl.load(gates, mask=mask, other=0.0).to(tl.float32), FAR)
        after = (t + 1 < T)[:, None] & (row < 15)[:, None] & (channel < K)[None, :]
        following = _not_below(tl.load(gates + H * K, mask=after, other=0.0).to(tl.float32), FAR)
        on = tl.exp(tl.cumsum(following, 0, reverse=True) + gap[None, :])
        place = (token * G + group)[:, None] * K + channel[None, :]
        b = tl.load(b_ptr + place, mask=mask, other=0.0).to(tl.float32) * on
        columns = other * 16 + row
        square = rows[:, None] * C + columns[None, :]
        wide = rows[:, None] * (writes * C) + columns[None, :]
        tl.store(system_ptr + m * C * C + square, _tile_products(a, b, kind))
        tl.store(late_ptr + m * writes * C * C + wide, _tile_products(q, b, kind).to(kind))
        if HAS_K:
            k = tl.load(k_ptr + place, mask=mask, other=0.0).to(tl.float32) * on
            tl.store(early_ptr + m * C * C + square, _tile_products(a, k, kind).to(kind))
            tl.store(late_ptr + m * writes * C * C + wide + C, _tile_products(q, k, kind).to(kind))
        gap += tl.sum(g, 0)
    own = rows[:, None] * K + channel[None, :]
    inside = (rows < C)[:, None] & (channel < K)[None, :]
    tl.store(near_ptr + m * C * K + own, (a * tl.exp(gap)[None, :]).to(kind), mask=inside)
    tl.store(near_ptr + (M + m) * C * K + own, (q * tl.exp(gap)[None, :]).to(kind), mask=inside)

    # later tiles: scores of zero, and the decay on to the end of the chunk
    rest = tl.zeros((BLOCK_K,), tl.float32)
    for other in range(tile + 1, C // 16):
        t = chunk * C + other * 16 + row
        mask = (t < T)[:, None] & (channel < K)[None, :]
        gates = decay_ptr + ((batch * T + t) * H + head)[:, None] * K + channel[None, :]
        rest += tl.sum(_not_below(tl.load(gates, mask=mask, other=0.0).to(tl.float32), FAR), 0)
        columns = other * 16 + row
        square = rows[:, None] * C + columns[None, :]
        wide = rows[:, None] * (writes * C) + columns[None, :]
        nothing = tl.zeros((16, 16), tl.float32)
        tl.store(system_ptr + m * C * C + square, nothing)
        tl.store(late_ptr + m * writes * C * C + wide, nothing.to(kind))
        if HAS_K:
            tl.store(early_ptr + m * C * C + square, nothing.to(kind))
            tl.store(late_ptr + m * writes * C * C + wide + C, nothing.to(kind))
    t = first + row
    mask = there[:, None] & (channel < K)[None, :]
    gates = decay_ptr + ((batch * T + t) * H + head)[:, None] * K + channel[None, :]
    after = (t + 1 < T)[:, None] & (row < 15)[:, None] & (channel < K)[None, :]
    following = _not_below(tl.load(gates + H * K, mask=after, other=0.0).to(tl.float32), FAR)
    on = tl.exp(tl.cumsum(following, 0, reverse=True) + rest[None, :])
    place = ((batch * T + t) * G + group)[:, None] * K + channel[None, :]
    b = tl.load(b_ptr + place, mask=mask, other=0.0).to(tl.float32) * on
    tl.store(far_ptr + m * writes * C * K + own, b.to(kind), mask=inside)
    if HAS_K:
        k = tl.load(k_ptr + place, mask=mask, other=0.0).to(tl.float32) * on
        tl.store(far_ptr + (m * writes + 1) * C * K + own, k.to(kind), mask=inside)
    if tile == 0:
        g = _not_below(tl.load(gates, mask=mask, other=0.0).to(tl.float32), FAR)
        tl.store(total_ptr + m * K + channel, tl.exp(rest + tl.sum(g, 0)), mask=channel < K)


@triton.jit
def _inverse_of(system_ptr, C: tl.constexpr, SIZE: tl.constexpr):
    """(I + x)^-1 of a strictly lower (SIZE, SIZE) corner x of a matrix with rows of C, row by row.

    Not by powers of x, which grow like binomial coefficients where keys repeat and cancel in the end.
    """
    at = tl.arange(0, SIZE)
    result = tl.where(at[:, None] == at[None, :], 1.0, 0.0)
    for i in range(1, SIZE):
        row = tl.load(system_ptr + i * C + at)
        result = tl.where((at == i)[:, None], result - tl.sum(row[:, None] * result, 0)[None, :], result)
    return result


@triton.jit
def _inverse_kernel(
    system_ptr,  # (M, C, C) float32, strictly lower
    inverse_ptr,  # (M, C, C)
    C: tl.constexpr,
    HALF: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """(I + system)^-1 of one chunk; of two halves and the square between them where C is 2 HALF."""
    kind: tl.constexpr = inverse_ptr.dtype.element_ty
    start = tl.program_id(0).to(tl.int64) * C * C
    at = tl.arange(0, HALF)
    square = at[:, None] * C + at[None, :]
    low: tl.constexpr = HALF * C
    first = _inverse_of(system_ptr + start, C, HALF)
    tl.store(inverse_ptr + start + square, first.to(kind))
    if C > HALF:
        between = tl.load(system_ptr + start + low + square)
        second = _inverse_of(system_ptr + start + low + HALF, C, HALF)
        between = tl.dot(second, tl.dot(between, first, input_precision=PRECISION), input_precision=PRECISION)
        tl.store(inverse_ptr + start + low + square, (-between).to(kind))
        tl.store(inverse_ptr + start + low + HALF + square, second.to(kind))
        tl.store(inverse_ptr + start + HALF + square, tl.zeros((HALF, HALF), kind))
