"""Launches of the attention kernels at the widths of models in use."""

from typing import Any

import torch
from torch import Tensor

from archspec.kernels.attention.blocks import Scores
from archspec.kernels.attention.mask import Rules
from archspec.kernels.gpu import attention

B, H, T = 2, 8, 256


def normal(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.randn(*shape, dtype=dtype)


def both_passes(
    D: int, Dv: int, shared: int = H, T: int = T, S: int = T, dtype: torch.dtype = torch.bfloat16, **options: Any
) -> None:
    """Forward and backward of one variant."""
    q, k, v = (normal(B, *shape, dtype=dtype) for shape in ((H, T, D), (shared, S, D), (shared, S, Dv)))
    scores = Scores(D**-0.5, options.pop("softcap", 0.0), options.pop("bias", None), options.pop("alibi", None))
    arguments = (scores, options.pop("sinks", None), Rules(**{"causal": True} | options))
    out, lse = attention.forward(q, k, v, *arguments)
    attention.backward([out, None], [out, lse], q, k, v, *arguments)


def launches() -> None:
    real, numbers = torch.ones(B, T, dtype=torch.bool), torch.zeros(B, T, dtype=torch.int32)
    both_passes(64, 64)
    both_passes(128, 128, shared=2, window=100, sinks=normal(H), softcap=50.0)
    both_passes(192, 128)  # latent attention while training
    both_passes(256, 256, shared=1)
    both_passes(128, 128, dtype=torch.float32)
    both_passes(96, 96, alibi=torch.rand(H), bias=normal(1, H, T, T), key_mask=real, causal=False)
    masks = {"documents": numbers, "prefix_len": torch.full((B,), 9)}
    both_passes(64, 64, window=16, dilation=2, bias=normal(H, T, 1), **masks)
    both_passes(64, 64, pattern="strided", stride=128, bias=normal(B, 1, 1, T), global_tokens=real)

    k, v = normal(B, 2, 4096, 128), normal(B, 2, 4096, 128)
    attention.decode(normal(B, H, 1, 128), k, v, None, None, 0, 0.1, 0.0)
    attention.decode(normal(B, H, 3, 128), k, v, torch.ones(B, 4096, dtype=torch.bool), normal(H), 1000, 0.1, 30.0)
    latent, k_rope = normal(B, 1, 4096, 512), normal(B, 1, 4096, 64)
    attention.latent_decode(normal(B, 128, 1, 512), normal(B, 128, 1, 64), latent, k_rope, 0.1)
