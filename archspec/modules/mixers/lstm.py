"""LSTM, as a module. What it computes is said in `archspec.layers.mixers.lstm`."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kernels.state import State
from archspec.layers.mixers.lstm import LSTM as Config


class LSTM(nn.Module):
    """PyTorch's LSTM, with an output projection where its width is not d_model."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        # The weights of nn.LSTM under their own names; torch.compile does not accept the module itself.
        cells = nn.LSTM(c.d_model, c.d_hidden, c.depth, bias=c.bias, bidirectional=c.bidirectional)
        self.lstm = nn.ParameterDict(cells.named_parameters())
        if c.projects:
            self.out_proj = nn.Linear(c.d_out, c.d_model, bias=c.bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """PyTorch's own: uniform up to d_hidden ** -0.5."""
        c = self.c
        for weight in self.lstm.values():
            nn.init.uniform_(weight, -(c.d_hidden**-0.5), c.d_hidden**-0.5)

    def forward(self, x: Tensor, state: State | None = None) -> Tensor:
        """x (B, T, d_model) -> (B, T, d_model)."""
        c = self.c
        weights = list(self.lstm.values())
        zeros = x.new_zeros(c.n_states, x.shape[0], c.d_hidden)  # (n_states, B, d_hidden)
        if c.bidirectional:
            y, _, _ = lstm(x, zeros, zeros, weights, c.bias, c.depth, c.dropout, self.training, True)
        else:
            h, cell = (state["h"], state["c"]) if state else (zeros, zeros)
            y, h, cell = lstm(x, h, cell, weights, c.bias, c.depth, c.dropout, self.training)  # (B, T, d_out)
            if state is not None:
                state["h"], state["c"] = h, cell
        if c.projects:
            return self.out_proj(y)  # (B, T, d_model)
        return y


def lstm(
    x: Tensor,
    h: Tensor,
    cell: Tensor,
    weights: list[Tensor],
    bias: bool,
    depth: int,
    dropout: float,
    training: bool,
    both_ways: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """`torch.lstm`, batch first; step by step in torch.compile, which the fused kernel of a CPU does not go through."""
    if not torch.compiler.is_compiling():
        y, h, cell = torch.lstm(x, (h, cell), weights, bias, depth, dropout, training, both_ways, True)
        return y, h, cell
    ways, size = 2 if both_ways else 1, 4 if bias else 2
    ends = []
    for layer in range(depth):
        outputs = []
        for way in range(ways):
            i = layer * ways + way
            y, *end = run_cell(x.flip(1) if way else x, h[i], cell[i], *weights[size * i : size * (i + 1)])
            outputs.append(y.flip(1) if way else y)
            ends.append(end)
        x = torch.cat(outputs, dim=-1)
        if layer < depth - 1:
            x = F.dropout(x, dropout, training)
    return x, torch.stack([end[0] for end in ends]), torch.stack([end[1] for end in ends])


def run_cell(
    x: Tensor, h: Tensor, cell: Tensor, w_x: Tensor, w_h: Tensor, b_x: Tensor | None = None, b_h: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """One layer in one direction: x (B, T, .), h and cell (B, D) -> outputs (B, T, D), last h and cell."""
    outputs = []
    for inputs in F.linear(x, w_x, b_x).unbind(1):
        i, f, g, o = (inputs + F.linear(h, w_h, b_h)).chunk(4, dim=-1)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(cell)
        outputs.append(h)
    return torch.stack(outputs, dim=1), h, cell
