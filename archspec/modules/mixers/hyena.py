"""Hyena, as a module. What it computes is said in `archspec.layers.mixers.hyena`."""

from math import log, pi

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kernels.convolutions.long_conv import long_conv
from archspec.kernels.convolutions.short_conv import short_conv
from archspec.kernels.precision import wide, wide_type
from archspec.kernels.state import State, advance, once, substate
from archspec.layers.mixers.hyena import Hyena as Config
from archspec.modules.projection import linear


class Hyena(nn.Module):
    """Gates around long convolutions, whose filters are a network of the position."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        self.filter_bias = nn.Parameter(torch.empty(c.filter_dim))
        if c.train_freq:
            self.freq = nn.Parameter(torch.empty(c.filter_order))
        if c.train_positions:
            self.positions = nn.Parameter(torch.empty(c.filter_len, c.emb_dim))
        if c.modulate and c.train_decay:
            self.decay = nn.Parameter(torch.empty(c.filter_dim))
        self.in_proj = linear(c, "in_proj", c.d_model, (c.order + 1) * c.d_model, bias=c.bias)
        self.short_filter = nn.Conv1d(
            (c.order + 1) * c.d_model, (c.order + 1) * c.d_model, c.d_conv, groups=(c.order + 1) * c.d_model
        )
        self.filter_in = linear(c, "filter_in", c.emb_dim, c.filter_order)
        self.filter_inner = nn.ModuleList(
            linear(c, "filter_inner", c.filter_order, c.filter_order) for _ in range(c.num_inner_mlps)
        )
        self.filter_out = linear(c, "filter_out", c.filter_order, c.filter_dim, bias=False)
        self.out_proj = linear(c, "out_proj", c.d_model, c.d_model, bias=c.bias)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Frequencies, positions and decays at their formulas; each filter's skip from a normal distribution."""
        c = self.c
        nn.init.normal_(self.filter_bias)
        if c.train_freq:
            nn.init.constant_(self.freq, c.sine_freq)
        if c.train_positions:
            self.positions.copy_(features(c.filter_len, c.filter_len, c.bands, self.positions))
        if c.modulate and c.train_decay:
            self.decay.copy_(decays(c.filter_dim, c.slow_decay_pct, c.fast_decay_pct, c.decay_target, self.decay))

    def forward(self, x: Tensor, state: State | None = None, mask: Tensor | None = None) -> Tensor:
        """x (B, T, d_model) -> (B, T, d_model)."""
        c = self.c
        T = x.shape[1]
        check_length(advance(state, T) + T, c.filter_len)
        x = short_conv(
            self.in_proj(x),
            self.short_filter.weight,
            self.short_filter.bias,
            state=state,
            mask=mask if c.padded else None,
        )
        *gates, v = x.chunk(c.order + 1, dim=-1)  # (B, T, d_model)
        # Decoding needs them at every step, up to the longest sequence.
        filters = once(state, "filters", lambda: self.filters(T if state is None else c.filter_len))
        skips = self.filter_bias.chunk(c.order - 1)
        for i, (k, d) in enumerate(zip(filters.chunk(c.order - 1, dim=-1), skips, strict=True)):
            v = v * gates[-1 - i]
            if c.dropout:
                v = F.dropout(v, c.dropout, self.training)
            v = long_conv(v, k, d, state=substate(state, i), mask=mask if c.padded else None)
        return self.out_proj(v * gates[0])

    def filters(self, n: int) -> Tensor:
        """The first n taps of all filters, (n, filter_dim); in float32 at least: bfloat16 lacks the fractions."""
        c = self.c
        if c.train_positions:
            h = wide(self.positions[:n])  # (n, emb_dim)
        else:
            h = features(n, c.filter_len, c.bands, self.filter_bias)  # (n, emb_dim)
        for layer in (self.filter_in, *self.filter_inner):
            h = F.linear(h, wide(layer.weight), wide(layer.bias))  # (n, filter_order)
            if c.train_freq:
                h = torch.sin(wide(self.freq) * h)
            else:
                h = torch.sin(c.sine_freq * h)
        if c.modulate:
            return F.linear(h, wide(self.filter_out.weight)) * self.window(n)  # (n, filter_dim)
        return F.linear(h, wide(self.filter_out.weight))  # (n, filter_dim)

    def window(self, n: int) -> Tensor:
        """What the first n taps are multiplied by, (n, filter_dim)."""
        c = self.c
        t = fractions(n, c.filter_len, self.filter_bias)  # (n, 1)
        if c.train_decay:
            decay = wide(self.decay)  # (filter_dim,)
        else:
            decay = decays(c.filter_dim, c.slow_decay_pct, c.fast_decay_pct, c.decay_target, self.filter_bias)
        return torch.exp(-t * decay.abs()) + c.decay_shift


def fractions(n: int, length: int, like: Tensor) -> Tensor:
    """The first n of `length` positions as fractions from 0 to 1, (n, 1), on the device of `like` and as wide."""
    return torch.arange(n, device=like.device, dtype=wide_type(like)).unsqueeze(-1) / max(length - 1, 1)


def features(n: int, length: int, bands: int, like: Tensor) -> Tensor:
    """Fraction, cosines and (negative) sines of the first n of `length` positions, (n, 1 + 2 bands)."""
    t = fractions(n, length, like)
    freq = torch.linspace(1e-4, bands - 1, bands, device=t.device, dtype=t.dtype)
    angles = 2 * pi / length * (length - 1) * t * freq  # (n, bands)
    return torch.cat((t, angles.cos(), -angles.sin()), dim=-1)


def decays(n: int, slow: float, fast: float, target: float, like: Tensor) -> Tensor:
    """Decay rates of n channels, (n,): exp(-rate t) is `target` at t = slow in the first, at t = fast in the last."""
    return torch.linspace(-log(target) / slow, -log(target) / fast, n, device=like.device, dtype=wide_type(like))


def check_length(n: int, filter_len: int) -> None:
    """Refuse a sequence that is longer than the filters."""
    if n > filter_len:
        raise ValueError(f"a sequence of {n} tokens is longer than the filters; filter_len = {filter_len}")
