"""Element-wise linear recurrence h[t] = a[t] h[t-1] + x[t]."""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from archspec.kernels.plain.precision import wide, wide_type
from archspec.kernels.plain.state import State

CHUNK = 64  # tokens


def linear_scan(decay: Tensor | None, x: Tensor, log_decay: Tensor | None = None, state: State | None = None) -> Tensor:
    """h (B, T, D) of x (B, T, D), with the decay a (B, T, D) or (D,) or its logarithm; the state keeps "h" (B, D)."""
    if log_decay is not None:
        a = torch.exp(wide(log_decay)).expand(x.shape)
    elif decay is not None:
        a = decay.expand(x.shape)
    dtype = wide_type(a, x)
    h = x.new_zeros(len(x), x.shape[2], dtype=dtype)
    if state is not None and "h" in state:
        h = state["h"]
    parts = []
    for a_c, x_c in zip(a.to(dtype).split(CHUNK, dim=1), x.to(dtype).split(CHUNK, dim=1), strict=True):
        # The backward pass makes the sums of a chunk again.
        parts.append(checkpoint(scan_chunk, a_c, x_c, h, use_reentrant=False, preserve_rng_state=False))
        h = parts[-1][:, -1]
    if state is not None:
        state["h"] = h.clone()
    y = torch.cat(parts, dim=1)
    return y if y.is_complex() else y.to(x.dtype)


def scan_chunk(decay: Tensor, x: Tensor, h: Tensor) -> Tensor:
    """h after each of L tokens, (B, L, ...), from h (B, ...) before them: sums over 1, 2, 4 ... tokens, log L times."""
    states = torch.cat((x[:, :1] + decay[:, :1] * h.unsqueeze(1), x[:, 1:]), dim=1)
    span = 1
    while span < x.shape[1]:
        states = torch.cat((states[:, :span], states[:, span:] + decay[:, span:] * states[:, :-span]), dim=1)
        decay = torch.cat((decay[:, :span], decay[:, span:] * decay[:, :-span]), dim=1)
        span *= 2
    return states
