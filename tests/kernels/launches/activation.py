"""Gated activations at the widths of published models, apart and packed."""

import torch

from archspec.kernels.pointwise import activation


def launches() -> None:
    for kind in ("silu", "gelu", "gelu_tanh", "relu", "sigmoid", "clamped"):
        for dtype in (torch.bfloat16, torch.float32):
            both = torch.zeros(2, 8, 2 * 14336, dtype=dtype)
            for gate, up in ((both, None), (both, both.clone())):
                y = activation._forward(gate, up, kind, 1.702, 7.0)
                activation._backward([y], [], gate, up, kind, 1.702, 7.0)
