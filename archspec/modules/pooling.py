"""One vector for a sequence: how heads pool its tokens."""

import torch
from torch import Tensor


def first_token(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """The first real token of x (B, T, D) by mask (B, T) -> (B, D)."""
    if mask is None:
        return x[:, 0]
    return x[torch.arange(x.shape[0], device=x.device), mask.byte().argmax(dim=1)]


def middle_token(x: Tensor, mask: Tensor | None) -> Tensor:
    """The real token of x (B, T, D) with as many before it as behind, or one more behind -> (B, D)."""
    if mask is None:
        return x[:, (x.shape[1] - 1) // 2]
    number = mask.cumsum(dim=1)  # from 1
    middle = (number[:, -1:] - 1).clamp(min=0) // 2 + 1
    return x[torch.arange(x.shape[0], device=x.device), ((number == middle) & mask).byte().argmax(dim=1)]


def last_token(x: Tensor, mask: Tensor | None) -> Tensor:
    """The last real token of x (B, T, D) by mask (B, T) -> (B, D)."""
    if mask is None:
        return x[:, -1]
    last = (mask * torch.arange(x.shape[1], device=x.device)).argmax(dim=1)  # (B,)
    return x[torch.arange(x.shape[0], device=x.device), last]


def mean_token(x: Tensor, mask: Tensor | None) -> Tensor:
    """The mean of the real tokens of x (B, T, D) by mask (B, T) -> (B, D)."""
    if mask is None:
        return x.mean(dim=1)
    real = mask.unsqueeze(-1).to(x.dtype)  # (B, T, 1)
    return (x * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)
