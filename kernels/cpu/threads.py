"""Loops over arrays that Numba compiles, and how threads share them."""

from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import Any

import numpy as np
import torch
from numba import njit
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray
from torch import Tensor

# The compiler may fuse and reorder sums, but NaN and infinities stay what they are.
EXACT_ORDER = {"contract", "nsz"}
ANY_ORDER = {"contract", "nsz", "reassoc", "arcp"}


def compiled(function: Callable[..., Any], flags: set[str] = ANY_ORDER) -> Callable[..., Any]:
    """`function` compiled at its first call, and kept on disk where a folder can be written (Numba looks for one)."""
    options: dict[str, Any] = {"nogil": True, "fastmath": flags, "error_model": "numpy"}
    with suppress(RuntimeError):  # neither beside the source nor in a cache of the user
        return njit(cache=True, **options)(function)
    return njit(**options)(function)


def in_exact_order(function: Callable[..., Any]) -> Callable[..., Any]:
    """`compiled` without reordering: for arithmetic that works because of its roundings."""
    return compiled(function, EXACT_ORDER)


@intrinsic
def always_inline(typing: Any) -> Any:
    """Called in a function, has LLVM copy it into its callers: no vectors come of a loop that calls."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.function.attributes.add("alwaysinline")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def use_wide_vectors(typing: Any) -> Any:
    """Called in a loop's function, lets LLVM use 512-bit vectors, which it shuns by default on many processors."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        with suppress(Exception):  # a mere preference; the set checks names, and does not know this one
            set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), generate


def share(loop: Callable[..., None], items: int, *arguments: Any) -> None:
    """loop(first, last, *arguments) for all items, spread over as many threads as PyTorch uses.

    Threads are started for each call: a pool would not survive the fork of a data loader.
    """
    threads = max(min(torch.get_num_threads(), items), 1)
    bounds = [items * i // threads for i in range(threads + 1)]
    others = [Thread(target=loop, args=(bounds[i], bounds[i + 1], *arguments)) for i in range(1, threads)]
    for thread in others:
        thread.start()
    loop(bounds[0], bounds[1], *arguments)
    for thread in others:
        thread.join()


def array(x: Tensor) -> NDArray[np.float32]:
    """x in float32 and contiguous, as NumPy sees it; shares memory where nothing had to change."""
    return memory(x.detach().to(torch.float32).contiguous())


def memory(x: Tensor) -> NDArray[np.float32]:
    """The memory of a contiguous float32 tensor, which may be written; complex numbers as pairs in a last axis of 2.

    `Tensor.numpy` would do, but forbids for good to resize the storage, as FSDP does with the parameters it gathers.
    """
    return np.asarray(_Memory(torch.view_as_real(x) if x.is_complex() else x))


class _Memory:
    """A tensor by NumPy's protocol; the array keeps it, and so the tensor, alive."""

    def __init__(self, x: Tensor):
        self.x = x
        self.__array_interface__ = {
            "version": 3,
            "shape": tuple(x.shape),
            "typestr": "<f4",
            "data": (x.data_ptr(), False),
        }
