"""What the Triton kernels of the matrix memory share: tiles of tokens and states, and the decays between tokens."""

import triton
import triton.language as tl

NONE, SCALAR, VECTOR = (tl.constexpr(i) for i in range(3))


@triton.jit
def _at_most_zero(x):
    """min(x, 0), where tl.minimum would make 0 of NaN."""
    return tl.where(x > 0, 0.0, x)


@triton.jit
def _program(first, second):
    """The number of this program along three axes; a grid has them all in one, as its others end at 65535."""
    n = tl.program_id(0)
    return n % first, n // first % second, n // first // second


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
    late_decay = tl.where(late[:, None], tl.exp(_at_most_zero(read - middle)), 0.0)
    early_decay = tl.where(late[:, None], 0.0, tl.exp(_at_most_zero(middle - own)))
    return q * late_decay, k * early_decay, late_decay, early_decay


@triton.jit
def _same_block(x, rows, half):
    """x (TILE, TILE) where both tokens are of one block of 2 half tokens, zero elsewhere."""
    return tl.where((rows // (2 * half))[:, None] == (rows // (2 * half))[None, :], x, 0.0)
