"""A state as a file of safetensors: the filled parts of its tensors, and a header that says where they go."""

import json
import os
import zlib
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from secrets import token_hex
from shutil import copymode
from typing import Any

import torch
from torch import Tensor

from archspec.decoding.header import Header, read_header
from archspec.decoding.layout import Layout
from archspec.decoding.tree import SPAN, Tree, check_tree, leaves, with_room
from archspec.errors import StateError, WriteError
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
        TypeError: path is none.
        WriteError: it cannot be written; a file that was there is as it was.
    """
    from safetensors.torch import save_file

    tensors, orders = {}, {}
    for held in leaves(tree):
        if not held.unused:
            orders[held.path], tensors[held.path] = _dense(held.filled(layout.entry(held.path).token_axis))
    header = {"spec": layout.name, "digest": layout.digest, **about, "tree": _outline(tree, layout), "orders": orders}
    text = json.dumps(header)
    metadata = {"format": FORMAT, "state": text, "checksum": _checksum(text, tensors)}
    _replace(_name(path), lambda draft: save_file(tensors, draft, metadata))


def _name(path: object) -> str:
    if not isinstance(path, str | bytes | PathLike):
        raise TypeError(f"expected the path of a file, found {path!r}")
    return os.fsdecode(path)


def _replace(name: str, fill: Callable[[Path], None]) -> None:
    """Have a draft filled beside the file, and put it in its place when it is whole; links are followed."""
    from safetensors import SafetensorError

    try:
        target = Path(os.path.realpath(name))
        if not name or (target.exists() and not target.is_file()):
            raise WriteError(f"cannot write {name or 'a file without a name'}: it is no plain file")
        draft = target.with_name(f".archspec-{token_hex(8)}.part")
        try:
            fill(draft)
            if target.exists():
                copymode(target, draft)
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(f"cannot write {name}: {error.strerror or error}") from error
    except (SafetensorError, ValueError) as error:  # its writer wraps what the system says
        raise WriteError(f"cannot write {name}: {error}") from error


def read(path: str | PathLike[str], layout: Layout, device: torch.device) -> tuple[Tree, Header]:
    """The state in a file of that layout, on a device, and what else was written.

    Raises:
        ImportError: safetensors is not installed.
        OSError: the file cannot be read.
        StateError: it is no such file, damaged, or of another spec.
        TypeError: path is none.
    """
    name = _name(path)
    metadata, tensors = _contents(name)
    text = metadata.get("state", "")
    if _checksum(text, tensors) != metadata.get("checksum"):
        raise StateError(f"{name}: the file is damaged: its checksum is not that of its contents")
    header = read_header(text, name, layout)
    if odd := sorted(tensors.keys() ^ header.orders.keys()):
        raise StateError(f"{name}: the file is damaged: its header and its tensors disagree on {odd[0]}")
    # Cloned into memory as PyTorch aligns it, on which sums depend in their last digits.
    placed = {key: _placed(x, header.orders[key], f"{name}: {key}").to(device).clone() for key, x in tensors.items()}
    tree = _filled(header.tree, placed, layout, name)
    check_tree(tree)
    if placed:
        raise StateError(f"{name}: the file is damaged: its header does not say where {next(iter(placed))} goes")
    return tree, header


def _contents(name: str) -> tuple[dict[str, str], Tensors]:
    """The header and all tensors of a file of safetensors that holds a state."""
    from safetensors import SafetensorError, safe_open

    if "\0" in name:
        raise StateError(f"{name!r} is no file name")
    if os.path.exists(name) and not os.path.isfile(name):
        raise StateError(f"{name}: expected a file, found {'a folder' if os.path.isdir(name) else 'no plain file'}")
    with open(name, "rb"):  # Python's errors name the file
        pass
    try:
        with safe_open(name, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise StateError(f"{name}: expected a state that State.save wrote, found another file of safetensors")
            return metadata, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise StateError(f"{name}: the file is damaged, or none of safetensors: {error}") from error


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


def _filled(outline: dict[str, Any], tensors: Tensors, layout: Layout, file: str, path: str = "") -> Tree:
    """The state of an outline, whose tensors are taken out of those of the file."""

    def taken(name: str) -> Tensor:
        if name not in tensors:
            raise StateError(f"{file}: the file is damaged: it has no tensor {name}")
        return tensors.pop(name)

    made: Tree = {}
    for key, value in outline.items():
        name = f"{path}{key}"
        if isinstance(value, dict):
            made[key] = _filled(value, tensors, layout, file, f"{name}.")
        elif isinstance(value, int):
            made[key] = value
        elif value is None:
            made[key] = taken(name)
        elif value[0] is None:
            made[key] = tuple(taken(f"{name}.{i}") for i in range(len(value)))
        else:
            made[key], made[f"{key}{SPAN}"] = _buffer(
                taken(name), value, layout.entry(name).token_axis, f"{file}: {name}"
            )
    return made


def _buffer(tokens: Tensor, place: list[int], axis: int | None, where: str) -> tuple[Tensor, tuple[int, int]]:
    """A buffer with room for `size` tokens that holds these from start to end, as place = [start, end, size] says."""
    start, end, size = place
    if axis is None or tokens.dim() <= axis or tokens.shape[axis] != end - start:
        shape = tuple(tokens.shape)
        raise StateError(f"{where} has the shape {shape}, expected {end - start} tokens of a buffer for {size}")
    return with_room(tokens, axis, size, start), (start, end)


def _dense(x: Tensor) -> tuple[list[int], Tensor]:
    """The order of its axes in memory, and the tensor with its axes in that order, in memory of its own."""
    strides = x.stride()
    order = sorted(range(x.dim()), key=lambda axis: -strides[axis])
    dense = x.detach().permute(order).contiguous()
    return order, dense.clone() if dense.untyped_storage().nbytes() > dense.nbytes else dense


def _placed(x: Tensor, order: list[int], where: str) -> Tensor:
    """The tensor that `_dense` gave, with its strides as they were: on others, kernels may round differently."""
    if sorted(order) != list(range(x.dim())):
        raise StateError(f"{where} has the axes {order}, expected those of its shape {tuple(x.shape)}")
    return x.permute([order.index(axis) for axis in range(len(order))])


def _checksum(text: str, tensors: Tensors) -> str:
    """CRC-32 of the header and of every tensor."""
    found = zlib.crc32(text.encode())
    for name, x in sorted(tensors.items()):
        contents: Any = x.cpu().reshape(-1).view(torch.uint8).numpy()
        found = zlib.crc32(contents, zlib.crc32(name.encode(), found))
    return f"{found:08x}"
