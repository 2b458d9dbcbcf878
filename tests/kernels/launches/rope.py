"""Rotations of a block of Llama, GPT-J and of multi-head latent attention."""

import torch

from archspec.kernels.pointwise import rope


def launches() -> None:
    for interleaved in (False, True):
        for heads, key_heads, width, pairs, dtype in (
            (32, 8, 128, 64, torch.bfloat16),
            (16, 16, 256, 32, torch.bfloat16),
            (16, 1, 64, 32, torch.float32),
        ):
            q, k = (torch.zeros(2, 16, h, width, dtype=dtype).transpose(1, 2) for h in (heads, key_heads))
            tables = torch.zeros(2, 16, pairs), torch.zeros(2, 16, pairs)
            rope._backward(list(rope._forward(q, k, *tables, interleaved)), [], q, k, *tables, interleaved)
    rope._forward(q, None, tables[0][0], tables[1][0], False)
