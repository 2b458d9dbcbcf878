"""Triton kernels of kernels/dplr.py, where the equations are: within chunks, the inverse, the passes over states.

The forward pass runs here alone: products within chunks and decays (one program a chunk, or a tile of 16 tokens where
each channel decays by itself), the inverse of the triangular systems, then one pass over the chunks for each head and
block of value channels, which carries the state in registers and writes the outputs. Of the backward pass only that
over the chunks in reverse is a kernel; the products within chunks are batched products of PyTorch in float32. Nothing
here has been measured on a GPU.

Layouts: chunk m = (chunk * B + batch) * H + head, M of them, J = B H of them at one time; J also counts as (batch,
head) of the states. Decays are exponentials of sums of g alone, or of differences within one token block, never
above zero.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

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


@triton.jit
def _forward_kernel(
    near_ptr,  # (2, M, C, K)
    far_ptr,  # (M, m C, K)
    inverse_ptr,  # (M, C, C)
    early_ptr,  # (M, C, C)
    late_ptr,  # (M, C, m C)
    total_ptr,  # (M, K) float32
    v_ptr,  # (B, T, H, V)
    beta_ptr,  # (B, T, H)
    initial_ptr,  # (J, K, V) float32, as last_ptr
    y_ptr,  # (B, T, H, V)
    last_ptr,
    entering_ptr,  # (chunks, J, K, V) float32
    T,
    B,
    H,
    K,
    V,
    M,
    chunks,
    C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
    HAS_K: tl.constexpr,
    KEEP: tl.constexpr,
):
    """One head and one block of value channels through all chunks, with the state (BLOCK_K, BLOCK_V) in registers."""
    kind: tl.constexpr = near_ptr.dtype.element_ty
    writes: tl.constexpr = 2 if HAS_K else 1
    j = tl.program_id(0).to(tl.int64)
    head, batch = j % H, j // H
    row = tl.arange(0, C)
    key = tl.arange(0, BLOCK_K)
    value = tl.program_id(1) * BLOCK_V + tl.arange(0, BLOCK_V)
    memory = key[:, None] * V + value[None, :]
    exists = (key < K)[:, None] & (value < V)[None, :]
    own = row[:, None] * K + key[None, :]
    inside = (row < C)[:, None] & (key < K)[None, :]
    square = row[:, None] * C + row[None, :]
    wide = row[:, None] * (writes * C) + row[None, :]
    S = tl.load(initial_ptr + j * K * V + memory, mask=exists, other=0.0)
    for chunk in range(chunks):
        m = chunk * (B * H) + j
        if KEEP:
            tl.store(entering_ptr + m * K * V + memory, S, mask=exists)
        t = chunk * C + row
        there = (t < T)[:, None] & (value < V)[None, :]
        token = batch * T + t
        place = (token * H + head)[:, None] * V + value[None, :]
        v = tl.load(v_ptr + place, mask=there, other=0.0)
        S_low = S.to(kind)
        a = tl.load(near_ptr + m * C * K + own, mask=inside, other=0.0)
        q = tl.load(near_ptr + (M + m) * C * K + own, mask=inside, other=0.0)
        read = tl.dot(a, S_low, input_precision="ieee")
        if HAS_K:
            early = tl.load(early_ptr + m * C * C + square)
            z = -tl.dot(early, v.to(kind), input_precision="ieee") - read
        else:
            beta = tl.load(beta_ptr + token * H + head, mask=t < T, other=0.0).to(tl.float32)
            z = v.to(tl.float32) * beta[:, None] - read
        u = tl.dot(tl.load(inverse_ptr + m * C * C + square), z.to(kind), input_precision="ieee").to(kind)
        late = tl.load(late_ptr + m * writes * C * C + wide)
        y = tl.dot(q, S_low, input_precision="ieee") + tl.dot(late, u, input_precision="ieee")
        b = tl.load(far_ptr + m * writes * C * K + own, mask=inside, other=0.0)
        total = tl.load(total_ptr + m * K + key, mask=key < K, other=0.0)
        S = S * total[:, None] + tl.dot(tl.trans(b), u, input_precision="ieee")
        if HAS_K:
            late = tl.load(late_ptr + m * writes * C * C + wide + C)
            y += tl.dot(late, v.to(kind), input_precision="ieee")
            k = tl.load(far_ptr + (m * writes + 1) * C * K + own, mask=inside, other=0.0)
            S += tl.dot(tl.trans(k), v.to(kind), input_precision="ieee")
        tl.store(y_ptr + place, y.to(y_ptr.dtype.element_ty), mask=there)
    tl.store(last_ptr + j * K * V + memory, S, mask=exists)


@triton.jit
def _backward_kernel(
    near_ptr,  # (2, M, C, K) float32, as everything here
    far_ptr,  # (M, m C, K)
    inverse_ptr,  # (M, C, C)
    total_ptr,  # (M, K)
    loss_ptr,  # (2, M, C, V): the first is written, the gradient of -z; the second is that of y
    dwritten_ptr,  # (M, m C, V): completed
    carry_ptr,  # (J, K, V) gradient of the state after the last chunk
    leaving_ptr,  # (M, K, V) gradients of the states after each chunk, written
    first_ptr,  # (J, K, V) gradient of the state before the first chunk, written
    J,
    K,
    V,
    M,
    chunks,
    C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
    HAS_K: tl.constexpr,
):
    """The gradient of the state of one head and block of value channels, from the last chunk to the first."""
    writes: tl.constexpr = 2 if HAS_K else 1
    j = tl.program_id(0).to(tl.int64)
    row = tl.arange(0, C)
    key = tl.arange(0, BLOCK_K)
    value = tl.program_id(1) * BLOCK_V + tl.arange(0, BLOCK_V)
    memory = key[:, None] * V + value[None, :]
    exists = (key < K)[:, None] & (value < V)[None, :]
    own = row[:, None] * K + key[None, :]
    inside = (row < C)[:, None] & (key < K)[None, :]
    outer = row[:, None] * V + value[None, :]
    there = (row < C)[:, None] & (value < V)[None, :]
    square = row[:, None] * C + row[None, :]
    carry = tl.load(carry_ptr + j * K * V + memory, mask=exists, other=0.0)
    for back in range(chunks):
        m = (chunks - 1 - back) * J + j
        tl.store(leaving_ptr + m * K * V + memory, carry, mask=exists)
        du_ptr = dwritten_ptr + m * writes * C * V + outer
        b = tl.load(far_ptr + m * writes * C * K + own, mask=inside, other=0.0)
        du = tl.load(du_ptr, mask=there, other=0.0) + tl.dot(b, carry, input_precision="ieee")
        tl.store(du_ptr, du, mask=there)
        if HAS_K:
            k = tl.load(far_ptr + (m * writes + 1) * C * K + own, mask=inside, other=0.0)
            dv = tl.load(du_ptr + C * V, mask=there, other=0.0) + tl.dot(k, carry, input_precision="ieee")
            tl.store(du_ptr + C * V, dv, mask=there)
        inverse = tl.load(inverse_ptr + m * C * C + square)
        dz = -tl.dot(tl.trans(inverse), du, input_precision="ieee")
        tl.store(loss_ptr + m * C * V + outer, dz, mask=there)
        dy = tl.load(loss_ptr + (M + m) * C * V + outer, mask=there, other=0.0)
        a = tl.load(near_ptr + m * C * K + own, mask=inside, other=0.0)
        q = tl.load(near_ptr + (M + m) * C * K + own, mask=inside, other=0.0)
        total = tl.load(total_ptr + m * K + key, mask=key < K, other=0.0)
        carry = carry * total[:, None] + tl.dot(tl.trans(a), dz, input_precision="ieee")
        carry += tl.dot(tl.trans(q), dy, input_precision="ieee")
    tl.store(first_ptr + j * K * V + memory, carry, mask=exists)


def _power(n: int) -> int:
    """The power of two that holds n, at least 16 as a matrix product needs."""
    return max(16, triton.next_power_of_2(n))


def _value_block(K: int, V: int) -> int:
    """Value channels that one program carries: fewer where keys are wide, for the state to stay in registers."""
    return min(_power(V), 64 if K <= 64 else 32 if K <= 128 else 16)


def forward(
    q: Tensor, a: Tensor, b: Tensor, v: Tensor, k: Tensor | None, beta: Tensor | None, decay: Tensor | None,
    initial: Tensor, scale: float, C: int, train: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """As `_forward` of kernels/dplr.py, in chunks of C tokens: y, the last state, the states entering each chunk."""
    q, a, b, v, k, beta, decay = (x if x is None else x.contiguous() for x in (q, a, b, v, k, beta, decay))
    B, T, H, V = v.shape
    G, K = q.shape[2:]
    J, chunks = B * H, -(-T // C)
    M, m = J * chunks, 1 if k is None else 2
    y, last = torch.empty_like(v), torch.empty_like(initial)
    entering = initial.new_empty(chunks if train else 0, J, K, V)
    if M == 0:
        return y, initial.clone(), entering
    near, far = v.new_empty(2, M, C, K), v.new_empty(M, m * C, K)
    system, inverse = v.new_empty(M, C, C, dtype=torch.float32), v.new_empty(M, C, C)
    early, late = v.new_empty(M, C, C) if m == 2 else inverse, v.new_empty(M, C, m * C)
    total = v.new_empty(M, K, dtype=torch.float32)
    none = v  # a pointer that is not read
    sizes = T, B, H, G, K, M, scale, C, _power(K)
    if decay is not None and decay.dim() == 4:
        _within_channels_kernel[(M, C // 16)](
            q, a, b, none if k is None else k, none if beta is None else beta, decay, near, far, system, early, late,
            total, *sizes, HAS_K=m == 2, num_warps=4,
        )  # fmt: skip
    else:
        assert beta is not None, "one decay a head goes with the delta rule"
        _within_kernel[(M,)](
            q, a, b, beta, none if decay is None else decay, near, far, system, late, total, *sizes,
            HAS_DECAY=decay is not None, num_warps=4,
        )  # fmt: skip
    half = min(C, 32)
    precision = "ieee" if v.dtype == torch.float32 else "tf32x3"
    _inverse_kernel[(M,)](system, inverse, C, half, precision, num_warps=2)
    block = _value_block(K, V)
    _forward_kernel[(J, triton.cdiv(V, block))](
        near, far, inverse, early, late, total, v, none if beta is None else beta, initial.contiguous(), y, last,
        entering, T, B, H, K, V, M, chunks, C, _power(K), block, HAS_K=m == 2, KEEP=train, num_warps=4, num_stages=1,
    )  # fmt: skip
    return y, last, entering


def backward_pass(
    near: Tensor, far: Tensor, inverse: Tensor, total: Tensor | None, loss: Tensor, dwritten: Tensor, carry: Tensor
) -> tuple[Tensor, Tensor]:
    """As `_backward_pass` of kernels/dplr.py, whose `Terms` hold the first four arguments."""
    _, M, C, K = near.shape
    J, _, V = carry.shape
    total = near.new_ones(M, K) if total is None else total.squeeze(-1).expand(M, K).contiguous()
    leaving, first = carry.new_empty(M, K, V), torch.empty_like(carry)
    if M == 0:
        return leaving, carry.clone()
    block = _value_block(K, V)
    _backward_kernel[(J, triton.cdiv(V, block))](
        near, far, inverse.contiguous(), total, loss, dwritten, carry.contiguous(), leaving, first, J, K, V, M,
        M // J, C, _power(K), block, HAS_K=far.shape[1] == 2 * C, num_warps=4, num_stages=1,
    )  # fmt: skip
    return leaving, first
