"""Dicts of dicts with tensors at the leaves, as models fill them: each tensor with its filled part, and all changed.

`append` of `archspec.kernels.state` writes into buffers with room for more: beside the buffer `k` stands `k_span`, the
(start, end) of the tokens in it, and before the first token `k_room` holds a buffer that was asked for in advance.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from archspec.decoding.given import MOST
from archspec.decoding.layout import Entry
from archspec.errors import StateError
from archspec.kernels.state import NOTES, USED

Tree = dict[str, Any]
Span = tuple[int, int]
SPAN, ROOM = "_span", "_room"
COUNTS = ("seen", *NOTES)  # what stands for numbers of tokens


class Held(NamedTuple):
    """A tensor in a state: its path, and the part that is filled, where it is a buffer.

    `unused` says that it is a buffer that waits for its first token; the path is that of the tensor which it is for.
    """

    path: str
    tensor: Tensor
    span: Span | None = None
    unused: bool = False

    def filled(self, axis: int | None) -> Tensor:
        """The filled part; `axis` is that of the tokens."""
        if self.span is None or axis is None:
            return self.tensor
        return self.tensor.narrow(axis, self.span[0], self.span[1] - self.span[0])


Change = Callable[[Held], Held | None]


def check_tree(tree: Any, path: str = "") -> None:
    """Refuse what no model leaves in a state: other keys than names, other values, spans beyond their buffers."""
    if not isinstance(tree, dict):
        raise StateError(f"expected a dict that a model has filled, found a {type(tree).__name__}")
    for key, value in tree.items():
        if not isinstance(key, str):
            raise StateError(
                f"the state has the key {key!r} under {path or 'its top'}, and the keys of models are names"
            )
        if key in COUNTS and not (isinstance(value, int) and 0 <= value <= MOST):
            raise StateError(f"{path}{key} is {value!r}, expected a number of tokens")
        if isinstance(value, dict):
            check_tree(value, f"{path}{key}.")
        elif key.endswith(SPAN):
            _check_span(value, tree.get(key.removesuffix(SPAN)), f"{path}{key}")
        elif not (value is None or isinstance(value, int | Tensor | tuple)):
            raise StateError(f"the state holds a {type(value).__name__} under {path}{key}, which no model leaves there")


def _check_span(span: Any, buffer: Any, path: str) -> None:
    """Refuse what are not the first and last place that is filled of a buffer (B, H, S, D)."""
    room = buffer.shape[2] if isinstance(buffer, Tensor) and buffer.dim() == 4 else -1
    ends = span if isinstance(span, tuple) and len(span) == 2 and all(type(n) is int for n in span) else (1, 0)
    if not 0 <= ends[0] <= ends[1] <= room:
        raise StateError(
            f"{path} is {span!r}, expected (start, end) within the tokens of a tensor (B, H, S, D) beside it"
        )


def leaves(tree: Tree, path: str = "") -> Iterator[Held]:
    """Every tensor of a state, in the order in which the model made them."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{key}.")
        elif isinstance(value, Tensor):
            yield _held(tree, key, value, path)
        elif isinstance(value, tuple) and any(isinstance(x, Tensor) for x in value):
            yield from (Held(f"{path}{key}.{i}", x) for i, x in enumerate(value))


def counters(tree: Tree) -> Iterator[int]:
    """Every number of tokens that `advance` has counted."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from counters(value)
        elif isinstance(value, int) and not isinstance(value, bool) and key not in NOTES:
            yield value


def noted(tree: Tree, note: str) -> int:
    """The largest number that is noted under a name anywhere in a state; 0 where there is none."""
    own = tree.get(note, 0)
    return max([own if isinstance(own, int) else 0, *(noted(v, note) for v in tree.values() if isinstance(v, dict))])


def flags(tree: Tree, path: str = "") -> Iterator[str]:
    """The paths of what is noted as true."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flags(value, f"{path}{key}.")
        elif value is True:
            yield f"{path}{key}"


def _held(tree: Tree, key: str, tensor: Tensor, path: str) -> Held:
    if key.endswith(ROOM):
        return Held(f"{path}{key.removesuffix(ROOM)}", tensor, (0, 0), True)
    return Held(f"{path}{key}", tensor, tree.get(f"{key}{SPAN}"))


def rebuilt(tree: Tree, change: Change, count: Callable[[int], int] = lambda n: n, path: str = "") -> Tree:
    """A state of other tensors at the same places, in new dicts: each tensor changed, each number and flag by `count`.

    A tensor that `change` makes None of is left out.
    """
    made: Tree = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            made[key] = rebuilt(value, change, count, f"{path}{key}.")
        elif isinstance(value, Tensor):
            held = change(_held(tree, key, value, path))
            if held is None:
                continue
            made[key] = held.tensor
            if held.span is not None and not held.unused:
                made[f"{key}{SPAN}"] = held.span
        elif isinstance(value, tuple) and any(isinstance(x, Tensor) for x in value):
            parts = [change(Held(f"{path}{key}.{i}", x)) for i, x in enumerate(value)]
            made[key] = tuple(held.tensor for held in parts if held is not None)
        elif isinstance(value, int):
            made[key] = value if key in NOTES else count(value)
        elif value is not None and not key.endswith(SPAN) and key != USED:  # plain files note None for no mask
            raise StateError(f"the state holds a {type(value).__name__} under {path}{key}, which no model leaves there")
    return made


def refilled(entry: Entry, held: Held, change: Callable[[Tensor], Tensor]) -> Held:
    """A tensor whose filled part is changed, never the same tensor; a buffer stays one of as much room."""
    axis = entry.token_axis
    filled = held.filled(axis)
    new = change(filled)
    if held.span is None or axis is None:
        return held._replace(tensor=new.clone() if new is held.tensor else new)
    start = held.span[0]
    return held._replace(
        tensor=with_room(new, axis, held.tensor.shape[axis], start), span=(start, start + new.shape[axis])
    )


def with_room(tokens: Tensor, axis: int, size: int, start: int = 0) -> Tensor:
    """A buffer of `size` tokens along an axis that holds these from `start` on."""
    shape = list(tokens.shape)
    shape[axis] = max(size, start + tokens.shape[axis])
    buffer = torch.empty(shape, dtype=tokens.dtype, device=tokens.device)
    buffer.narrow(axis, start, tokens.shape[axis]).copy_(tokens)
    return buffer
