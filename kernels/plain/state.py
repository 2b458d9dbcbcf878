"""Decoding state: a dict, empty at the start of a sequence, with a dict for each layer and tensors at the leaves."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

State = dict[str, Any]


def substate(state: State | None, key: str | int) -> State | None:
    """The state of child `key`, made empty on first use; None stays None."""
    return None if state is None else state.setdefault(str(key), {})


def append(
    state: State | None, keep: int | None = None, mask: Tensor | None = None, **new: Tensor
) -> tuple[Tensor, ...]:
    """All tokens of each name, those of the state and then the new ones: tensors (B, H, T, D) that grow along T."""
    if state is None:
        return tuple(new.values())
    seen = {name: torch.cat((state[name], x), dim=2) if name in state else x for name, x in new.items()}
    if mask is not None:
        seen = {name: close_gap(x, mask) for name, x in seen.items()}
    if keep is None:
        state.update(seen)
    else:
        # The next token sees no more; a copy, as a slice would hold on to all.
        state.update({name: x[:, :, max(x.shape[2] - keep, 0) :].clone() for name, x in seen.items()})
    return tuple(seen.values())


def close_gap(x: Tensor, mask: Tensor) -> Tensor:
    """Tokens kept (B, H, S, D) with the padding of the last T, by mask (B, T), as zeros before all others."""
    S, T = x.shape[2], mask.shape[1]
    column = torch.arange(S, device=x.device)
    gap = (~mask).sum(1, keepdim=True)  # (B, 1)
    source = torch.where(column >= S - T + gap, column, (column - gap) % S)  # (B, S)
    return x.take_along_dim(source[:, None, :, None], dim=2).masked_fill((column < gap)[:, None, :, None], 0)


def advance(state: State | None, n: int) -> int:
    """How many tokens came before this call; the state then counts `n` more."""
    if state is None:
        return 0
    state["seen"] = state.get("seen", 0) + n
    return state["seen"] - n


def once(state: State | None, name: str, make: Callable[[], Any]) -> Any:
    """`make()`, computed at the first call of a sequence and remembered by the state."""
    if state is None:
        return make()
    if name not in state:
        state[name] = make()
    return state[name]
