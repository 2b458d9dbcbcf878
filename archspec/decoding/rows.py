"""The sequences of a state: others in another order, several times, fewer of them, or those of several states."""

from collections.abc import Sequence

import torch
from torch import Tensor

from archspec.decoding.layout import Layout
from archspec.decoding.tree import Held, Tree, flags, leaves, rebuilt, refilled, with_room
from archspec.errors import StateError


def numbers(given: Sequence[int] | Tensor, batch: int) -> Tensor:
    """Numbers of sequences as a tensor (n,), checked.

    Raises StateError where they are not whole numbers from 0 to batch - 1, at least one.
    """
    right = "expected a list or tensor (n,) of whole numbers of sequences"
    try:
        found = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError):  # PyTorch says each case in another way
        raise StateError(f"{right}, found {given!r}") from None
    odd = found.is_floating_point() or found.is_complex() or found.dtype == torch.bool
    if found.dim() != 1 or not found.numel() or odd or found.is_meta:
        where = " on meta, which has no values" if found.is_meta else ""
        raise StateError(f"{right}, found a tensor of {found.dtype} with shape {tuple(found.shape)}{where}")
    found = found.long()
    low, high = int(found.min()), int(found.max())
    if low < 0 or high >= batch:
        raise StateError(f"expected numbers of sequences from 0 to {batch - 1}, found {low if low < 0 else high}")
    return found


def picked(tree: Tree, layout: Layout, rows: Tensor) -> Tree:
    """The state of these sequences, in this order; what serves all of them is copied."""

    def change(held: Held) -> Held:
        entry = layout.entry(held.path)
        axis = entry.batch_axis
        if axis is None:
            return refilled(entry, held, lambda x: x)
        return refilled(entry, held, lambda x: x.index_select(axis, rows.to(x.device)))

    return rebuilt(tree, change)


def joined(trees: Sequence[Tree], layout: Layout) -> Tree:
    """The sequences of several states of one length, one after another."""
    noted = [set(flags(tree)) for tree in trees]
    if odd := sorted(flag for flag in set().union(*noted) if not all(flag in each for each in noted)):
        raise StateError(f"{odd[0]} holds of some of the states alone: tokens of all or of none are given positions")
    others = [{(held.path, held.unused): held for held in leaves(tree)} for tree in trees]
    paths = {path for found in others for path, unused in found if not unused}

    def change(held: Held) -> Held | None:
        if held.unused and held.path in paths:
            return None
        found = [each[held.path, held.unused] for each in others if (held.path, held.unused) in each]
        if len(found) < len(others):
            raise StateError(f"only {len(found)} of the {len(others)} states hold {held.path}: fill the others first")
        return _beside(held, found, layout)

    return rebuilt(trees[0], change)


def _beside(held: Held, parts: Sequence[Held], layout: Layout) -> Held:
    """One tensor of all states, in a buffer with the most room of theirs."""
    entry = layout.entry(held.path)
    axis = entry.batch_axis
    if axis is None:
        return refilled(entry, held, lambda x: x)
    filled = [part.filled(entry.token_axis) for part in parts]
    shapes = {(*x.shape[:axis], *x.shape[axis + 1 :]) for x in filled}
    if len(shapes) > 1:
        found = ", ".join(str(tuple(x.shape)) for x in filled)
        raise StateError(f"{entry.layer}: states whose {held.path} have the shapes {found} cannot be joined")
    if len({(x.dtype, x.device) for x in filled}) > 1:
        found = ", ".join(f"{x.dtype} on {x.device}" for x in filled)
        raise StateError(f"{entry.layer}: {held.path} is {found}; bring all states to one with to(device, dtype)")
    whole = torch.cat(filled, dim=axis)
    if held.span is None or entry.token_axis is None:
        return held._replace(tensor=whole)
    n = whole.shape[entry.token_axis]
    size = max(part.tensor.shape[entry.token_axis] for part in parts)
    return held._replace(tensor=with_room(whole, entry.token_axis, size), span=(0, n))
