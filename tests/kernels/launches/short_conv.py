"""The short convolution at real widths: plain, with SiLU, and between two gates."""

import torch

from archspec.kernels.convolutions.short_conv import Inputs
from archspec.kernels.gpu import short_conv


def launches() -> None:
    x, gate_in, gate_out = (torch.zeros(2, 300, 1536, dtype=torch.bfloat16) for _ in range(3))
    bias = torch.zeros(1536)
    for K, arguments in (
        (4, (bias, None, None, None, True)),
        (3, (None, gate_in, gate_out, None, False)),
        (8, (bias, None, None, x[:, :7], True)),
        (4, (bias, gate_in, gate_out, x[:, :3].float(), True)),
        (2, (None, None, None, None, False)),
    ):
        weight = torch.zeros(1536, 1, K)
        short_conv.forward(Inputs(x, weight, *arguments))
        short_conv.backward(x, Inputs(x, weight, *arguments))
    wide = x.float()
    short_conv.forward(Inputs(wide, weight, *arguments))
    short_conv.backward(wide, Inputs(wide, weight, *arguments))
