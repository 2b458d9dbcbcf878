"""Which queries and keys softmax attention takes together, so that work and memory follow the pairs that are visible.

A tile is a set of queries with the keys that one part of the rules (`attention_mask.seen`) lets them see: a window of w
keys makes O(T w) pairs of tiles and not O(T^2). The keys of a tile may hold more than its queries see, never less.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from archspec.kernels.attention.mask import Rules

Where = slice | Tensor

FEWEST_ROWS = 32  # of a tile with steps between its queries; fewer are not worth a tile of their own


class Tile(NamedTuple):
    """Some queries and keys, by index, and the part of the rules that is computed there."""

    queries: Where
    keys: Where
    part: str


def tiles(T: int, rules: Rules, rows: int, j: Tensor) -> Iterator[Tile]:
    """Tiles of `rows` queries that together hold every visible pair, for the key positions j (S,).

    Each query is in at most one tile of part "near", and in that first.
    """
    S = len(j)
    yield from _near_tiles(T, rules, rows, j)
    if rules.pattern == "strided":
        yield from _far_tiles(T, rules, rows, j)
    if rules.global_tokens is not None:
        some = rules.global_tokens[:, S - T :].any(0).nonzero().squeeze(1)
        for queries in some.split(rows):
            if len(queries):
                yield Tile(queries, slice(0, S), "rows")


def _near_tiles(T: int, rules: Rules, rows: int, j: Tensor) -> Iterator[Tile]:
    """Runs of queries, `dilation` apart where that leaves enough of them, and the keys around them."""
    S = len(j)
    step = rules.dilation if T // rules.dilation >= FEWEST_ROWS else 1
    prefix = 0 if rules.prefix_len is None else min(int(rules.prefix_len.max()), S)
    everywhere = _keys_seen_from_everywhere(rules, j)
    spans = None if rules.documents is None else _document_spans(rules.documents, j)
    for start in (t for first in range(step) for t in range(first, T, rows * step)):
        queries = slice(start, min(start + rows * step, T), step)
        position = slice(start + S - T, queries.stop + S - T, step)
        low, high = _span(position, rules, max(S, T))
        high = min(high, S)
        if spans is not None:
            low = max(low, int(spans[0][:, position].min()))
            high = min(high, int(spans[1][:, position].max()))
        if prefix and step == 1 and low <= prefix:
            low, high = 0, max(high, prefix)
        keys = slice(low + (position.start - low) % step, max(high, low), step)
        if everywhere is not None or (prefix and (low or step > 1)):
            last = position.stop if rules.causal or rules.pattern else S
            more = j[:0] if everywhere is None else everywhere[everywhere < last]
            keys = torch.cat((j[keys], more, j[:prefix])).unique()
        if len(j[keys]):
            yield Tile(queries, keys, "near")


def reach(rules: Rules, length: int) -> int:
    """The largest distance of a near pair, `length` or more for any."""
    if rules.pattern:
        return rules.stride - 1
    return (rules.window or length) * rules.dilation - 1


def _span(position: slice, rules: Rules, length: int) -> tuple[int, int]:
    """The keys low .. high - 1 that queries at these positions see by window or pattern."""
    furthest = reach(rules, length)
    low = position.start // rules.stride * rules.stride if rules.pattern == "fixed" else position.start - furthest
    high = position.stop if rules.causal or rules.pattern else position.stop + furthest
    return max(low, 0), high


def _keys_seen_from_everywhere(rules: Rules, j: Tensor) -> Tensor | None:
    """Positions of global keys, or of the summaries of the fixed pattern."""
    if rules.global_tokens is None and rules.pattern != "fixed":
        return None
    some = torch.zeros_like(j, dtype=torch.bool) if rules.global_tokens is None else rules.global_tokens.any(0)
    if rules.pattern == "fixed":
        some = some | (j % rules.stride >= rules.stride - rules.summary)
    return j[some]


def _document_spans(documents: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
    """First position of the document of each token and the position after its last, (B, S) each."""
    values, number = documents.unique(return_inverse=True)
    j = j.expand_as(number)
    empty = j.new_zeros(len(number), len(values))
    first = (empty + j.shape[1]).scatter_reduce(1, number, j, "amin")
    last = empty.scatter_reduce(1, number, j + 1, "amax")
    return first.gather(1, number), last.gather(1, number)


def _far_tiles(T: int, rules: Rules, rows: int, j: Tensor) -> Iterator[Tile]:
    """Positions equal modulo the stride see one another; several such classes share a tile where they are short."""
    S = len(j)
    together = max(rows * rules.stride // (2 * S), 1)
    for first in range(0, rules.stride, together):
        keys = j[(j % rules.stride >= first) & (j % rules.stride < first + together)]
        for queries in keys[keys >= S - T].split(rows):
            if len(queries):
                yield Tile(queries - (S - T), keys[keys <= queries[-1]], "far")
