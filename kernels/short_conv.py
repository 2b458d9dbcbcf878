"""Short causal depthwise convolution: y[t, d] = b[d] + sum_j w[d, 0, j] x[t - (K-1) + j, d].

Shapes: x (B, T, D), w (D, 1, K) as in nn.Conv1d with groups = D, b (D,). K is small (3 or 4; H3, Mamba, gated delta
nets), so the state of decoding is the K - 1 inputs before the next token.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.state import State


def reference(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None) -> Tensor:
    """The sum above in float64, one tap after another."""
    x, taps = x.double(), weight.double().squeeze(1).unbind(-1)
    padded = F.pad(x, (0, 0, len(taps) - 1, 0))
    y = sum(tap * padded[:, j : j + x.shape[1]] for j, tap in enumerate(taps))
    y = y if bias is None else y + bias.double()
    return F.silu(y) if activation == "silu" else y


def short_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None, state: State | None = None
) -> Tensor:
    """Causal depthwise convolution of x (B, T, D) with weight (D, 1, K); activation is None or "silu".

    The state keeps the last K - 1 inputs (B, K - 1, D) under "conv".
    """
    tail = weight.shape[-1] - 1
    past = None if state is None else state.get("conv")
    seen = F.pad(x, (0, 0, tail, 0)) if past is None else torch.cat((past, x), dim=1)  # (B, K - 1 + T, D)
    if state is not None:
        state["conv"] = seen[:, seen.shape[1] - tail :].clone()  # a view would keep all inputs alive
    if x.shape[1] == 1:
        y = torch.einsum("bkd,dk->bd", seen, weight.squeeze(1)).unsqueeze(1)
        y = y if bias is None else y + bias
    else:
        # as an image of height 1 the tokens are in channels-last order, which is several times faster on a CPU
        image = seen.transpose(1, 2).unsqueeze(2)  # (B, D, 1, K - 1 + T)
        y = F.conv2d(image, weight.unsqueeze(2), bias, groups=weight.shape[0]).squeeze(2).transpose(1, 2)
    return F.silu(y) if activation == "silu" else y
