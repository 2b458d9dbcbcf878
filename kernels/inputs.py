"""What a caller gives to a model as its input: tensors of the right axes and types, ids that have a row of a table."""

from typing import Any

import torch
from torch import Tensor, nn

from archspec.kernels.precision import autocast_type


def require_tensor(name: str, given: Any, axes: str) -> None:
    """Raise TypeError for what is no dense tensor; `axes` say what is expected, as in "(B, T)"."""
    if not isinstance(given, Tensor):
        raise TypeError(f"{name}: expected a tensor {axes}, found a {type(given).__name__}")
    if given.layout is not torch.strided:
        raise TypeError(f"{name}: expected a dense tensor {axes}, found one of {given.layout}")


def is_known(x: Tensor) -> bool:
    """Whether the numbers in a tensor can be looked at.

    They cannot while compiling, tracing or inside torch.func, and on a device they would have to be waited for.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(x)
    return type(x) is Tensor and x.device.type == "cpu" and not wrapped


def is_mapped(x: Tensor) -> bool:
    """Whether torch.vmap holds a dimension of it back, under whatever other transforms of torch.func."""
    while torch._C._functorch.is_functorch_wrapped_tensor(x):
        if torch._C._functorch.is_batchedtensor(x):
            return True
        x = torch._C._functorch.get_unwrapped(x)
    return False


def check_ids(name: str, ids: Tensor, n: int, tokens: Tensor | None = None) -> None:
    """Check that ids (B, T) number the rows of a table of n; `tokens` (B, T) are what they stand beside.

    Raises TypeError for other types than PyTorch takes, ValueError for other shapes, IndexError for ids without a row.
    """
    require_tensor(name, ids, "(B, T) of whole numbers")
    if ids.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"{name}: expected whole numbers of torch.int64 or torch.int32, found {ids.dtype}")
    if ids.dim() != 2:
        raise ValueError(f"{name}: expected the shape (B, T), found {tuple(ids.shape)}")
    if tokens is not None and ids.shape != tokens.shape:
        raise ValueError(f"{name}: expected the shape {tuple(tokens.shape)} like the tokens, found {tuple(ids.shape)}")
    if is_known(ids) and ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= n):
        found = int(ids.min()) if int(ids.min()) < 0 else int(ids.max())
        raise IndexError(f"{name}: expected ids from 0 to {n - 1}, found {found}")


def check_channels(channels: dict[str, Tensor | None], tables: nn.ModuleDict, tokens: Tensor) -> None:
    """Check further ids of the tokens (B, T), by name, of which each numbers the rows of the table of that name."""
    for name, ids in channels.items():
        if ids is not None:
            check_ids(name, ids, tables.get_parameter(f"{name}.weight").shape[0], tokens)


def check_features(features: Tensor, width: int, like: Tensor) -> None:
    """Check that features are (B, T, width) of a floating type; `like` is a weight that they meet.

    Raises TypeError for other types, ValueError for other shapes.
    """
    require_tensor("features", features, f"(B, T, {width})")
    if not features.is_floating_point() or (features.dtype != like.dtype and autocast_type(features) is None):
        raise TypeError(f"features: expected {like.dtype} like the model, found {features.dtype}")
    if features.dim() != 3 or features.shape[2] != width:
        raise ValueError(f"features: expected the shape (B, T, {width}), found {tuple(features.shape)}")


def check_tokens(x: Tensor) -> None:
    """Raise ValueError for an x (B, T, D) without tokens, of which nothing can be pooled."""
    if not x.shape[1]:
        raise ValueError("there are no tokens (T = 0), and the head makes one vector of them: give at least one")
