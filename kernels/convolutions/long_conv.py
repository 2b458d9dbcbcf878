"""Long causal convolution by FFT: y[t, c] = post[t, c] (sum_{s <= t} k[s, c] w[t - s, c] + d[c] w[t, c]), w = pre * u.

Shapes: u, both gates and y (B, T, D), k (T or longer, D), d (D,). O(T log T) instead of O(T^2): S4 (Gu et al. 2022),
H3 (Dao et al. 2023), Hyena (Poli et al. 2023). Transforms run in float32, or float64 for float64 inputs, at the least
length of small primes at which nothing wraps around into what is kept: S + T - 1 for the last T outputs of S inputs. On
one thread of a CPU with MKL those lengths take the time that their size promises (3000 points 0.6 times that of 4096),
and channels in groups whose spectra fit the cache 0.3 to 1 times that of all at once.

The backward pass transforms inputs, taps and gradient again, so that no spectrum is kept: with g = post * dy,
dw = k correlated with g + d g and dk = w correlated with g, summed over sequences. That makes eight transforms of six:
forward and backward took 0.7 to 1.3 times what autograd did with all spectra kept. On a GPU the transforms are cuFFT's
and what is between them PyTorch's own point-wise kernels; that was not measured.

An FFT has no matrix product, so that PyTorch's FLOP counter, which counts those, gives 0 here.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.contract import require
from archspec.kernels.library import operator
from archspec.kernels.padding import hide
from archspec.kernels.precision import wide_type
from archspec.kernels.state import State, append

CACHED = 1 << 18  # points transformed at once on a CPU
AT_ONCE = 1 << 26  # and elsewhere: 256 MB for each real array in float32


def reference(
    u: Tensor, k: Tensor, d: Tensor | None = None, pre_gate: Tensor | None = None, post_gate: Tensor | None = None
) -> Tensor:
    """The sum above in float64, one output after another."""
    w, k = u.double(), k.double()
    w = w if pre_gate is None else w * pre_gate.double()
    outputs = [(k[: t + 1].flip(0) * w[:, : t + 1]).sum(1) for t in range(w.shape[1])]
    y = torch.stack(outputs, dim=1)
    y = y if d is None else y + d.double() * w
    return y if post_gate is None else y * post_gate.double()


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
    """Causal convolution of u (B, T, D) with the first taps of k (>= T, D), plus the skip d (D,) times its input.

    The gates (B, T, D) multiply what goes in and what comes out. The state keeps every gated input under "inputs", as
    an arbitrary kernel has no shorter summary: after S inputs a token costs O(S D), T tokens O((S + T) log(S + T) D),
    and k must be as long as the sequence so far. mask (B, T) is True for real tokens, before which padding stands: that
    is no input. The result has the type of u.
    """
    sizes = require(
        "long_conv",
        u=(u, "B T D"),
        k=(k, "L D"),
        d=(d, "D"),
        pre_gate=(pre_gate, "B T D"),
        post_gate=(post_gate, "B T D"),
    )
    T = sizes["T"]
    u = hide(u, mask)
    if state is None:
        require_taps(k, T)
        return convolve(u, k[:T], d, pre_gate, post_gate, T)
    wide = wide_type(u)
    w = u if pre_gate is None else u.to(wide) * pre_gate
    (seen,) = append(state, inputs=w.unsqueeze(1), mask=mask)
    seen = seen.squeeze(1)  # (B, S, D)
    S = seen.shape[1]
    require_taps(k, S)
    if T > 1:
        return convolve(seen, k[:S], d, None, post_gate, T).to(u.dtype)
    y = (seen.to(wide) * k[:S].flip(0).to(wide)).sum(1, keepdim=True)
    y = y if d is None else y + d * w
    return (y if post_gate is None else y * post_gate).to(u.dtype)


def require_taps(k: Tensor, length: int) -> None:
    """Refuse a kernel that is shorter than the sequence: its missing taps would count as zeros."""
    if k.shape[0] < length:
        raise ValueError(f"long_conv: k has {k.shape[0]} taps, expected at least {length}, as many as tokens so far")


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


def _forward(
    u: Tensor, k: Tensor, d: Tensor | None, pre_gate: Tensor | None, post_gate: Tensor | None, T: int
) -> Tensor:
    """The last T outputs for inputs u (B, S, D) and k (S, D); pre_gate (B, S, D), post_gate (B, T, D)."""
    B, S, D = u.shape
    size = fft_size(S + T - 1)
    y = u.new_empty(B, T, D)
    for channels, batches in _groups(B, D, size, u):
        taps = torch.fft.rfft(_rows(k[:, channels], u), size)
        for rows in batches:
            w, _ = _gated(u, pre_gate, rows, channels)
            z = _convolved(torch.fft.rfft(w, size).mul_(taps), w, d, channels, size, T)
            z = z if post_gate is None else z * _rows(post_gate[rows, :, channels], u)
            y[rows, :, channels] = z.mT
    return y


def _backward(
    grads: list[Tensor | None],
    outputs: list[Tensor],
    u: Tensor,
    k: Tensor,
    d: Tensor | None,
    pre_gate: Tensor | None,
    post_gate: Tensor | None,
    T: int,
) -> list[Tensor]:
    """Gradients of u, k, d and both gates, as far as they are given."""
    (dy,) = grads
    B, S, D = u.shape
    size = fft_size(S + T - 1)
    du, d_pre, d_post = (None if x is None else torch.empty_like(x) for x in (u, pre_gate, post_gate))
    dk = torch.empty_like(k)
    dd = None if d is None else torch.zeros_like(d, dtype=wide_type(u))
    for channels, batches in _groups(B, D, size, u):
        taps = torch.fft.rfft(_rows(k[:, channels], u), size)
        dtaps = torch.zeros_like(taps)
        for rows in batches:
            w, gate = _gated(u, pre_gate, rows, channels)
            g = _rows(dy[rows, :, channels], u)
            spectrum = torch.fft.rfft(w, size)
            if post_gate is not None:
                d_post[rows, :, channels] = (g * _convolved(spectrum * taps, w, d, channels, size, T)).mT
                g = g * _rows(post_gate[rows, :, channels], u)
            late = torch.fft.rfft(F.pad(g, (S - T, 0)) if S > T else g, size)
            dtaps += (spectrum.conj() * late).sum(0)
            dw = torch.fft.irfft(late.mul_(taps.conj()), size)[..., :S]
            if d is not None:
                dd[channels] += (g * w[..., S - T :]).sum((0, 2))
                dw[..., S - T :].addcmul_(g, d[channels].to(g.dtype).unsqueeze(-1))
            if gate is not None:
                d_pre[rows, :, channels] = (dw * _rows(u[rows, :, channels], u)).mT
                dw *= gate
            du[rows, :, channels] = dw.mT
        dk[:, channels] = torch.fft.irfft(dtaps, size)[..., :S].mT
    return [grad for grad in (du, dk, dd, d_pre, d_post) if grad is not None]


def _groups(B: int, D: int, size: int, like: Tensor) -> Iterator[tuple[slice, list[slice]]]:
    """Channels that are transformed at once, and the parts of the batch that go with them one after another."""
    points = CACHED if like.device.type == "cpu" else AT_ONCE
    channels = max(min(points // size, D), 1)
    rows = max(points // (size * channels), 1)
    for start in range(0, D, channels):
        yield slice(start, start + channels), [slice(row, row + rows) for row in range(0, B, rows)]


def _rows(x: Tensor, like: Tensor) -> Tensor:
    """(..., T, D) -> (..., D, T), float32 or as wide as `like`: transforms are faster along contiguous time."""
    return x.mT.to(wide_type(like)).contiguous()


def _gated(u: Tensor, gate: Tensor | None, rows: slice, channels: slice) -> tuple[Tensor, Tensor | None]:
    """Gated inputs and the gate, both (B, D, S) of the rows and channels."""
    w = _rows(u[rows, :, channels], u)
    if gate is None:
        return w, None
    gate = _rows(gate[rows, :, channels], u)
    return w * gate, gate


def _convolved(spectrum: Tensor, w: Tensor, d: Tensor | None, channels: slice, size: int, T: int) -> Tensor:
    """The last T values (B, D, T) that a spectrum stands for, plus the skip."""
    S = w.shape[2]
    z = torch.fft.irfft(spectrum, size)[..., S - T : S]
    return z if d is None else z.addcmul_(w[..., S - T :], d[channels].to(w.dtype).unsqueeze(-1))


def _fake(u: Tensor, k: Tensor, d: Tensor | None, pre_gate: Tensor | None, post_gate: Tensor | None, T: int) -> Tensor:
    return u.new_empty(u.shape[0], T, u.shape[2])


convolve = operator("long_conv", _forward, _backward, _fake)


def example(B: int = 2, T: int = 63, D: int = 5) -> dict[str, Tensor]:
    """Example arguments of `long_conv`: taps that decay, as those of trained filters do."""
    u, pre_gate, post_gate = (torch.randn(B, T, D, dtype=torch.float64) for _ in range(3))
    window = torch.exp(-4 * torch.arange(T, dtype=torch.float64) / max(T, 1)).unsqueeze(-1)
    return {
        "u": u,
        "k": torch.randn(T, D, dtype=torch.float64) * window,
        "d": torch.randn(D, dtype=torch.float64),
        "pre_gate": pre_gate,
        "post_gate": post_gate,
    }


EXAMPLES: tuple[dict[str, int], ...] = ({}, {"T": 1}, {"B": 1, "T": 100, "D": 3}, {"B": 3, "T": 257}, {"B": 0, "T": 7})
