"""Whether a state goes with what it is given to: tensors with their declaration, a call with the state."""

from functools import lru_cache
from re import search
from typing import Any

import torch
from torch import Tensor, nn

from archspec.decoding.cut import length
from archspec.decoding.layout import SPEC, Layout
from archspec.decoding.tree import Tree, leaves
from archspec.errors import StateError, many
from archspec.layers.ops import Kept


def dtype_of(kept: Kept, model: torch.dtype) -> torch.dtype:
    """The type of a tensor that a model of that dtype keeps."""
    if kept.dtype == "model":
        return model
    named: torch.dtype = getattr(torch, kept.dtype)
    return torch.promote_types(model, named) if named.is_floating_point else named


def check_tensors(tree: Tree, layout: Layout, batch: int, model: torch.dtype | None) -> None:
    """Refuse tensors that are not declared, or of other shapes or types; `model` is its dtype, where that is known.

    Where a token has been seen, every tensor of the model must be there.
    """
    for held in leaves(tree):
        entry = layout.entry(held.path)
        shape, wanted = tuple(held.tensor.shape), entry.sizes(batch)
        if len(shape) != len(wanted) or any(w not in (None, s) for s, w in zip(shape, wanted, strict=True)):
            right = entry.kept.shape
            raise StateError(f"{entry.layer}: {held.path} has the shape {shape}, expected {right} with B = {batch}")
        type_ = None if model is None or entry.kept.name == "places" else dtype_of(entry.kept, model)
        if type_ is not None and held.tensor.dtype != type_:  # places are as the caller gives them
            raise StateError(f"{entry.layer}: {held.path} is {held.tensor.dtype}, expected {type_}")
    paths = {held.path for held in leaves(tree) if not held.unused}
    if paths and length(tree, layout) != 0:
        for path, entry in layout.entries:
            if entry.counted and path not in paths:
                raise StateError(f"{entry.layer}: the state holds no {path}, which this layer keeps beside the others")


def check_file(
    path: object, batch: int, dtype: torch.dtype | None, wanted: int | None, wanted_dtype: torch.dtype | None
) -> None:
    """Refuse a file of another batch or dtype than is wanted, where anything is."""
    if wanted is not None and batch != wanted:
        raise StateError(f"{path}: expected a state of {many(wanted, 'sequence')}, found one of {batch}")
    if None not in (dtype, wanted_dtype) and dtype != wanted_dtype:
        raise StateError(
            f"{path}: expected a state of {wanted_dtype}, found one of {dtype}; load it with dtype={dtype} and bring it"
            f" to(dtype={wanted_dtype})"
        )


def check_model(layout: Layout, model: nn.Module, padded: bool) -> None:
    """Refuse a model of another spec, or one that takes no mask where rows are padded; what is not known is taken."""
    digest = _digest(model)
    if digest is not None and digest != layout.digest:
        raise StateError(
            f"this is a state of {layout.name} (hash {layout.digest}), and the model is of another spec (hash"
            f" {digest}): make one with archspec.new_state(model, batch)"
        )
    spec = model.__dict__.get(SPEC)
    if padded and spec is not None and "mask" not in spec.takes(spec.main):
        raise StateError(
            f"rows of this state of {layout.name} are padded, and the model takes no mask: go on with one that does"
            " (a spec says so under inputs, and archspec.build makes every model that can)"
        )


def check_batch(layout: Layout, batch: int, x: Tensor) -> None:
    """Refuse an input of another batch."""
    if not x.dim() or x.shape[0] != batch:
        other = f", or make a state with batch={x.shape[0]}" if x.dim() and x.shape[0] else ""
        raise StateError(
            f"this is a state of {many(batch, 'sequence')}, and {layout.reads} has the shape {tuple(x.shape)}: give it"
            f" ({batch}, ...){other}"
        )


def check_place(layout: Layout, device: torch.device | None, dtype: torch.dtype | None, x: Tensor, model: Any) -> None:
    """Refuse an input on another device, and a model of another dtype than that of the state; `model` is its dtype."""
    if device is not None and x.device != device:
        raise StateError(
            f"this is a state on {device}, and {layout.reads} is on {x.device}: bring it there with"
            f" state.to({str(x.device)!r}), or make one with device={str(x.device)!r}"
        )
    cast = torch.amp.is_autocast_available(x.device.type) and torch.is_autocast_enabled(x.device.type)
    if None not in (dtype, model) and dtype != model and not cast:
        raise StateError(
            f"this is a state of {dtype}, and the model is {model}: bring it there with state.to(dtype={model}), or"
            f" make one with dtype={model}"
        )


def _digest(model: nn.Module) -> str | None:
    """The digest of the spec of a model: it notes its spec, or the text that it is of says so."""
    spec = model.__dict__.get(SPEC)
    if spec is not None:
        return str(spec.digest)
    made_by: Any = vars(type(model)).get("__init__")  # a file that was loaded by hand need not be in sys.modules
    return _of_text(getattr(made_by, "__globals__", {}).get("__doc__") or "")


@lru_cache(maxsize=64)
def _of_text(about: str) -> str | None:
    """The digest in the docstring of a generated file."""
    found = search(r"^Generated by archspec from .* \(hash ([0-9a-f]+)\)", about.partition("\n\n")[2][:2000])
    return found and found[1]
