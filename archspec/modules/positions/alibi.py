"""ALiBi's slopes, as a module. What it computes is said in `archspec.layers.positions.alibi`."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from archspec.kernels.attention.position_bias import alibi_slopes
from archspec.kernels.computed import CPU, kept, used
from archspec.layers.positions.alibi import Alibi as Config


class Alibi(nn.Module):
    """The slope of each head, by which its scores fall with the distance."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        if not c.plain:
            self.bits = kept(alibi_slopes(c.n_heads, CPU))

    def forward(self, distances: Tensor | None = None, device: torch.device | None = None) -> Tensor:
        """The slopes, (n_heads,) in float32, on a device."""
        c = self.c
        if c.plain:
            slopes = alibi_slopes(c.n_heads, device)
        else:
            slopes = used(self.bits, device)
        if c.placed and distances is not None:
            # What scores lose at distances (B, T, S) of queries from keys: (B, n_heads, T, S).
            return -slopes.view(-1, 1, 1) * distances.abs().unsqueeze(1)
        return slopes

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        """Wherever the model goes, the slopes are computed again: `to_empty` would leave them unset."""
        c = self.c
        if not c.plain:
            super()._apply(fn, recurse)
            self.bits = kept(alibi_slopes(c.n_heads, CPU), self.bits.device)
            return self
        return super()._apply(fn, recurse)
