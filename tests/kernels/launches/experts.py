"""Launches of the weighted sum of slots at widths of use."""

import torch

from archspec.kernels.gpu.experts import weighted_sum, weighted_sum_backward


def launches() -> None:
    rows, k, width = 64, 2, 2048
    for dtype in (torch.bfloat16, torch.float32):
        x, weights = torch.zeros(rows, width, dtype=dtype), torch.zeros(rows // k, k)
        places = torch.arange(rows).view(-1, k)
        dy = weighted_sum(x, weights, places)
        weighted_sum(x, None, places)
        weighted_sum_backward(dy, x, weights, places)
