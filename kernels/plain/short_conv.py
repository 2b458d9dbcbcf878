"""Short causal depthwise convolution: y[t] = gate_out * act(bias + sum_j weight[:, 0, j] u[t - (K - 1) + j])."""

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.plain.padding import hide
from archspec.kernels.plain.state import State, close_gap


def short_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    state: State | None = None,
    gate_in: Tensor | None = None,
    gate_out: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Causal convolution of x (B, T, D) with weight (D, 1, K); the state keeps the last K - 1 inputs under "conv"."""
    if x.shape[1] == 0:
        return x  # no tokens
    before = weight.shape[2] - 1
    if gate_in is not None:
        x = x * gate_in
    if mask is not None:
        x = hide(x, mask)
    if state is not None and "conv" in state:
        seen = torch.cat((state["conv"], x), dim=1)  # (B, K - 1 + T, D)
    else:
        seen = F.pad(x, (0, 0, before, 0))
    if mask is not None:
        seen = close_gap(seen.unsqueeze(1), mask).squeeze(1)
    if state is not None:
        state["conv"] = seen[:, seen.shape[1] - before :].clone()
    y = F.conv1d(seen.mT, weight, bias, groups=weight.shape[0]).mT  # (B, T, D)
    if activation == "silu":
        y = F.silu(y)
    return y if gate_out is None else y * gate_out
