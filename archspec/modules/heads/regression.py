"""Regression head, as a module. What it computes is said in `archspec.layers.heads.regression`."""

import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kernels.inputs import check_tokens
from archspec.layers.heads.regression import RegressionHead as Config
from archspec.modules.pooling import first_token, last_token, mean_token
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
        if c.pool != "none" and not c.plain:
            check_tokens(x)
        if c.pool == "first" and c.padded:
            x = first_token(x, mask)  # (B, d_model)
        elif c.pool == "first":
            x = x[:, 0]  # (B, d_model)
        elif c.pool == "last":
            x = last_token(x, mask)  # (B, d_model)
        elif c.pool == "mean":
            x = mean_token(x, mask)  # (B, d_model)
        if c.dropout:
            x = F.dropout(x, c.dropout, self.training)
        return self.proj(x)
