"""Recurrent networks: PyTorch's LSTM, GRU and RNN, of any depth and in one or both directions."""

from collections.abc import Sequence

import torch
from torch import Tensor

from archspec.kernels.plain.packed import over_real
from archspec.kernels.plain.state import State


def lstm(
    x: Tensor,
    weights: Sequence[Tensor],
    state: State | None = None,
    *,
    depth: int = 1,
    dropout: float = 0.0,
    bidirectional: bool = False,
    mask: Tensor | None = None,
) -> Tensor:
    """x (B, T, D_in) -> (B, T, D), or (B, T, 2 D) in both directions; weights as in nn.LSTM.parameters().

    The state keeps "h" and "c", (depth, B, D). Dropout acts between layers.
    """
    h = c = x.new_zeros(2 * depth if bidirectional else depth, len(x), weights[1].shape[-1])
    if state is not None and "h" in state:
        h, c = state["h"], state["c"]
    has_biases = len(weights) == 4 * len(h)
    if mask is not None:
        y, h, c = over_real(torch.lstm, x, mask, (h, c), weights, has_biases, depth, dropout, bidirectional)
    else:
        y, h, c = torch.lstm(x, (h, c), list(weights), has_biases, depth, dropout, True, bidirectional, True)
    if state is not None:
        state["h"], state["c"] = h, c
    return y


def gru(
    x: Tensor,
    weights: Sequence[Tensor],
    state: State | None = None,
    *,
    depth: int = 1,
    dropout: float = 0.0,
    bidirectional: bool = False,
    mask: Tensor | None = None,
) -> Tensor:
    """x (B, T, D_in) -> (B, T, D), or (B, T, 2 D) in both directions; weights as in nn.GRU.parameters().

    The state keeps "h" (depth, B, D). Dropout acts between layers.
    """
    h = x.new_zeros(2 * depth if bidirectional else depth, len(x), weights[1].shape[-1])
    if state is not None and "h" in state:
        h = state["h"]
    has_biases = len(weights) == 4 * len(h)
    if mask is not None:
        y, h = over_real(torch.gru, x, mask, [h], weights, has_biases, depth, dropout, bidirectional)
    else:
        y, h = torch.gru(x, h, list(weights), has_biases, depth, dropout, True, bidirectional, True)
    if state is not None:
        state["h"] = h
    return y


def rnn(
    x: Tensor,
    weights: Sequence[Tensor],
    state: State | None = None,
    *,
    depth: int = 1,
    dropout: float = 0.0,
    bidirectional: bool = False,
    relu: bool = False,
    mask: Tensor | None = None,
) -> Tensor:
    """x (B, T, D_in) -> (B, T, D), or (B, T, 2 D) in both directions; weights as in nn.RNN.parameters().

    The state keeps "h" (depth, B, D). Dropout acts between layers.
    """
    h = x.new_zeros(2 * depth if bidirectional else depth, len(x), weights[1].shape[-1])
    if state is not None and "h" in state:
        h = state["h"]
    has_biases = len(weights) == 4 * len(h)
    if mask is not None:
        run = torch.rnn_relu if relu else torch.rnn_tanh
        y, h = over_real(run, x, mask, [h], weights, has_biases, depth, dropout, bidirectional)
    elif relu:
        y, h = torch.rnn_relu(x, h, list(weights), has_biases, depth, dropout, True, bidirectional, True)
    else:
        y, h = torch.rnn_tanh(x, h, list(weights), has_biases, depth, dropout, True, bidirectional, True)
    if state is not None:
        state["h"] = h
    return y
