"""Launches of the row kernel of the linear cross entropy at a vocabulary of use."""

import torch

from archspec.kernels.gpu.linear_cross_entropy import rows


def launches() -> None:
    C, V = 4, 128_256
    targets = torch.zeros(C, dtype=torch.long)
    for dtype in (torch.bfloat16, torch.float32):
        logits = torch.zeros(C, V, dtype=dtype)
        for softcap, row_weights in ((0.0, None), (30.0, torch.ones(C))):
            for train in (True, False):
                rows(logits, targets, row_weights, softcap, 1e-4, 0.1, -100, train)
    rows(torch.zeros(C, 50), targets, None, 0.0, 0.0, 0.0, -100, True)
