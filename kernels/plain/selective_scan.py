"""Selective scan, the state space of Mamba with a decay per channel and state (Gu and Dao 2023).

h[t, d, n] = exp(dt[t, d] A[d, n]) h[t-1, d, n] + dt[t, d] B[t, n] x[t, d]
y[t, d] = (sum_n h[t, d, n] C[t, n] + D[d] x[t, d]) * silu(z[t, d])
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from archspec.kernels.plain.precision import wide
from archspec.kernels.plain.state import State

CHUNK = 64  # tokens whose states exist at once


def selective_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    state: State | None = None,
) -> Tensor:
    """y (B, T, D) of x, dt, z (B, T, D), A (D, N), B, C (B, T, N) and D (D,); the state keeps h (B, D, N) as "ssm"."""
    if x.shape[1] == 0:
        return x  # no tokens
    h = wide(x).new_zeros(len(x), *A.shape)
    if state is not None and "ssm" in state:
        h = state["ssm"]
    outputs = []
    for chunk in zip(*(wide(tensor).split(CHUNK, dim=1) for tensor in (x, dt, B, C)), strict=True):
        # The backward pass makes the states of a chunk again: all of them are N times the size of x.
        y, h = checkpoint(scan_states, h, wide(A), *chunk, use_reentrant=False, preserve_rng_state=False)
        outputs.append(y)
    if state is not None:
        state["ssm"] = h
    y = torch.cat(outputs, dim=1)
    if D is not None:
        y = y + D * x
    if z is not None:
        y = y * F.silu(wide(z))
    return y.to(x.dtype)


def scan_states(h: Tensor, A: Tensor, x: Tensor, dt: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """What is read from the states of a chunk, (B, L, D), and the last state (B, D, N)."""
    decay = torch.exp(dt.unsqueeze(-1) * A)  # (B, L, D, N)
    entering = (dt * x).unsqueeze(-1) * B.unsqueeze(2)  # (B, L, D, N)
    states = []
    for kept, new in zip(decay.unbind(1), entering.unbind(1), strict=True):
        h = kept * h + new
        states.append(h)
    return (torch.stack(states, dim=1) @ C.unsqueeze(-1)).squeeze(-1), h
