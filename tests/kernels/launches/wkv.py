import torch

from archspec.kernels.scans import wkv as rwkv4


def launches() -> None:
    for dtype in (torch.bfloat16, torch.float32):
        given = {k: v.to(dtype) for k, v in rwkv4.example(B=1, T=40, D=96).items()}
        rwkv4.wkv(**{k: v.requires_grad_() for k, v in given.items()}).sum().backward()
        with torch.no_grad():
            rwkv4.wkv(**given)
