"""A state taken back to its first tokens, as after a draft that was rejected."""

from collections.abc import Iterator

from archspec.decoding.given import MOST, whole
from archspec.decoding.layout import Entry, Layout
from archspec.decoding.tree import Held, Tree, counters, leaves, noted, rebuilt
from archspec.errors import StateError, in_tokens


def length(tree: Tree, layout: Layout) -> int | None:
    """How many tokens a state has seen; None where nothing in it says so, as in recurrences alone."""
    for seen in counters(tree):
        return seen
    unknown = False
    for held in leaves(tree):
        entry = layout.entry(held.path)
        axis, limit = entry.token_axis, entry.kept.limit
        if axis is not None and not held.unused:
            n = held.filled(axis).shape[axis]
            if limit is None or n < limit:
                return n
            unknown = True
        unknown = unknown or entry.sums
    return None if unknown else 0


def truncated(tree: Tree, layout: Layout, n: int) -> Tree:
    """The state after its first n tokens; the buffers stay and lose their ends.

    Raises StateError where n is more than it has seen, or something in it cannot go back, the first such layer named.
    """
    seen = length(tree, layout)
    limit = "or more" if seen is None else f"to {seen}"
    n = whole(n, f"0 {limit} tokens, those that the state has seen", most=MOST if seen is None else seen)
    if n == seen:
        return tree
    if n:
        for problem in _problems(tree, layout, seen, n):
            said = in_tokens(n) if seen is None else f"{n} of {in_tokens(seen)}"
            raise StateError(
                f"the state cannot go back to {said}: {problem}; keep a clone() from before the tokens that"
                " may be taken back"
            )
    return rebuilt(tree, lambda held: _cut(layout.entry(held.path), held, n), lambda seen: _counted(seen, n))


def _counted(seen: int, n: int) -> int:
    """A number of tokens becomes n; a flag holds until there are none."""
    return (seen and n > 0) if isinstance(seen, bool) else n


def _problems(tree: Tree, layout: Layout, seen: int | None, n: int) -> Iterator[str]:
    if noted(tree, "masked") > n:
        yield "there is padding among them, which was moved before all other tokens"
    if noted(tree, "prefix_len") > n:
        yield "tokens of a prefix depend on later ones of it"
    if layout.ahead:
        yield f"in {layout.ahead} a token depends on later ones of its call"
    for held in leaves(tree):
        entry = layout.entry(held.path)
        if entry.sums:
            yield f"{entry.layer} keeps {entry.what} ({held.path}), in which earlier tokens cannot be told apart"
        if (limit := entry.kept.limit) is not None and not held.unused and (seen is None or seen > limit):
            yield f"{entry.layer} keeps the last {limit} tokens of a window ({held.path}) and has dropped earlier ones"


def _cut(entry: Entry, held: Held, n: int) -> Held | None:
    axis = entry.token_axis
    if entry.pads:
        return held._replace(tensor=held.tensor.clamp(max=n))
    if axis is None:
        return None if entry.sums else held
    if held.unused:
        return held
    if held.span is not None and not held.tensor.requires_grad:
        return held._replace(span=(held.span[0], held.span[0] + n))
    if held.span is None and n == 0:
        return None
    # A slice would hold on to all tokens, and what autograd has saved must not be written on.
    tokens = held.filled(axis).narrow(axis, 0, n).clone()
    return held._replace(tensor=tokens, span=None if held.span is None else (0, n))
