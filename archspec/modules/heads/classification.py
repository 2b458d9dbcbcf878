"""Classification head, as a module. What it computes is said in `archspec.layers.heads.classification`."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kernels.inputs import check_tokens
from archspec.layers.heads.classification import ClassificationHead as Config
from archspec.modules.pooling import first_token, last_token, mean_token, middle_token
from archspec.modules.projection import linear


class ClassificationHead(nn.Module):
    """One vector for the sequence, then a score for each class."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        if c.hidden is None:
            self.proj = linear(c, "proj", c.d_model, c.n_classes, bias=c.bias)
        else:
            self.pooler = linear(c, "pooler", c.d_model, c.hidden)
            self.proj = linear(c, "proj", c.hidden, c.n_classes, bias=c.bias)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, T, d_model) -> scores (B, n_classes)."""
        c = self.c
        if not c.plain:
            check_tokens(x)
        if c.pool == "first" and c.padded:
            x = first_token(x, mask)  # (B, d_model)
        elif c.pool == "first":
            x = x[:, 0]  # (B, d_model)
        elif c.pool == "middle" and c.padded:
            x = middle_token(x, mask)  # (B, d_model)
        elif c.pool == "middle":
            # A class token put between n // 2 and the other patches.
            x = x[:, (x.shape[1] - 1) // 2]  # (B, d_model)
        elif c.pool == "last":
            x = last_token(x, mask)  # (B, d_model)
        elif c.pool == "mean":
            x = mean_token(x, mask)  # (B, d_model)
        if c.hidden is not None:
            x = torch.tanh(self.pooler(x))  # (B, hidden)
        if c.dropout:
            x = F.dropout(x, c.dropout, self.training)
        return self.proj(x)  # (B, n_classes)
