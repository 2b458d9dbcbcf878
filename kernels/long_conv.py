"""Long causal convolution by FFT: y[t, c] = sum_{s <= t} k[s, c] u[t - s, c] + d[c] u[t, c].

Shapes: u (B, T, D), k (T or longer, D), d (D,) -> (B, T, D). O(T log T) instead of O(T^2) (S4, H3, Hyena). Transforms
run in float32, or float64 for float64 inputs, at a length of at least 2T - 1 so that nothing wraps around.
"""

import torch
from torch import Tensor

from archspec.kernels.state import State, append


def reference(u: Tensor, k: Tensor, d: Tensor | None = None) -> Tensor:
    """The sum above in float64, one output after another."""
    u, k = u.double(), k.double()
    outputs = [(k[: t + 1].flip(0) * u[:, : t + 1]).sum(1) for t in range(u.shape[1])]
    y = torch.stack(outputs, dim=1)
    return y if d is None else y + d.double() * u


def fft_conv(u: Tensor, k: Tensor, d: Tensor | None = None) -> Tensor:
    """Causal convolution of u (B, T, D) with the first T taps of k (>= T, D), plus the skip d (D,) * u."""
    wide = torch.float64 if u.dtype == torch.float64 else torch.float32
    T = u.shape[1]
    size = fft_size(2 * T - 1)
    signal = u.to(wide).transpose(1, 2).contiguous()  # the transform is faster along contiguous time
    taps = k[:T].to(wide).transpose(0, 1).contiguous()
    spectrum = torch.fft.rfft(signal, size) * torch.fft.rfft(taps, size)
    y = torch.fft.irfft(spectrum, size)[..., :T]
    y = y if d is None else torch.addcmul(y, d.to(wide).unsqueeze(-1), signal)
    return y.transpose(1, 2).to(u.dtype)


def stream_conv(u: Tensor, k: Tensor, d: Tensor | None, state: State) -> Tensor:
    """The same for u (B, T, D) that continues the inputs of the state; k (>= S, D) for the length S so far.

    The state keeps every input under "inputs": an arbitrary kernel has no shorter summary.
    """
    wide = torch.float64 if u.dtype == torch.float64 else torch.float32
    T = u.shape[1]
    (seen,) = append(state, inputs=u.unsqueeze(1))
    seen = seen.squeeze(1)  # (B, S, D)
    if T > 1:
        return fft_conv(seen, k, d)[:, seen.shape[1] - T :]
    y = torch.einsum("bsd,sd->bd", seen.to(wide), k[: seen.shape[1]].flip(0).to(wide)).unsqueeze(1)
    y = y if d is None else y + d.to(wide) * u
    return y.to(u.dtype)


def fft_size(n: int) -> int:
    """The least 2^a 3^b 5^c that is at least n: lengths of small primes transform fastest."""
    best = 1 << max(n - 1, 0).bit_length()
    power_of_5 = 1
    while power_of_5 < best:
        power_of_15 = power_of_5
        while power_of_15 < best:
            rest = -(-n // power_of_15)
            best = min(best, power_of_15 << max(rest - 1, 0).bit_length())
            power_of_15 *= 3
        power_of_5 *= 5
    return best
