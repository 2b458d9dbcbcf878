"""Long causal convolution by FFT: y[t] = post_gate[t] (sum_{s <= t} k[s] w[t - s] + d w[t]) with w = pre_gate * u."""

import torch
from torch import Tensor

from archspec.kernels.plain.padding import hide
from archspec.kernels.plain.precision import wide
from archspec.kernels.plain.state import State, append


def long_conv(
    u: Tensor,
    k: Tensor,
    d: Tensor | None = None,
    *,
    pre_gate: Tensor | None = None,
    post_gate: Tensor | None = None,
    state: State | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Causal convolution of u (B, T, D) with k (S or longer, D), plus the skip d (D,); the state keeps all S inputs."""
    if u.shape[1] == 0:
        return u  # no tokens
    dtype = u.dtype
    if mask is not None:
        u = hide(u, mask)
    if pre_gate is not None:
        u = wide(u) * pre_gate
    (inputs,) = append(state, mask=mask, inputs=u.unsqueeze(1))
    inputs = wide(inputs.squeeze(1))  # (B, S, D)
    S, T = inputs.shape[1], u.shape[1]
    if T == 1:
        y = (inputs * wide(k[:S]).flip(0)).sum(1, keepdim=True)  # (B, 1, D)
    else:
        # With room for 2 S nothing wraps around.
        spectrum = torch.fft.rfft(inputs, 2 * S, dim=1) * torch.fft.rfft(wide(k[:S]), 2 * S, dim=0)
        y = torch.fft.irfft(spectrum, 2 * S, dim=1)[:, S - T : S]  # (B, T, D)
    if d is not None:
        y = y + d * u
    if post_gate is not None:
        y = y * post_gate
    return y.to(dtype)
