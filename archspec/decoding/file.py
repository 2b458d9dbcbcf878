"""A state as a file of safetensors: the filled parts of its tensors, and a header that says where they go."""

import json
import os
import zlib
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from archspec.decoding.layout import Layout
from archspec.decoding.tree import SPAN, Tree, leaves, with_room
from archspec.errors import StateError
from archspec.kernels.state import USED

FORMAT = "archspec.state 1"
Tensors = dict[str, Tensor]


def write(path: str | PathLike[str], tree: Tree, layout: Layout, about: dict[str, Any]) -> None:
    """Write a state beside the file and put it in its place when it is whole.

    Args:
        path: of the file.
        tree: the state.
        layout: that of its spec.
        about: what else `read` is to give back, as JSON has it.

    Raises:
        ImportError: safetensors is not installed.
    """
    from safetensors.torch import save_file

    tensors, orders = {}, {}
    for held in leaves(tree):
        if not held.unused:
            orders[held.path], tensors[held.path] = _dense(held.filled(layout.entry(held.path).token_axis))
    header = {"spec": layout.name, "digest": layout.digest, **about, "tree": _outline(tree, layout), "orders": orders}
    text = json.dumps(header)
    metadata = {"format": FORMAT, "state": text, "checksum": _checksum(text, tensors)}
    target = Path(path)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        save_file(tensors, part, metadata)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def read(path: str | PathLike[str], layout: Layout, device: torch.device) -> tuple[Tree, dict[str, Any]]:
    """The state in a file of that layout, on a device, and what else was written.

    Raises:
        ImportError: safetensors is not installed.
        OSError: the file cannot be read.
        StateError: it is no such file, damaged, or of another spec.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise StateError(f"{path}: expected a state that State.save wrote, found another file of safetensors")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise StateError(f"{path}: the file is damaged, or none of safetensors: {error}") from error
    text = metadata.get("state", "")
    if _checksum(text, tensors) != metadata.get("checksum"):
        raise StateError(f"{path}: the file is damaged: its checksum is not that of its contents")
    header = json.loads(text)
    if header["digest"] != layout.digest:
        raise StateError(
            f"{path}: expected a state of {layout.name} (hash {layout.digest}), found one of {header['spec']}"
            f" (hash {header['digest']})"
        )
    # Cloned into memory as PyTorch aligns it, on which sums depend in their last digits.
    placed = {name: _placed(x, header["orders"][name]).to(device).clone() for name, x in tensors.items()}
    return _filled(header["tree"], placed, layout), header


def _outline(tree: Tree, layout: Layout, path: str = "") -> dict[str, Any]:
    """The dicts of a state as JSON: null for a tensor, a list of them for a tuple, [start, end, room] for a buffer."""
    made: dict[str, Any] = {}
    for key, value in tree.items():
        span = tree.get(f"{key}{SPAN}")
        if isinstance(value, dict):
            made[key] = _outline(value, layout, f"{path}{key}.")
        elif isinstance(value, int):
            made[key] = value
        elif isinstance(value, Tensor) and f"{path}{key}" in layout.by_path:
            axis = layout.entry(f"{path}{key}").token_axis
            made[key] = None if span is None or axis is None else [*span, value.shape[axis]]
        elif isinstance(value, tuple) and key != USED and not key.endswith(SPAN):
            made[key] = [None] * len(value)
    return made


def _filled(outline: dict[str, Any], tensors: Tensors, layout: Layout, path: str = "") -> Tree:
    """The state of an outline."""
    made: Tree = {}
    for key, value in outline.items():
        name = f"{path}{key}"
        if isinstance(value, dict):
            made[key] = _filled(value, tensors, layout, f"{name}.")
        elif value is None:
            made[key] = tensors[name]
        elif isinstance(value, int):
            made[key] = value
        elif value[0] is None:
            made[key] = tuple(tensors[f"{name}.{i}"] for i in range(len(value)))
        else:
            start, end, size = value
            made[key] = with_room(tensors[name], layout.entry(name).token_axis or 0, size, start)
            made[f"{key}{SPAN}"] = start, end
    return made


def _dense(x: Tensor) -> tuple[list[int], Tensor]:
    """The order of its axes in memory, and the tensor with its axes in that order, in memory of its own."""
    strides = x.stride()
    order = sorted(range(x.dim()), key=lambda axis: -strides[axis])
    dense = x.detach().permute(order).contiguous()
    return order, dense.clone() if dense.untyped_storage().nbytes() > dense.nbytes else dense


def _placed(x: Tensor, order: list[int]) -> Tensor:
    """The tensor that `_dense` gave, with its strides as they were: on others, kernels may round differently."""
    return x.permute([order.index(axis) for axis in range(len(order))])


def _checksum(text: str, tensors: Tensors) -> str:
    """CRC-32 of the header and of every tensor."""
    found = zlib.crc32(text.encode())
    for name, x in sorted(tensors.items()):
        contents: Any = x.cpu().reshape(-1).view(torch.uint8).numpy()
        found = zlib.crc32(contents, zlib.crc32(name.encode(), found))
    return f"{found:08x}"
