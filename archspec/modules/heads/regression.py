"""Regression head, as a module. What it computes is said in `archspec.layers.heads.regression`."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.layers.heads.regression import RegressionHead as Config
from archspec.modules.projection import linear


class RegressionHead(nn.Module):
    """One or more numbers for the sequence, or for each token."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        self.proj = linear(c, "proj", c.d_model, c.n_outputs, bias=c.bias)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, T, d_model) -> numbers (B, n_outputs), or of each token (B, T, n_outputs)."""
        c = self.c
        if c.pool == "first":
            x = x[:, 0]  # (B, d_model)
        elif c.pool == "last":
            x = last_token(x, mask)  # (B, d_model)
        elif c.pool == "mean":
            x = mean_token(x, mask)  # (B, d_model)
        if c.dropout:
            x = F.dropout(x, c.dropout, self.training)
        return self.proj(x)


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
