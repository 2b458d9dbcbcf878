"""Sequences of different lengths in one state: the shorter ones stand behind columns of padding.

A model that takes masks moves the real tokens of each row to its end, so that all rows end in the same column, and
remembers how many columns of each are padding (`archspec.kernels.padding`). So columns of padding can be put before a
state or, where no row has a token in them, taken away, and nothing that comes after sees a difference.
"""

import torch
from torch import Tensor

from archspec.decoding.layout import Entry, Layout
from archspec.decoding.tree import Held, Tree, leaves, rebuilt, refilled, with_room
from archspec.errors import StateError


def padding(tree: Tree, layout: Layout) -> Tensor | None:
    """How many columns of each row are padding, (B,); None where nothing is."""
    rows = _rows(tree, layout)
    return None if rows is None else rows.get("padding")


def shifted(tree: Tree, layout: Layout, n: int, batch: int) -> Tree:
    """The state with n more columns of padding before every row, or -n fewer.

    Raises StateError where it was filled by a model that takes no mask, and so knows of no padding.
    """
    rows = _rows(tree, layout)
    if rows is None or "seen" not in rows:
        raise StateError(
            f"nothing in this state of {layout.name} can say what is padding: it is empty, or its model takes no mask"
            " (a spec says so under inputs, and archspec.build makes every model that can)"
        )

    def change(held: Held) -> Held:
        entry = layout.entry(held.path)
        if entry.pads:
            return held._replace(tensor=held.tensor + n)
        if held.unused or entry.token_axis is None:
            return refilled(entry, held, lambda x: x)
        return _moved(entry, held, entry.token_axis, n, seen + n)

    seen = rows["seen"]
    made = rebuilt(tree, change, lambda count: count if isinstance(count, bool) else count + n)
    inner = _rows(made, layout)
    if inner is not None and "padding" not in inner:
        inner["padding"] = torch.full((batch,), n, device=next(leaves(tree)).tensor.device)
    return made


def trimmed(tree: Tree, layout: Layout, batch: int) -> Tree:
    """The state without the columns that are padding in every row; no tensor is copied where there are none."""
    found = padding(tree, layout)
    common = 0 if found is None else int(found.min())
    made = shifted(tree, layout, -common, batch) if common else tree
    rows = _rows(made, layout)
    if rows is not None and "padding" in rows and not bool(rows["padding"].any()):
        del rows["padding"]
    return made


def _rows(tree: Tree, layout: Layout) -> Tree | None:
    """The dict in which the model notes how its rows are laid out."""
    found: Tree | None = None if layout.rows is None else tree
    for key in (layout.rows or "").split(".") if layout.rows else ():
        found = None if found is None else found.get(key)
    return found


def _moved(entry: Entry, held: Held, axis: int, n: int, total: int) -> Held:
    """Tokens kept with n more columns of zeros before them, or -n fewer columns; a window holds its last alone."""
    tokens = held.filled(axis)
    limit = entry.kept.limit
    more = (total if limit is None else min(total, limit)) - tokens.shape[axis]
    if more > 0:
        zeros = tokens.new_zeros((*tokens.shape[:axis], more, *tokens.shape[axis + 1 :]))
        tokens = torch.cat((zeros, tokens), dim=axis)
    else:
        tokens = tokens.narrow(axis, -more, tokens.shape[axis] + more).clone()
    if held.span is None:
        return held._replace(tensor=tokens)
    size = held.tensor.shape[axis]
    return held._replace(tensor=with_room(tokens, axis, size), span=(0, tokens.shape[axis]))
