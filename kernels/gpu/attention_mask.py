"""Which keys a query sees, inside a kernel: the rule for a pair, and the blocks of pairs that are worth visiting.

Positions are those of the S keys; query t of T is at i = S - T + t. The rule is that of `kernels.attention.softmax`,
with d = i - j: near (causal, window, dilation, pattern), or in the prefix, or global; and in one document, and real.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from archspec.kernels.attention.mask import Rules

SCANNED = tl.constexpr(1024)  # positions that `_narrowed` looks at together


class Sight(NamedTuple):
    """The rule as one argument of a kernel: settings known when it is compiled, and tensors that may be absent."""

    causal: Any  # a pattern is causal too
    window: Any  # 0 for none
    dilation: Any  # 1 for none
    pattern: Any  # "", "strided" or "fixed"
    stride: Any
    summary: Any
    whole: Any  # whether blocks exist that need no mask, as far as the settings tell
    patchy: Any  # whether blocks in the middle of the visited ones may hold nothing, so that looking first is worth it
    prefix_len: Tensor | None  # (B,)
    documents: Tensor | None  # (B, S)
    global_tokens: Tensor | None  # (B, S)
    key_mask: Tensor | None  # (B, S)


def sight(rules: Rules) -> Sight:
    """The rules as an argument of a kernel."""
    causal, window, dilation, pattern, stride, summary, key_mask, prefix_len, documents, global_tokens = rules
    whole = dilation == 1 and pattern == "" and documents is None and key_mask is None
    patchy = pattern != "" or global_tokens is not None
    settings = (causal or pattern != "", window, dilation, pattern, stride, summary, whole, patchy)
    documents = None if documents is None else documents.long()  # numbers of one type, whatever counted them
    tensors = (prefix_len, documents, global_tokens, key_mask)
    return Sight(*map(tl.constexpr, settings), *(None if x is None else x.contiguous() for x in tensors))


@triton.jit
def visible(sight, b, i, j, S):
    """Whether queries at positions i see keys at positions j, which broadcast together; S and later see nothing."""
    d = i - j
    inside = (i < S) & (j < S)
    ordered = inside
    if sight.causal:
        ordered = inside & (d >= 0)
    seen = ordered
    if sight.window > 0:
        seen = seen & (tl.abs(d) < sight.window * sight.dilation)
    if sight.dilation > 1:
        seen = seen & (d % sight.dilation == 0)
    if sight.pattern == "strided":
        seen = seen & ((d < sight.stride) | (d % sight.stride == 0))
    if sight.pattern == "fixed":
        together = i // sight.stride == j // sight.stride
        seen = seen & (together | (j % sight.stride >= sight.stride - sight.summary))
    if sight.global_tokens is not None:
        seen = seen | (ordered & (_flags(sight.global_tokens, b, i, S) | _flags(sight.global_tokens, b, j, S)))
    if sight.prefix_len is not None:
        seen = seen | (inside & (j < tl.load(sight.prefix_len + b)))
    if sight.documents is not None:
        documents = sight.documents + b.to(tl.int64) * S
        query = tl.load(documents + i, mask=(i >= 0) & (i < S), other=-1)
        seen = seen & (query == tl.load(documents + j, mask=j < S, other=-1))
    if sight.key_mask is not None:
        seen = seen & _flags(sight.key_mask, b, j, S)
    return seen


@triton.jit
def _flags(ptr, b, places, S):
    """Booleans of a (B, S) tensor, false outside of it."""
    return tl.load(ptr + b.to(tl.int64) * S + places, mask=(places >= 0) & (places < S), other=0).to(tl.int1)


@triton.jit
def key_blocks(sight, b, first, last, T, S, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The blocks of COLUMNS keys that the queries at positions first .. last (of ROWS) see, as `Blocks` below.

    Returns (extra, begin, full_begin, full_end, end): blocks 0 .. extra - 1 and begin .. end - 1 may hold something to
    see, and of those full_begin .. full_end - 1 are seen whole by every query and need no mask.
    """
    behind, ahead = _reach(sight, T + S)
    begin, full_begin, full_end, end = _span(first, last, behind, ahead, S, COLUMNS)
    extra = 0
    if sight.global_tokens is not None:
        begin = 0
        end = tl.cdiv(S, COLUMNS)
        if sight.causal:
            end = tl.minimum(tl.maximum(last + COLUMNS, 0) // COLUMNS, end)
    if sight.prefix_len is not None:
        prefix = tl.cdiv(tl.minimum(tl.load(sight.prefix_len + b).to(tl.int32), S), COLUMNS)
        extra = tl.minimum(prefix, begin)
        end = tl.maximum(end, prefix)
    if (sight.documents is not None) or (sight.key_mask is not None):
        rows = first + tl.arange(0, ROWS)
        low, high = _document_range(sight, b, rows, (rows >= 0) & (rows <= last), S)
        lowest, highest = _narrowed(sight, b, low, high, begin * COLUMNS, tl.minimum(end * COLUMNS, S), S, True)
        begin = tl.minimum(tl.maximum(begin, lowest // COLUMNS), end)
        end = tl.maximum(tl.minimum(end, (highest + COLUMNS) // COLUMNS), begin)
    full_begin = tl.minimum(tl.maximum(full_begin, begin), end)
    full_end = tl.minimum(tl.maximum(full_end, full_begin), end)
    if not sight.whole:
        full_end = full_begin
    return extra, begin, full_begin, full_end, end


@triton.jit
def query_blocks(sight, b, first, last, T, S, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The blocks of ROWS queries that see keys first .. last (of COLUMNS), in the form of `key_blocks`; extra is 0."""
    behind, ahead = _reach(sight, T + S)
    offset = S - T
    begin, full_begin, full_end, end = _span(first - offset, last - offset, ahead, behind, T, ROWS)
    if sight.global_tokens is not None:
        end = tl.cdiv(T, ROWS)
        if not sight.causal:
            begin = 0
    if sight.prefix_len is not None:
        in_prefix = tl.load(sight.prefix_len + b) > first
        begin = tl.where(in_prefix, 0, begin)
        end = tl.where(in_prefix, tl.cdiv(T, ROWS), end)
    if (sight.documents is not None) or (sight.key_mask is not None):
        columns = first + tl.arange(0, COLUMNS)
        real = columns < S
        if sight.key_mask is not None:
            real = real & _flags(sight.key_mask, b, columns, S)
        low, high = _document_range(sight, b, columns, real, S)
        if sight.documents is not None:
            start = tl.maximum(begin * ROWS + offset, 0)
            lowest, highest = _narrowed(sight, b, low, high, start, tl.minimum(end * ROWS + offset, S), S, False)
            begin = tl.minimum(tl.maximum(begin, tl.maximum(lowest - offset, 0) // ROWS), end)
            end = tl.maximum(tl.minimum(end, tl.maximum(highest - offset + ROWS, 0) // ROWS), begin)
        else:
            end = tl.where(low > high, begin, end)
    full_begin = tl.minimum(tl.maximum(full_begin, begin), end)
    full_end = tl.minimum(tl.maximum(full_end, full_begin), end)
    if not sight.whole:
        full_end = full_begin
    return 0, begin, full_begin, full_end, end


@triton.jit
def masked_count(extra, begin, full_begin, full_end, end):
    """How many of the blocks need the mask."""
    return extra + (full_begin - begin) + (end - full_end)


@triton.jit
def masked_block(n, extra, begin, full_begin, full_end):
    """The n-th block that needs the mask: one counter for them all keeps a kernel to two loops."""
    block = tl.where(n < extra, n, n - extra + begin)
    return tl.where(block >= full_begin, block + (full_end - full_begin), block)


@triton.jit
def _reach(sight, everything):
    """How far behind and ahead of itself a query sees by causality and window alone."""
    behind = everything
    ahead = everything
    if sight.window > 0:
        behind = (sight.window - 1) * sight.dilation
        ahead = behind
    if sight.causal:
        ahead = 0
    return behind, ahead


@triton.jit
def _span(first, last, below, above, count, BLOCK: tl.constexpr):
    """Blocks of 0 .. count - 1 touching [first - below, last + above], and those in [last - below, first + above]."""
    begin = tl.maximum(first - below, 0) // BLOCK
    end = tl.minimum(tl.cdiv(count, BLOCK), tl.maximum(last + above + BLOCK, 0) // BLOCK)
    full_begin = tl.cdiv(tl.maximum(last - below, 0), BLOCK)
    full_end = tl.maximum(tl.minimum(first + above + 1, count), 0) // BLOCK
    begin = tl.minimum(begin, end)
    return begin, full_begin, full_end, end


@triton.jit
def _document_range(sight, b, places, real, S):
    """The lowest and highest document at places that are real; lowest > highest where there is none."""
    if sight.documents is None:
        found = tl.max(real.to(tl.int32), axis=0)
        return 1 - found, found * 0
    else:
        numbers = tl.load(sight.documents + b.to(tl.int64) * S + places, mask=real, other=0)
        low = tl.min(tl.where(real, numbers, 0x7FFFFFFFFFFFFFFF), axis=0)
        high = tl.max(tl.where(real, numbers, -0x7FFFFFFFFFFFFFFF), axis=0)
        return low, high


@triton.jit
def _narrowed(sight, b, low, high, start, stop, S, KEYS: tl.constexpr):
    """The first and last position of start .. stop - 1 in documents low .. high and, for KEYS, with a real key.

    Packed sequences and padding make most of what causality allows invisible; a pass over the numbers of the documents
    costs far less than the products it saves. (S, -1) where there is none.
    """
    lanes = tl.arange(0, SCANNED)
    lowest = tl.full((SCANNED,), S, tl.int32)
    highest = tl.full((SCANNED,), -1, tl.int32)
    for chunk in range(start, stop, SCANNED):
        places = chunk + lanes
        found = places < stop
        if sight.documents is not None:
            numbers = tl.load(sight.documents + b.to(tl.int64) * S + places, mask=found, other=0)
            found = found & (numbers >= low) & (numbers <= high)
        if KEYS and (sight.key_mask is not None):
            found = found & _flags(sight.key_mask, b, places, S)
        lowest = tl.minimum(lowest, tl.where(found, places, S))
        highest = tl.maximum(highest, tl.where(found, places, -1))
    return tl.min(lowest, axis=0), tl.max(highest, axis=0)
