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
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.state import State, advance, recall


class Rows(NamedTuple):
    """Where N documents of at most L tokens stand when each has a row of its own.

    Attributes:
        index: (N, L) places among the B * T tokens of the batch; 0 where `mask` is False.
        mask: (N, L), True for real tokens, which stand at the end of each row.
    """

    index: Tensor
    mask: Tensor


# What is given


def checked_mask(mask: Tensor | None, x: Tensor) -> Tensor | None:
    """The mask as booleans.

    Raises:
        TypeError: it is no mask of booleans, or of zeros and ones.
        ValueError: its shape is not that of the tokens x (B, T, ...).
    """
    if mask is None:
        return None
    _fits("mask", mask, x)
    if mask.is_floating_point() or mask.is_complex():
        raise TypeError(f"mask is {mask.dtype}, expected torch.bool with True for real tokens")
    known = mask.dtype == torch.bool or torch.compiler.is_compiling()
    if not known and bool(((mask != 0) & (mask != 1)).any()):
        raise ValueError("mask holds other numbers than 0 and 1, expected 1 for real tokens and 0 for padding")
    return mask.bool()


def checked_ends(mask: Tensor | None, x: Tensor) -> Tensor | None:
    """`checked_mask` for layers that go by the distance of columns: padding must stand at the ends of each row.

    Raises ValueError for padding between real tokens; not while compiling, where the values of a mask are not known.
    """
    mask = checked_mask(mask, x)
    if mask is None or torch.compiler.is_compiling():
        return mask
    runs = mask[:, :1].sum(1) + (mask[:, 1:] & ~mask[:, :-1]).sum(1)
    if bool((runs > 1).any()):
        raise ValueError("mask has padding between real tokens, and this model takes it at the ends of a row alone")
    return mask


def checked_positions(positions: Tensor | None, x: Tensor, state: State | None = None) -> Tensor | None:
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
    if state is not None:
        before = state.setdefault("placed", positions is not None)
        if before and positions is None:
            raise ValueError("the earlier tokens of this state were given positions; give these theirs too")
        if not before and positions is not None:
            raise ValueError("the earlier tokens of this state were given no positions; give these none either")
    return positions


def checked_documents(documents: Tensor | None, x: Tensor, state: State | None = None) -> Tensor | None:
    """The numbers of documents, (B, T); cumulative lengths become numbers.

    Raises:
        TypeError: they are no whole numbers.
        ValueError: their shape is not that of the tokens, or there is a state, which has one sequence a row.
    """
    if documents is None:
        return None
    if state is not None:
        raise ValueError("documents are packed in rows, and a state goes on with one sequence a row; give either")
    if documents.is_floating_point() or documents.dtype == torch.bool:
        raise TypeError(f"documents are {documents.dtype}, expected whole numbers")
    if documents.dim() == 1:
        T = x.shape[1]
        if x.shape[0] != 1 or int(documents[0]) != 0 or int(documents[-1]) != T or bool((documents.diff() < 0).any()):
            raise ValueError(
                f"cu_seqlens must rise from 0 to T = {T} in a batch of one row; found {documents.tolist()}"
            )
        return torch.searchsorted(documents[1:], torch.arange(T, device=x.device), right=True).unsqueeze(0)
    _fits("documents", documents, x)
    return documents


def _fits(name: str, given: Tensor, x: Tensor) -> None:
    if given.shape != x.shape[:2]:
        raise ValueError(f"{name} has shape {tuple(given.shape)}, expected {tuple(x.shape[:2])} like the tokens")


# Padding


def align(
    mask: Tensor | None, x: Tensor, state: State | None = None
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """How the tokens x (B, T, ...) are laid out so that every row ends in its last real one.

    Returns the order (B, T) for `reorder`, the mask (B, T) in that order, a mask (B, S) of all tokens so far as their
    keys are kept, and positions (B, T); each None where it says nothing.
    """
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


def reorder(x: Tensor | None, order: Tensor | None) -> Tensor | None:
    """x (B, T, ...) with its tokens in another order (B, T)."""
    if x is None or order is None:
        return x
    return x.gather(1, order.view(*order.shape, *(1,) * (x.dim() - 2)).expand_as(x))


def restore(x: Tensor, order: Tensor | None) -> Tensor:
    """x (B, T, ...) with its tokens where they stood before `reorder`."""
    if order is None:
        return x
    return reorder(x, order.argsort(dim=1))


def count_real(mask: Tensor | None) -> Tensor | None:
    """The position (B, T) of each real token among those of its row."""
    return None if mask is None else (mask.cumsum(dim=1) - 1).clamp(min=0)


def given_or(given: Tensor | None, counted: Tensor | None, mask: Tensor | None) -> Tensor | None:
    """Positions (B, T) that were given, 0 at padding, or else those that were counted."""
    return counted if given is None else hide(given, mask)


def hide(x: Tensor, mask: Tensor | None) -> Tensor:
    """x (B, T, ...) with zeros for padding."""
    return x if mask is None else x.masked_fill(~mask.view(*mask.shape, *(1,) * (x.dim() - 2)), 0)


# Documents


def separate(
    documents: Tensor | None, x: Tensor, order: Tensor | None, mask: Tensor | None, positions: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """The documents (B, T) numbered from 0 in each row, and the position of each token in its own.

    order and mask are those of `align`, positions those that are counted where there are no documents. Tokens of one
    number are one document where no other number stands between them, at padding or not.
    """
    if documents is None:
        return None, positions
    changes = documents[:, 1:] != documents[:, :-1]
    documents = reorder(F.pad(changes.cumsum(dim=1), (1, 0))[:, : documents.shape[1]], order)
    real = torch.ones_like(documents) if mask is None else mask.long()
    before = real.cumsum(dim=1) - real  # real tokens before this one
    begins = F.pad(documents[:, 1:] != documents[:, :-1], (1, 0), value=True)[:, : documents.shape[1]]
    first = torch.where(begins, before, 0).cummax(dim=1).values
    return documents, before - first


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


def rows_of(documents: Tensor | None, mask: Tensor | None) -> Rows | None:
    """Documents (B, T), as `separate` numbers them, in rows of their own; padding by mask (B, T) is in none."""
    if documents is None:
        return None
    B, T = documents.shape
    numbers = (documents + T * torch.arange(B, device=documents.device).unsqueeze(1)).flatten()
    real = torch.arange(B * T, device=documents.device) if mask is None else mask.flatten().nonzero().squeeze(1)
    lengths = numbers[real].unique_consecutive(return_counts=True)[1]  # (N,)
    L = int(lengths.max()) if len(lengths) else 0
    within = torch.arange(L, device=documents.device) >= L - lengths.unsqueeze(1)  # (N, L)
    index = real.new_zeros(within.shape)
    index[within] = real
    return Rows(index, within)


def by_document(layer: Callable[..., Tensor], x: Tensor, rows: Rows | None, **given: Any) -> Tensor:
    """`layer` on x (B, T, D), or on each document of it by itself; `given` is what it takes beside x."""
    if rows is None:
        return layer(x, **given)
    own = dict.fromkeys(("mask", "key_mask"), rows.mask)
    if given.get("positions") is not None:
        own["positions"] = hide(given["positions"].flatten()[rows.index], rows.mask)
    y = layer(x.flatten(0, 1)[rows.index], **given | {name: own[name] for name in own.keys() & given.keys()})
    flat = y.new_zeros(x.shape[0] * x.shape[1], *y.shape[2:])
    return flat.index_put((rows.index[rows.mask],), y[rows.mask]).view(*x.shape[:2], *y.shape[2:])
