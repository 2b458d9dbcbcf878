"""Padded and packed batches: rows of different lengths in one tensor, and several documents in one row.

A mask (B, T) is True for real tokens. Where layers go by the order in which tokens stand (causal attention,
recurrences, convolutions), `align` moves the real tokens of each row to its end, in their order. Then padding is on the
left, whichever end it was given at: a causal layer need only see to it that padding changes no state and is no key, and
a state ends in the same column for every row, so that the next tokens go on from there. `restore` puts outputs where
the caller's tokens stood; what stands at padding means nothing.

While decoding, the padding of earlier calls is remembered as one number a row (`padding` of the state): kept keys are
moved together with the new ones (`append` of `kernels.state`), so that they too are padded on the left alone.

Packed documents are runs of one number in a row of `documents` (B, T), or `cu_seqlens` (N + 1,), the cumulative lengths
of the documents in one row. Attention is told their numbers; for layers that cannot be told, `by_document` lays the
documents out as rows of their own (`rows_of`), which is done once for a model.

What checks nothing and claims no key of a state stands in `kernels.plain.padding` alone.
"""

import torch
from torch import Tensor

from archspec.kernels.inputs import is_known, require_tensor
from archspec.kernels.plain.padding import (
    Rows,
    by_document,
    count_real,
    given_or,
    hide,
    reorder,
    restore,
    rows_of,
    separate,
)
from archspec.kernels.state import State, advance, recall

__all__ = [
    "Rows",
    "align",
    "as_documents",
    "as_mask",
    "as_mask_at_ends",
    "as_positions",
    "by_document",
    "count_real",
    "given_or",
    "hide",
    "of_one_document",
    "reorder",
    "restore",
    "rows_of",
    "separate",
]


# What is given


def as_mask(mask: Tensor | None, x: Tensor) -> Tensor | None:
    """The mask as booleans.

    Raises:
        TypeError: it is no mask of booleans, or of zeros and ones.
        ValueError: its shape is not that of the tokens x (B, T, ...).
    """
    return _booleans("mask", mask, x, "real tokens", "padding")


def as_global_mask(global_mask: Tensor | None, x: Tensor) -> Tensor | None:
    """Which tokens see all and are seen by all, as booleans; raises as `as_mask` does."""
    return _booleans("global_mask", global_mask, x, "global tokens", "others")


def _booleans(name: str, mask: Tensor | None, x: Tensor, ones: str, zeros: str) -> Tensor | None:
    """A mask (B, T) as booleans."""
    if mask is None:
        return None
    _fits(name, mask, x)
    if mask.is_floating_point() or mask.is_complex():
        raise TypeError(f"{name} is {mask.dtype}, expected torch.bool with True for {ones}")
    if mask.dtype != torch.bool and is_known(mask) and bool(((mask != 0) & (mask != 1)).any()):
        raise ValueError(f"{name} holds other numbers than 0 and 1, expected 1 for {ones} and 0 for {zeros}")
    return mask.bool()


def as_mask_at_ends(mask: Tensor | None, x: Tensor) -> Tensor | None:
    """`as_mask` for layers that go by the distance of columns: padding must stand at the ends of each row.

    Raises ValueError for padding between real tokens; not while compiling, where the values of a mask are not known.
    """
    mask = as_mask(mask, x)
    if mask is None or not is_known(mask):
        return mask
    runs = mask[:, :1].sum(1) + (mask[:, 1:] & ~mask[:, :-1]).sum(1)
    if bool((runs > 1).any()):
        raise ValueError("mask has padding between real tokens, and this model takes it at the ends of a row alone")
    return mask


def as_positions(positions: Tensor | None, x: Tensor, state: State | None = None) -> Tensor | None:
    """The positions; a sequence that was begun with them goes on with them.

    Raises:
        TypeError: they are no numbers.
        ValueError: their shape is not that of the tokens, or calls before this one had some and it has none, or the
            other way round.
    """
    if positions is not None:
        _fits("positions", positions, x)
        if positions.dtype == torch.bool or positions.is_complex():
            raise TypeError(f"positions are {positions.dtype}, expected numbers")
        positions = positions if positions.is_floating_point() else positions.long()  # small types wrap around
    if state is not None:
        before = state.setdefault("placed", positions is not None)
        if before and positions is None:
            raise ValueError("the earlier tokens of this state were given positions; give these theirs too")
        if not before and positions is not None:
            raise ValueError("the earlier tokens of this state were given no positions; give these none either")
    return positions


