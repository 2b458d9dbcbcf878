"""Which implementation of a family runs for a tensor: Triton on a GPU, compiled loops on a CPU, or plain PyTorch.

`gpu` and `cpu` give the module that holds a family's faster functions, or None, which means: use PyTorch. Nothing is
imported before a tensor needs it, so that neither Triton nor Numba has to be installed.
"""

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

GPU_DEVICES, CPU_DEVICES = ("cuda",), ("cpu",)  # where Triton's kernels and compiled loops run


def gpu(family: str, x: Tensor) -> ModuleType | None:
    """The Triton kernels of a family, where x is on a GPU, in a type they take, and Triton is installed."""
    return _module("gpu", family, "triton") if on_gpu(x) and x.dtype != torch.float64 else None


def cpu(family: str, x: Tensor) -> ModuleType | None:
    """The compiled loops of a family, where x is on a CPU in float32 or narrower and Numba is installed."""
    return _module("cpu", family, "numba") if on_cpu(x) and x.dtype != torch.float64 else None


def on_gpu(x: Tensor) -> bool:
    """Whether x is where Triton kernels run."""
    return x.device.type in GPU_DEVICES


def on_cpu(x: Tensor) -> bool:
    """Whether x is where compiled loops run."""
    return x.device.type in CPU_DEVICES


@cache
def _module(device: str, family: str, needs: str) -> ModuleType | None:
    if not __name__.startswith("archspec.") or not find_spec(needs):
        return None  # a copy of this code stands alone: the kernels installed may be of another version
    here = f"{__name__.rpartition('.')[0]}.{device}.{family}"
    return import_module(here) if find_spec(here) and _compiles(needs) else None


def _compiles(compiler: str) -> bool:
    """Whether it compiles; where NUMBA_DISABLE_JIT is set, loops would run as Python, a thousand times slower."""
    return compiler != "numba" or not import_module("numba").config.DISABLE_JIT
