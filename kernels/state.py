"""Decoding state: a plain dict that a mixer fills on its first call and continues from on the next.

An empty dict means "start of sequence"; None means "no state" (training, or a whole sequence at once). Nested modules
take sub-dicts, so the state of a model is a tree of dicts with tensors, tuples and Python ints at the leaves.

A key belongs to one function of a layer: `substate` begins a call of the layer, and a key that is claimed twice before
the next is refused, since the second would overwrite the first. What a state holds is replaced, never changed in
place, but for the free end of the buffers of `append`: so `atomic` can put a state back by its references alone.
"""

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from archspec.kernels.plain.state import close_gap

State = dict[str, Any]
P = ParamSpec("P")
R = TypeVar("R")

GROWTH = 64  # tokens by which a buffer grows: a copy in so many steps, each of which reads all of it
NOTES = ("masked", "prefix_len")  # whole numbers in a state that do not count its tokens
USED = "used in this call"  # where a sub-dict notes its claimed keys; not a name that a module can have


def substate(state: State | None, key: str | int) -> State | None:
    """The state of child `key` for a new call of it, made empty on first use; None stays None.

    Raises ValueError where the layer that `state` belongs to has used the key in this call.
    """
    if state is None:
        return None
    claim(state, str(key))
    child: State = state.setdefault(str(key), {})
    child[USED] = ()
    return child


def claim(state: State | None, *keys: str) -> None:
    """Take keys for the rest of this call; a dict that is not from `substate` takes part in no call and is not checked.

    Raises ValueError for a key that is taken.
    """
    if state is None or USED not in state:
        return
    for key in keys:
        if key in state[USED]:
            raise ValueError(
                f'state: key "{key}" is used twice in one call; give each user its own substate(state, "name"), '
                "and take that again in every call"
            )
        state[USED] = (*state[USED], key)


def recall(state: State | None, key: str) -> Any:
    """What the last call left under the key, which is claimed; None at the start of a sequence and without a state."""
    claim(state, key)
    return None if state is None else state.get(key)


