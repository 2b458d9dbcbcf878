"""Padded and packed batches: rows of different lengths in one tensor, and several documents in one row.

Real tokens are moved to the end of their rows before the layers run, and outputs back to where the tokens stood.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.plain.state import State, advance


class Rows(NamedTuple):
    """Where N documents of at most L tokens stand when each has a row of its own.

    Attributes:
        index: (N, L) places among the B * T tokens of the batch; 0 where `mask` is False.
        mask: (N, L), True for real tokens, which stand at the end of each row.
    """

    index: Tensor
    mask: Tensor


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
    padding, order = None if state is None else state.get("padding"), None  # padding is (B,)
    if mask is not None:
        order = mask.byte().argsort(dim=1, stable=True)
        mask = mask.gather(1, order)
        padding = (~mask).sum(1) if padding is None else padding + (~mask).sum(1)
        if state is not None:
            state["padding"] = padding
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
