import torch

from archspec.kernels.scans import linear_scan as recurrence


def launches() -> None:
    for dtype in (torch.bfloat16, torch.float32, torch.complex64):
        given = recurrence.example(B=1, T=100, D=96)
        decay, x = (v.to(dtype).requires_grad_() for v in given.values())
        for a in (decay, decay[0, 0]):
            recurrence.linear_scan(a, x).abs().sum().backward()
