"""The header of a state in a file: what `State.save` says beside the tensors, checked where it is read."""

import json
from typing import Any, NamedTuple

import torch

from archspec.decoding.given import MOST
from archspec.decoding.layout import Layout
from archspec.errors import StateError


class Header(NamedTuple):
    """What a file says of its state.

    Attributes:
        batch: the number of sequences.
        dtype: that of the model; None where nobody said so.
        max_len: the number of tokens for which there is room from the start; None where it grows.
        tree: the dicts of the state, with what stands for a tensor at the leaves (`outline` of `decoding.file`).
        orders: the axes of each tensor in the order in which it lies in memory.
    """

    batch: int
    dtype: torch.dtype | None
    max_len: int | None
    tree: dict[str, Any]
    orders: dict[str, list[int]]


def read_header(text: str, file: str, layout: Layout) -> Header:
    """The header in a file.

    Raises StateError for one of another spec, or that `State.save` does not write.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise StateError(f"{file}: the file is damaged: its header is no JSON object")
    if found.get("digest") != layout.digest:
        raise StateError(
            f"{file}: expected a state of {layout.name} (hash {layout.digest}), found one of {found.get('spec')}"
            f" (hash {found.get('digest')})"
        )
    kind = found.get("dtype")
    dtype = getattr(torch, kind, None) if isinstance(kind, str) else None
    batch, max_len, tree, orders = (found.get(key) for key in ("batch", "max_len", "tree", "orders"))
    right = {
        "batch": _is_size(batch),
        "max_len": max_len is None or _is_size(max_len),
        "dtype": kind is None or (isinstance(dtype, torch.dtype) and dtype.is_floating_point),
        "tree": _is_outline(tree),
        "orders": isinstance(orders, dict) and all(map(_is_list_of_whole_numbers, orders.values())),
    }
    if wrong := [key for key, is_right in right.items() if not is_right]:
        raise StateError(f"{file}: the file is damaged: its header does not say its {wrong[0]} as State.save does")
    assert isinstance(batch, int)
    assert isinstance(tree, dict)
    assert isinstance(orders, dict)
    return Header(batch, dtype, max_len, tree, orders)


def _is_size(found: Any) -> bool:
    return type(found) is int and 0 < found <= MOST


def _is_outline(found: Any) -> bool:
    """Whether it is made of dicts, whole numbers, nulls, lists of nulls, and [start, end, room] of buffers."""
    return isinstance(found, dict) and all(map(_is_leaf, found.values()))


def _is_leaf(found: Any) -> bool:
    if isinstance(found, list):
        is_buffer = len(found) == 3 and _is_list_of_whole_numbers(found) and found[0] <= found[1] <= found[2] <= MOST
        return is_buffer or (bool(found) and found.count(None) == len(found))
    return found is None or isinstance(found, int) or _is_outline(found)


def _is_list_of_whole_numbers(found: Any) -> bool:
    return isinstance(found, list) and all(type(n) is int and n >= 0 for n in found)