def capacity(tokens: int, keep: int | None = None) -> int:
    """How many tokens a buffer of `append` has room for after so many tokens, in calls without gradients."""
    needed = -(-tokens // GROWTH) * GROWTH
    return needed if keep is None else min(needed, -(-(keep + GROWTH) // GROWTH) * GROWTH)


def append(
    state: State | None, keep: int | None = None, mask: Tensor | None = None, **new: Tensor
) -> tuple[Tensor, ...]:
    """Append tokens to those the state holds under the same names; return all of them, in the order given.

    Each tensor is (B, H, T, D) and grows along dim 2. With `keep`, only the last `keep` tokens stay for the next call
    (a sliding window of w keys needs keep = w - 1); what is returned still holds every key the new tokens can see.
    mask (B, T) is that of the new tokens, whose padding stands before what is real: it is moved before what is kept.
    Without gradients the tokens are written into a buffer with room for `capacity` tokens, which moves when it is full:
    `state[name]` is the buffer and `state[name + "_span"]` its filled part as (start, end); a buffer that waits under
    `name + "_room"` is the first. With gradients it is exact.

    Raises ValueError for tokens that do not go with those held, by sequences, channels, type or device.
    """
    if state is None:
        return tuple(new.values())
    claim(state, *new)
    return tuple(_append(state, name, tokens, keep, mask) for name, tokens in new.items())


def _append(state: State, name: str, tokens: Tensor, keep: int | None, mask: Tensor | None) -> Tensor:
    """`append` for one tensor."""
    buffer = state[name] if name in state else state.pop(f"{name}_room", None)
    start, end = state.get(f"{name}_span", (0, 0 if buffer is None or name not in state else buffer.shape[2]))
    if buffer is not None:
        _check(name, buffer, tokens)
    n = tokens.shape[2]
    size = max(capacity(end + n, keep), 0 if buffer is None else buffer.shape[2])  # room once asked for is kept
    if torch.is_grad_enabled() or end - start + n > size or (mask is not None and end > start):
        everything = tokens if buffer is None else torch.cat((buffer[:, :, start:end], tokens), dim=2)
        if mask is not None and end > start:
            everything = close_gap(everything, mask)
        kept = everything if keep is None else everything[:, :, max(everything.shape[2] - keep, 0) :]
        state[f"{name}_span"] = (0, kept.shape[2])
        if not torch.is_grad_enabled():
            kept = _with_room(kept, size, 0)
        elif keep is not None:
            kept = kept.clone()
        state[name] = kept
        return everything
    if buffer is None or buffer.shape[2] < end + n or _is_frozen(buffer):
        first = start if end + n <= size else 0  # a window that reaches the end goes on at the front of another buffer
        buffer = _with_room(tokens[:, :, :0] if buffer is None else buffer[:, :, start:end], size, first)
        start, end = first, first + end - start
    buffer[:, :, end : end + n] = tokens
    state[name] = buffer
    state[f"{name}_span"] = (start if keep is None else max(start, end + n - keep), end + n)
    return buffer[:, :, start : end + n]


def _check(name: str, buffer: Tensor, tokens: Tensor) -> None:
    """Refuse tokens of other sequences or another type: to write them into the buffer could be silent."""
    B, H, _, D = buffer.shape
    b, h, _, d = tokens.shape
    if b != B or h != H or d != D or tokens.dtype != buffer.dtype or tokens.device != buffer.device:
        held, given = (f"{(*x.shape[:2], '...', *x.shape[3:])} of {x.dtype} on {x.device}" for x in (buffer, tokens))
        raise ValueError(
            f"state: {name!r} holds {held}, and this call gives {given}: go on with the sequences, model, type and"
            " device that the state began with, or start with an empty one"
        )


def _is_frozen(buffer: Tensor) -> bool:
    """Whether it was made in inference mode and that mode was left; a compiler cannot ask."""
    if torch.compiler.is_compiling():
        return False
    return buffer.is_inference() and not torch.is_inference_mode_enabled()


def _with_room(tokens: Tensor, size: int, start: int) -> Tensor:
    """A buffer of `size` tokens that holds these from `start` on."""
    buffer = tokens.new_empty(*tokens.shape[:2], size, tokens.shape[3])
    buffer[:, :, start : start + tokens.shape[2]] = tokens
    return buffer


def advance(state: State | None, n: int) -> int:
    """How many tokens came before this call (0 without a state); the state then counts `n` more."""
    start: int = recall(state, "seen") or 0
    if state is not None:
        state["seen"] = start + n
    return start


def once(state: State | None, name: str, make: Callable[[], Any]) -> Any:
    """`make()`, computed at the first call of a sequence and remembered by the state (a projected memory)."""
    if state is None:
        return make()
    claim(state, name)
    if name not in state and (made := make()) is not None:
        state[name] = made
    return state.get(name)


def atomic(forward: Callable[P, R]) -> Callable[P, R]:
    """A model's `forward` that leaves its argument `state` as it was, the same dicts, when it raises anything.

    A state that has a method `expect` is asked first whether it goes with the arguments (`archspec.decoding`). What is
    compiled or exported runs as it is. Raises TypeError for a function that takes no `state`.
    """
    kinds = {name: p.kind for name, p in signature(forward).parameters.items()}
    if "state" not in kinds and Parameter.VAR_KEYWORD not in kinds.values():
        raise TypeError(f"{forward.__qualname__} takes no state")
    by_place = kinds.get("state") is Parameter.POSITIONAL_OR_KEYWORD
    place = list(kinds).index("state") if by_place else None

    @wraps(forward)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        by_order = args if place is None else args[place : place + 1]
        state = next((x for x in (*by_order, kwargs.get("state")) if isinstance(x, dict)), None)
        _check_state(kwargs.get("state") if place is None else next(iter(by_order), kwargs.get("state")))
        if state is None or torch.compiler.is_compiling():
            return forward(*args, **kwargs)
        if hasattr(state, "expect"):
            state.expect(*args, **kwargs)
        before = _contents(state)
        try:
            return forward(*args, **kwargs)
        except BaseException:
            for held, contents in before:
                held.clear()
                held.update(contents)
            raise

    return run


def _check_state(given: Any) -> None:
    if given is not None and not isinstance(given, dict):
        raise TypeError(
            f"state: expected a dict, empty at the start of a sequence (archspec.new_state makes one), found a"
            f" {type(given).__name__}"
        )


def _contents(state: State) -> list[tuple[State, State]]:
    """Each dict of a tree with a copy of it, which refers to the same values."""
    found = [(state, dict(state))]
    for value in state.values():
        found += _contents(value) if isinstance(value, dict) else []
    return found
