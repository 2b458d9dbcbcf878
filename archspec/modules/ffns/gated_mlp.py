"""The gated feed-forward network, as a module. What it computes is said in `archspec.layers.ffns.gated_mlp`."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kernels.activation import relu2
from archspec.layers.ffns.gated_mlp import GatedMLP as Config


class GatedMLP(nn.Module):
    """y = down_proj(act(gate_proj(x)) * up_proj(x))."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        self.gate_proj = nn.Linear(c.d_model, c.d_ff, bias=c.bias)
        self.up_proj = nn.Linear(c.d_model, c.d_ff, bias=c.bias)
        self.down_proj = nn.Linear(c.d_ff, c.d_model, bias=c.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, d_model) -> (B, T, d_model)."""
        c = self.c
        gate = self.gate_proj(x)  # (B, T, d_ff)
        if c.activation == "silu":
            gate = F.silu(gate)
        elif c.activation == "gelu":
            gate = F.gelu(gate)
        elif c.activation == "gelu_tanh":
            gate = F.gelu(gate, approximate="tanh")
        elif c.activation == "relu":
            gate = F.relu(gate)
        elif c.activation == "relu2":
            gate = relu2(gate)
        elif c.activation == "sigmoid":
            gate = torch.sigmoid(gate)
        h = gate * self.up_proj(x)
        if c.dropout:
            h = F.dropout(h, c.dropout, self.training)
        return self.down_proj(h)  # (B, T, d_model)
