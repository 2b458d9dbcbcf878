"""The gated feed-forward network, as a module. What it computes is said in `archspec.layers.ffns.gated_mlp`."""

import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kernels.pointwise.activation import geglu, glu, reglu, relu2, swiglu
from archspec.layers.ffns.gated_mlp import GatedMLP as Config
from archspec.modules.projection import linear


class GatedMLP(nn.Module):
    """y = down_proj(act(gate_proj(x)) * up_proj(x))."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        self.gate_proj = linear(c, "gate_proj", c.d_model, c.d_ff, bias=c.bias)
        self.up_proj = linear(c, "up_proj", c.d_model, c.d_ff, bias=c.bias)
        self.down_proj = linear(c, "down_proj", c.d_ff, c.d_model, bias=c.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, d_model) -> (B, T, d_model)."""
        c = self.c
        gate, up = self.gate_proj(x), self.up_proj(x)  # (B, T, d_ff)
        if c.activation == "silu":
            h = swiglu(gate, up)
        elif c.activation == "gelu":
            h = geglu(gate, up)
        elif c.activation == "gelu_tanh":
            h = geglu(gate, up, tanh=True)
        elif c.activation == "relu":
            h = reglu(gate, up)
        elif c.activation == "relu2":
            h = relu2(gate) * up
        elif c.activation == "sigmoid":
            h = glu(gate, up)
        else:
            h = gate * up
        if c.dropout:
            h = F.dropout(h, c.dropout, self.training)
        return self.down_proj(h)  # (B, T, d_model)
