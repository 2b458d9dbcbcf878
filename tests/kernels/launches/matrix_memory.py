"""The matrix memory at the widths of published mixers, for each kind of decay."""

import torch
from torch import Tensor

from archspec.kernels.memory.matrix_scan import scan


def run(K: int, V: int, decay: str, dtype: torch.dtype, H: int = 4, G: int = 4, exclusive: bool = False) -> None:
    """Forward and backward pass of two chunks and a bit."""
    T = 130
    shapes: dict[str, tuple[int, ...]] = {"head": (H,), "channel": (H, K), "scalar": (1, T, H), "vector": (1, T, H, K)}

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape).to(dtype).requires_grad_()

    g = (-torch.rand(shapes[decay])).requires_grad_() if decay else None
    y, last = scan(normal(1, T, G, K), normal(1, T, G, K), normal(1, T, H, V), g, None, 1.0, exclusive, 64)
    (y.float().sum() + last.sum()).backward()


def launches() -> None:
    run(128, 64, "scalar", torch.bfloat16, H=16, G=1)  # Mamba-2
    run(64, 128, "head", torch.bfloat16)  # retention
    run(128, 128, "", torch.bfloat16)
    run(256, 256, "vector", torch.bfloat16)
    run(64, 64, "vector", torch.bfloat16, exclusive=True)  # RWKV-6
    run(128, 128, "scalar", torch.float16)
    run(128, 128, "vector", torch.float32)
