"""Rotary position embedding, as a module. What it computes is said in `archspec.layers.positions.rope`."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kernels.computed import CPU, kept, used
from archspec.kernels.pointwise.rope import rope_tables, rotate_pair
from archspec.kernels.pointwise.rope_frequencies import (
    default_frequencies,
    dynamic_frequencies,
    dynamic_frequencies_of_rows,
    linear_frequencies,
    llama3_frequencies,
    longrope_frequencies,
    ntk_frequencies,
    proportional_frequencies,
    yarn_frequencies,
)
from archspec.layers.positions.rope import Rope as Config


class Rope(nn.Module):
    """Turns pairs of channels of queries and keys by an angle that grows with the position."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        if not c.plain:
            self.bits = kept(self.frequencies(CPU))

    def forward(self, q: Tensor, k: Tensor, start: int = 0, positions: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Turn q and k (B, any heads, T, head_dim), which stand at positions start .. start + T - 1."""
        c = self.c
        T = q.shape[2]
        if c.plain:
            frequencies = self.frequencies(q.device)
        else:
            frequencies = used(self.bits, q.device)
        if c.scaling_kind == "dynamic":
            if c.counted and positions is not None:
                # The length of each row by itself, (B, 1), gives frequencies (B, 1, dim / 2).
                length = F.pad(positions, (1, 0)).amax(dim=1, keepdim=True) + 1
                frequencies = dynamic_frequencies_of_rows(
                    c.dim, c.theta, c.scaling.factor, c.scaling.original_max_seq_len, length
                )
            elif start + T > c.scaling.original_max_seq_len:
                frequencies = dynamic_frequencies(
                    c.dim, c.theta, c.scaling.factor, c.scaling.original_max_seq_len, start + T, q.device
                )
        elif c.scaling_kind == "longrope":
            short, long = frequencies
            if c.counted and positions is not None:
                # The length of each row by itself, (B, 1, 1), chooses frequencies (B, 1, dim / 2).
                is_long = F.pad(positions, (1, 0)).amax(dim=1)[:, None, None] + 1 > c.scaling.original_max_seq_len
                frequencies = torch.where(is_long, long, short)
            else:
                frequencies = long if start + T > c.scaling.original_max_seq_len else short
        if c.counted and positions is not None:
            cos, sin = rope_tables(positions, frequencies)  # (B, T, dim / 2)
            if c.plain:
                cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)  # beside heads
        else:
            cos, sin = rope_tables(torch.arange(start, start + T, device=q.device), frequencies)  # (T, dim / 2)
        if c.attention_factor != 1:
            cos, sin = cos * c.attention_factor, sin * c.attention_factor
        return rotate_pair(q, k, cos, sin, interleaved=c.interleaved)

    def frequencies(self, device: torch.device) -> Tensor:
        """The angle of each pair from one token to the next, in float32 (dim / 2,)."""
        c = self.c
        if c.scaling_kind == "none" or c.scaling_kind == "dynamic":
            frequencies = default_frequencies(c.dim, c.theta, device=device)
        elif c.scaling_kind == "linear":
            frequencies = linear_frequencies(c.dim, c.theta, c.scaling.factor, device=device)
        elif c.scaling_kind == "ntk":
            frequencies = ntk_frequencies(c.dim, c.theta, c.scaling.factor, device=device)
        elif c.scaling_kind == "proportional":
            frequencies = proportional_frequencies(c.dim, c.theta, c.scaling.fraction, c.scaling.factor, device=device)
        elif c.scaling_kind == "yarn" and c.scaling.truncate:
            frequencies = yarn_frequencies(
                c.dim,
                c.theta,
                factor=c.scaling.factor,
                original_max_seq_len=c.scaling.original_max_seq_len,
                beta_fast=c.scaling.beta_fast,
                beta_slow=c.scaling.beta_slow,
                device=device,
            )
        elif c.scaling_kind == "yarn":
            frequencies = yarn_frequencies(
                c.dim,
                c.theta,
                factor=c.scaling.factor,
                original_max_seq_len=c.scaling.original_max_seq_len,
                beta_fast=c.scaling.beta_fast,
                beta_slow=c.scaling.beta_slow,
                truncate=False,
                device=device,
            )
        elif c.scaling_kind == "llama3":
            frequencies = llama3_frequencies(
                c.dim,
                c.theta,
                factor=c.scaling.factor,
                low_freq_factor=c.scaling.low_freq_factor,
                high_freq_factor=c.scaling.high_freq_factor,
                original_max_seq_len=c.scaling.original_max_seq_len,
                device=device,
            )
        elif c.scaling_kind == "longrope":
            # (2, dim / 2): row 0 is for short texts, row 1 for those of more than original_max_seq_len tokens.
            frequencies = torch.stack(
                (
                    longrope_frequencies(
                        c.dim,
                        c.theta,
                        c.scaling.short_factor,
                        c.scaling.long_factor,
                        c.scaling.original_max_seq_len,
                        c.scaling.original_max_seq_len,
                        device,
                    ),
                    longrope_frequencies(
                        c.dim,
                        c.theta,
                        c.scaling.short_factor,
                        c.scaling.long_factor,
                        c.scaling.original_max_seq_len,
                        c.scaling.original_max_seq_len + 1,
                        device,
                    ),
                )
            )
        return frequencies

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        """Wherever the model goes, the frequencies are computed again: `to_empty` would leave them unset."""
        c = self.c
        if not c.plain:
            super()._apply(fn, recurse)
            self.bits = kept(self.frequencies(CPU), self.bits.device)
            return self
        return super()._apply(fn, recurse)
