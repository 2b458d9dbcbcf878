"""Decoding state: a plain dict that a mixer fills on its first call and continues from on the next.

An empty dict means "start of sequence"; None means "no state" (training, or a whole sequence at once). Nested modules
take sub-dicts, so the state of a model is a tree of dicts with tensors and Python ints at the leaves.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

State = dict[str, Any]


def substate(state: State | None, key: str | int) -> State | None:
    """The state of child `key`, made empty on first use; None stays None."""
    return None if state is None else state.setdefault(str(key), {})


def append(state: State | None, keep: int | None = None, **new: Tensor) -> tuple[Tensor, ...]:
    """Append tokens to those the state holds under the same names; return all of them, in the order given.

    Each tensor is (B, H, T, D) and grows along dim 2. With `keep`, only the last `keep` tokens stay for the next call
    (a sliding window of w keys needs keep = w - 1); what is returned still holds every key the new tokens can see.
    Without gradients the tokens are written into buffers that double when full, so that a decoding step copies O(1)
    tokens on average: `state[name]` is the buffer and `state[name + "_span"]` its filled part as (start, end).
    """
    if state is None:
        return tuple(new.values())
    return tuple(_append(state, name, tokens, keep) for name, tokens in new.items())


def _append(state: State, name: str, tokens: Tensor, keep: int | None) -> Tensor:
    """`append` for one tensor."""
    buffer = state.get(name)
    start, end = state.get(f"{name}_span", (0, 0))
    many = keep is not None and tokens.shape[2] > keep  # a buffer for all of them would outlive its use
    if torch.is_grad_enabled() or many:
        past = () if buffer is None else (buffer[:, :, start:end],)
        everything = torch.cat((*past, tokens), dim=2) if past else tokens
        kept = everything if keep is None else everything[:, :, max(everything.shape[2] - keep, 0) :].clone()
        state[name], state[f"{name}_span"] = kept, (0, kept.shape[2])
        return everything
    buffer, start, end = _write(buffer, start, end, tokens)
    first = start if keep is None else max(start, end - keep)
    state[name], state[f"{name}_span"] = buffer, (first, end)
    return buffer[:, :, start:end]


def _write(buffer: Tensor | None, start: int, end: int, tokens: Tensor) -> tuple[Tensor, int, int]:
    """Write tokens after `end`, moving to a buffer of twice the filled length when there is no room."""
    n = tokens.shape[2]
    frozen = buffer is not None and buffer.is_inference() and not torch.is_inference_mode_enabled()
    if buffer is None or frozen or end + n > buffer.shape[2]:
        length = end - start
        roomy = tokens.new_empty(*tokens.shape[:2], max(2 * (length + n), 16), tokens.shape[3])
        if buffer is not None:
            roomy[:, :, :length] = buffer[:, :, start:end]
        buffer, start, end = roomy, 0, length
    buffer[:, :, end : end + n] = tokens
    return buffer, start, end + n


def advance(state: State | None, n: int) -> int:
    """How many tokens came before this call (0 without a state); the state then counts `n` more."""
    if state is None:
        return 0
    start: int = state.get("seen", 0)
    state["seen"] = start + n
    return start


def once(state: State | None, name: str, make: Callable[[], Any]) -> Any:
    """`make()`, computed at the first call of a sequence and remembered by the state (a projected memory)."""
    if state is None:
        return make()
    if name not in state:
        state[name] = make()
    return state[name]
