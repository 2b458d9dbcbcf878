"""Triton kernels of the matrix memory; the functions of `archspec.kernels.matrix_memory_chunked` on a GPU.

Three kernels, each for the forward and the backward pass. The states that enter the chunks (and, backwards, their
gradients) are computed chunk after chunk, in parallel over sequences, heads and blocks of the state. Outputs (and the
gradients of values) are computed in parallel over chunks from those states; so are the gradients of queries, keys and
decays. Products take operands of the type of the values and add up in float32; where values are float16, products with
states are in tf32, because a state may be larger than float16 holds.

Log decays come in as sums over the tokens of a chunk up to each, made by `_sums`. For one decay a head the sums are
split into multiples of 1 / 256, whose differences are exact, and the small rest. For a decay a channel the products of
queries and keys are taken for blocks of 2, 4, ... tokens: those of the later half of a block with those of its earlier
half, decayed to and from the cut between the halves, so that no exponent is positive.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from archspec.kernels.matrix_memory_chunked import kept_type
from archspec.kernels.matrix_memory_segments import chunk_length, is_vector

NONE, SCALAR, VECTOR = (tl.constexpr(i) for i in range(3))
TINIEST = -104.0  # the exponential of which is zero in float32
TYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


@triton.jit
def _tile(ptr, tokens, ok, columns, width, stride, TYPE: tl.constexpr):
    """Rows `tokens` and `columns` of a matrix, zero where there is nothing."""
    mask = ok[:, None] & (columns < width)[None, :]
    return tl.load(ptr + tokens.to(tl.int64)[:, None] * stride + columns[None, :], mask=mask, other=0.0).to(TYPE)


@triton.jit
def _sums_at(ptr, rows, ok, columns, width, stride):
    """Sums of log decays of the rows `rows` of a chunk, zero for rows where `ok` is false."""
    mask = ok[:, None] & (columns < width)[None, :]
    return tl.load(ptr + rows.to(tl.int64)[:, None] * stride + columns[None, :], mask=mask, other=0.0)


@triton.jit
def _state_tile(ptr, k_columns, v_columns, K, V, k_stride):
    """A block of a state, (keys, values), in float32."""
    mask = (k_columns < K)[:, None] & (v_columns < V)[None, :]
    return tl.load(ptr + k_columns.to(tl.int64)[:, None] * k_stride + v_columns[None, :], mask=mask, other=0.0).to(
        tl.float32
    )


@triton.jit
def _scalar_sums(coarse_ptr, fine_ptr, rows, ok, stride):
    """Both parts of the sums of log decays of the rows `rows` of a chunk."""
    coarse = tl.load(coarse_ptr + rows * stride, mask=ok, other=0.0)
    return coarse, tl.load(fine_ptr + rows * stride, mask=ok, other=0.0)


@triton.jit
def _decays_between(coarse_ptr, fine_ptr, rows, L, stride, TILE: tl.constexpr, EXCLUSIVE: tl.constexpr):
    """Decay between any two tokens of a chunk (TILE, TILE), zero where the second is not seen by the first."""
    coarse, fine = _scalar_sums(coarse_ptr, fine_ptr, rows, rows < L, stride)
    past = rows - EXCLUSIVE
    read_coarse, read_fine = _scalar_sums(coarse_ptr, fine_ptr, past, (past >= 0) & (past < L), stride)
    exponent = (read_coarse[:, None] - coarse[None, :]) + (read_fine[:, None] - fine[None, :])
    return tl.exp(tl.where(past[:, None] >= rows[None, :], exponent, float("-inf")))


@triton.jit
def _halves(q, k, own, read, sums_ptr, rows, half, L, columns, K, stride, EXCLUSIVE: tl.constexpr):
    """For blocks of 2 half tokens: queries of the later halves decayed from the cut, keys of the earlier to the cut,
    both zero elsewhere, and the decays themselves."""
    late = (rows % (2 * half)) >= half
    cut = rows // (2 * half) * (2 * half) + half - 1
    middle = _sums_at(sums_ptr, cut, cut < L, columns, K, stride)
    late_decay = tl.where(late[:, None], tl.exp(tl.minimum(read - middle, 0.0)), 0.0)
    early_decay = tl.where(late[:, None], 0.0, tl.exp(tl.minimum(middle - own, 0.0)))
    return q * late_decay, k * early_decay, late_decay, early_decay


@triton.jit
def _same_block(x, rows, half):
    """x (TILE, TILE) where both tokens are of one block of 2 half tokens, zero elsewhere."""
    return tl.where((rows // (2 * half))[:, None] == (rows // (2 * half))[None, :], x, 0.0)


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
    batch, head = tl.program_id(2) // H, tl.program_id(2) % H
    rows = tl.arange(0, TILE)
    k_columns = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    v_columns = tl.program_id(1) * BLOCK_V + tl.arange(0, BLOCK_V)
    wide = tl.program_id(2).to(tl.int64)
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
            v = (v * tl.exp(tl.minimum(exponent, 0.0))[:, None]).to(TYPE)
            state *= tl.exp(last_coarse + last_fine)
        if DECAY == VECTOR:
            at = sums_ptr + chunk.to(tl.int64) * sums_chunk
            last = tl.load(at + end * sums_row + k_columns, mask=k_columns < K, other=0.0)
            own = _sums_at(at, used, (used >= 0) & ok, k_columns, K, sums_row)
            exponent = own if BACK else last[None, :] - own
            x = (x * tl.exp(tl.minimum(exponent, 0.0))).to(TYPE)
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
    chunk = tl.program_id(0)
    batch, head = tl.program_id(2) // H, tl.program_id(2) % H
    rows = tl.arange(0, TILE)
    tokens = chunk * L + rows
    ok = (rows < L) & (tokens < T)
    v_columns = tl.program_id(1) * BLOCK_V + tl.arange(0, BLOCK_V)
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
            side = (side * tl.exp(tl.minimum(exponent, 0.0))).to(TYPE)
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
        out *= tl.exp(tl.minimum(exponent, 0.0))[:, None]
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
    chunk = tl.program_id(0)
    part = tl.program_id(2) % parts
    batch, group = tl.program_id(2) // parts // G, tl.program_id(2) // parts % G
    shared = H // G
    rows = tl.arange(0, TILE)
    tokens = chunk * L + rows
    ok = (rows < L) & (tokens < T)
    columns = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
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
            write = tl.exp(tl.minimum((last_coarse - coarse) + (last_fine - fine), 0.0))
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
                place = (tl.program_id(1).to(tl.int64) * B + batch) * T * H + tokens.to(tl.int64) * H + head
                tl.store(dg_ptr + place, dg, mask=ok)
        else:
            at = sums_ptr + sums_offset
            last = tl.load(at + end * sums_row + columns, mask=columns < K, other=0.0)
            own_sums = _sums_at(at, rows, ok, columns, K, sums_row)
            read = _sums_at(at, past, (past >= 0) & ok, columns, K, sums_row)
            dq_head = dq_before * tl.exp(read)
            dk_head = dk_after * tl.exp(tl.minimum(last[None, :] - own_sums, 0.0))
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


class Launch:
    """Tensors and settings that the kernels of one call share."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, decay: Tensor | None, exclusive: bool, chunk: int):
        self.q, self.k, self.v = q.contiguous(), k.contiguous(), v.contiguous()
        self.B, self.T, self.H, self.V = v.shape
        self.G, self.K = q.shape[2:]
        self.L = chunk_length(decay, self.T, chunk)
        self.chunks = -(-self.T // self.L)
        self.vector = is_vector(decay)
        self.RS = 1 if self.vector else self.H // self.G
        self.state_shape = (self.chunks, self.B, self.H // self.RS, self.K, self.RS, self.V)
        self.kept = kept_type(q, k, v)
        self.tile = max(16, triton.next_power_of_2(self.L))
        self.sums, self.fine, strides = _sums(self.v, decay, self.L, self.chunks)
        self.settings = dict(zip(("sums_batch", "sums_chunk", "sums_row", "sums_head"), strides, strict=True))
        self.settings |= {"RS": self.RS, "TILE": self.tile, "EXCLUSIVE": int(exclusive)}
        self.settings |= {"DECAY": (NONE if decay is None else VECTOR if self.vector else SCALAR).value}
        self.settings |= {"TYPE": TYPES[v.dtype], "PRECISION": "ieee" if v.dtype == torch.float32 else "tf32"}
        self.state_type = tl.bfloat16 if v.dtype == torch.bfloat16 else tl.float32
        self.levels = (self.L - 1).bit_length()

    def blocks(self, keys: int, values: int) -> tuple[int, int]:
        """Columns of keys and values at once: at most these, at least 16."""
        return tuple(min(most, max(16, triton.next_power_of_2(n))) for n, most in ((self.K, keys), (self.V, values)))

    def states(self, x: Tensor, v: Tensor, first: Tensor | None, scale: float, back: bool) -> tuple[Tensor, Tensor]:
        """The state at each chunk, in its type for products, and the last (B, H, K, V)."""
        states = torch.empty(self.state_shape, dtype=self.kept, device=v.device)
        last = torch.empty((self.B, self.H, self.K, self.V), dtype=torch.float32, device=v.device)
        BK, BV = self.blocks(64, 64 if self.v.dtype != torch.float32 else 32)
        grid = (triton.cdiv(self.K, BK), triton.cdiv(self.V, BV), self.B * self.H)
        first = None if first is None else first.contiguous()
        _states_kernel[grid](
            x, v, self.sums, self.fine, v if first is None else first, states, last, scale,
            self.B, self.T, self.G, self.H, self.K, self.V, self.L, self.chunks,
            BLOCK_K=BK, BLOCK_V=BV, BACK=back, HAS_FIRST=first is not None, **self.settings, num_warps=4, num_stages=2,
        )  # fmt: skip
        return states, last

    def outputs(self, v: Tensor, states: Tensor, scale: float, back: bool) -> Tensor:
        """Outputs, or backwards the gradients of values."""
        y = torch.empty(self.v.shape, dtype=self.v.dtype, device=v.device)
        BK, BV = self.blocks(32 if self.vector or self.v.dtype == torch.float32 else 64, 64)
        grid = (self.chunks, triton.cdiv(self.V, BV), self.B * self.H)
        _outputs_kernel[grid](
            self.q, self.k, v, states, self.sums, self.fine, y, scale,
            self.B, self.T, self.G, self.H, self.K, self.V, self.L,
            LEVELS=self.levels, BLOCK_K=BK, BLOCK_V=BV, BACK=back, STATE_TYPE=self.state_type, **self.settings,
            num_warps=8 if self.vector or self.v.dtype == torch.float32 else 4, num_stages=2,
        )  # fmt: skip
        return y

    def keys(
        self, dy: Tensor, states: Tensor, dstates: Tensor, scale: float, learned: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of queries, of keys, and of log decays (B, T, H) or (B, T, H, K)."""
        shared = self.H // self.G
        part = min(shared, 8)  # heads that one program adds up: few enough to keep a GPU busy
        parts = triton.cdiv(shared, part)
        BK, BV = self.blocks(32 if self.vector or self.v.dtype == torch.float32 else 64, 32)
        blocks = triton.cdiv(self.K, BK)
        dq, dk = (torch.empty((parts, *self.q.shape), dtype=torch.float32, device=dy.device) for _ in range(2))
        dg_shape = (self.B, self.T, self.H, self.K) if self.vector else (blocks, self.B, self.T, self.H)
        dg = torch.empty(dg_shape if learned else 0, dtype=torch.float32, device=dy.device)
        _keys_kernel[(self.chunks, blocks, self.B * self.G * parts)](
            self.q, self.k, self.v, dy, states, dstates, self.sums, self.fine, dq, dk, dg, scale,
            self.B, self.T, self.G, self.H, self.K, self.V, self.L,
            parts=parts, PART=part, LEVELS=self.levels, BLOCK_K=BK, BLOCK_V=BV, LEARNED=learned,
            STATE_TYPE=self.state_type, **self.settings, num_warps=8, num_stages=1,
        )  # fmt: skip
        dq, dk = (x[0] if parts == 1 else x.sum(0) for x in (dq, dk))
        return dq, dk, dg if self.vector or not learned else dg.sum(0)


def _sums(v: Tensor, decay: Tensor | None, L: int, chunks: int) -> tuple[Tensor, Tensor, tuple[int, int, int, int]]:
    """Log decays summed up within chunks, the rest of the sums, and their strides for batch, chunk, row and head."""
    if decay is None:
        return v, v, (0, 0, 0, 0)
    g = decay.float().clamp(min=TINIEST)
    constant = decay.dim() < 3
    if constant:
        g = g.expand(1, L, *g.shape)
    else:
        g = torch.nn.functional.pad(g, (0, 0) * (g.dim() - 2) + (0, chunks * L - g.shape[1]))
    g = g.unflatten(1, (-1, L))  # (B, chunks, L, H, ...)
    if is_vector(decay):
        sums = fine = g.cumsum(2).contiguous()
    else:
        coarse = (g * 256.0).round() / 256.0
        sums, fine = coarse.cumsum(2).contiguous(), (g - coarse).cumsum(2).contiguous()
    batch, part, row, head = sums.stride()[:4]
    return sums, fine, (0, 0, row, head) if constant else (batch, part, row, head)


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor | None,
    initial: Tensor | None,
    scale: float,
    exclusive: bool,
    chunk: int,
    train: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """y (B, T, H, V), the last state (B, H, K, V), and for training the state that enters each chunk."""
    run = Launch(q, k, v, decay, exclusive, chunk)
    states, last = run.states(run.k, run.v, initial, 1.0, back=False)
    y = run.outputs(run.v, states, scale, back=False)
    return y, last, states if train else states.new_empty((0, *states.shape[1:]))


def backward(
    grads: list[Tensor | None],
    entering: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor | None,
    initial: Tensor | None,
    scale: float,
    exclusive: bool,
    chunk: int,
    learned: bool,
) -> list[Tensor]:
    """Gradients of q, k, v and, where they are given, of the decay and the initial state."""
    run = Launch(q, k, v, decay, exclusive, chunk)
    dy = torch.zeros_like(run.v) if grads[0] is None else grads[0].contiguous()
    dstates, dinitial = run.states(run.q, dy, grads[1], scale, back=True)
    dv = run.outputs(dy, dstates, scale, back=True)
    dq, dk, dg = run.keys(dy, entering, dstates, scale, learned)
    result = [dq, dk, dv]
    if decay is not None:
        result.append(_as_decay(dg, decay) if learned else torch.zeros_like(decay))
    return result if initial is None else [*result, dinitial]


def _as_decay(dg: Tensor, decay: Tensor) -> Tensor:
    """The gradient of log decays in their shape; none passes where a decay is zero."""
    return (dg.sum((0, 1)) if decay.dim() < 3 else dg).masked_fill(decay == -torch.inf, 0.0)