def as_documents(documents: Tensor | None, x: Tensor, state: State | None = None) -> Tensor | None:
    """The numbers of documents, (B, T); cumulative lengths become numbers.

    Raises:
        TypeError: they are no whole numbers.
        ValueError: their shape is not that of the tokens, or there is a state, which has one sequence a row.
    """
    if documents is None:
        return None
    if state is not None:
        raise ValueError("documents are packed in rows, and a state goes on with one sequence a row; give either")
    require_tensor("documents", documents, "(B, T), or cu_seqlens (N + 1,)")
    if documents.is_floating_point() or documents.is_complex() or documents.dtype == torch.bool:
        raise TypeError(f"documents are {documents.dtype}, expected whole numbers")
    documents = documents.long()  # small types wrap around
    if documents.dim() == 1:
        _is_beside("documents", documents, x)
        T = x.shape[1]
        if (
            x.shape[0] != 1
            or not len(documents)
            or int(documents[0]) != 0
            or int(documents[-1]) != T
            or bool((documents.diff() < 0).any())
        ):
            raise ValueError(
                f"cu_seqlens must rise from 0 to T = {T} in a batch of one row; found {documents.tolist()}"
            )
        return torch.searchsorted(documents[1:], torch.arange(T, device=x.device), right=True).unsqueeze(0)
    _fits("documents", documents, x)
    return documents


def _fits(name: str, given: Tensor, x: Tensor) -> None:
    require_tensor(name, given, "(B, T)")
    _is_beside(name, given, x)
    if given.shape != x.shape[:2]:
        raise ValueError(f"{name} has shape {tuple(given.shape)}, expected {tuple(x.shape[:2])} like the tokens")


def _is_beside(name: str, given: Tensor, x: Tensor) -> None:
    """Refuse what is on another device than x, or an x that has no tokens."""
    _has_tokens(x)
    if given.device != x.device:
        raise ValueError(f"{name} is on {given.device}, expected {x.device}, where the tokens are")


def _has_tokens(x: Tensor) -> None:
    """Refuse what is no input of a model at all; its embedding asks for more."""
    require_tensor("the input", x, "(B, T, ...)")
    if x.dim() < 2:
        raise ValueError(f"the input: expected the shape (B, T, ...), found {tuple(x.shape)}")


# Padding


def align(
    mask: Tensor | None, x: Tensor, state: State | None = None
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """How the tokens x (B, T, ...) are laid out so that every row ends in its last real one.

    Returns the order (B, T) for `reorder`, the mask (B, T) in that order, a mask (B, S) of all tokens so far as their
    keys are kept, and positions (B, T); each None where it says nothing.
    """
    _has_tokens(x)
    T = x.shape[1]
    start = advance(state, T)
    padding, order = recall(state, "padding"), None  # padding is (B,)
    if mask is not None:
        order = mask.byte().argsort(dim=1, stable=True)
        mask = mask.gather(1, order)
        padding = (~mask).sum(1) if padding is None else padding + (~mask).sum(1)
        if state is not None:
            state["padding"] = padding
            state["masked"] = start + T  # up to there rows were moved, and cannot be cut apart again
    if padding is None:
        return None, None, None, None
    column = torch.arange(start + T, device=x.device)
    positions = (column[start:] - padding.unsqueeze(1)).clamp(min=0)
    return order, mask, column >= padding.unsqueeze(1), positions


# Documents


def of_one_document(ids: Tensor | None, memory_ids: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """What is added to scores of tokens with ids (B, T) on a memory with ids (B, M): -inf for another document."""
    if (ids is None) != (memory_ids is None):
        raise ValueError(
            "documents are given for one of two stacks; the other reads or gives a memory, so give it its own"
        )
    if ids is None or memory_ids is None:
        return None
    same = ids.unsqueeze(2) == memory_ids.unsqueeze(1)
    return torch.zeros(same.shape, dtype=dtype, device=ids.device).masked_fill(~same, -torch.inf).unsqueeze(1)
