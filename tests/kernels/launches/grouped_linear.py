"""Launches of the grouped matrix products at widths of use."""

import torch

from archspec.kernels.gpu.grouped_linear import grouped_linear, grouped_linear_backward


def launches() -> None:
    rows, E, d_in, d_out = 64, 64, 2048, 1408
    ends = torch.arange(1, E + 1)
    for dtype, weight_dtype in ((torch.bfloat16, torch.bfloat16), (torch.bfloat16, torch.float32)):
        x, weight = torch.zeros(rows, d_in, dtype=dtype), torch.zeros(E, d_out, d_in, dtype=weight_dtype)
        bias = torch.zeros(E, d_out, dtype=weight_dtype) if weight_dtype == torch.bfloat16 else None
        y = grouped_linear(x, weight, ends, bias)
        grouped_linear_backward(y, x, weight, ends, bias, [True] * 3)
    x, weight = torch.zeros(rows, 33), torch.zeros(E, 17, 33)
    grouped_linear_backward(grouped_linear(x, weight, ends, None), x, weight, ends, None, [True] * 2)
