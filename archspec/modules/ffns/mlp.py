"""The plain feed-forward network, as a module. What it computes is said in `archspec.layers.ffns.mlp`."""

import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kernels.pointwise.activation import relu2
from archspec.layers.ffns.mlp import MLP as Config
from archspec.modules.projection import linear


class MLP(nn.Module):
    """y = down_proj(act(up_proj(x)))."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        self.up_proj = linear(c, "up_proj", c.d_model, c.d_ff, bias=c.bias)
        self.down_proj = linear(c, "down_proj", c.d_ff, c.d_model, bias=c.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, d_model) -> (B, T, d_model)."""
        c = self.c
        if c.activation == "relu":
            h = F.relu(self.up_proj(x))  # (B, T, d_ff)
        elif c.activation == "gelu":
            h = F.gelu(self.up_proj(x))  # (B, T, d_ff)
        elif c.activation == "gelu_tanh":
            h = F.gelu(self.up_proj(x), approximate="tanh")  # (B, T, d_ff)
        elif c.activation == "silu":
            h = F.silu(self.up_proj(x))  # (B, T, d_ff)
        elif c.activation == "relu2":
            h = relu2(self.up_proj(x))  # (B, T, d_ff)
        elif c.activation == "tanh":
            h = F.tanh(self.up_proj(x))  # (B, T, d_ff)
        if c.dropout:
            h = F.dropout(h, c.dropout, self.training)
        return self.down_proj(h)  # (B, T, d_model)
