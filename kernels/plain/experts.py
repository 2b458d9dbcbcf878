"""The experts of a mixture of experts: y[n] = sum_j weights[n, j] expert_{experts[n, j]}(x[n]); expert -1 is nobody."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.plain.precision import wide


def experts_gated(
    x: Tensor,
    weights: Tensor,
    experts: Tensor,
    w_gate: Tensor,
    w_up: Tensor,
    w_down: Tensor,
    activation: Callable[[Tensor], Tensor],
) -> Tensor:
    """sum_j weights[:, j] W_down (activation(W_gate x) * W_up x) over the experts (N, k) of the rows x (N, d_model)."""
    y = torch.zeros_like(wide(x))
    for e, (gate, up, down) in enumerate(zip(w_gate, w_up, w_down, strict=True)):
        token, slot = torch.where(experts == e)
        rows = x[token]
        hidden = activation(F.linear(rows, gate)) * F.linear(rows, up)
        y.index_add_(0, token, F.linear(hidden, down) * weights[token, slot].unsqueeze(-1).to(y.dtype))
    return y.to(x.dtype)


def experts_plain(
    x: Tensor,
    weights: Tensor,
    experts: Tensor,
    w_up: Tensor,
    w_down: Tensor,
    activation: Callable[[Tensor], Tensor],
    b_up: Tensor | None = None,
    b_down: Tensor | None = None,
) -> Tensor:
    """sum_j weights[:, j] W_down activation(W_up x), plus biases, over the experts (N, k) of rows x (N, d_model)."""
    y = torch.zeros_like(wide(x))
    for e, (up, down) in enumerate(zip(w_up, w_down, strict=True)):
        token, slot = torch.where(experts == e)
        hidden = F.linear(x[token], up)
        if b_up is not None:
            hidden = hidden + b_up[e]
        rows = F.linear(activation(hidden), down)
        if b_down is not None:
            rows = rows + b_down[e]
        y.index_add_(0, token, rows * weights[token, slot].unsqueeze(-1).to(y.dtype))
    return y.to(x.dtype)
