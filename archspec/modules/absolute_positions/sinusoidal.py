"""Sinusoidal positions, as a module. What it computes is said in `archspec.layers.absolute_positions.sinusoidal`."""

import torch
from torch import Tensor, nn

from archspec.kernels.pointwise.positions import sinusoidal, sinusoidal_half
from archspec.layers.absolute_positions.sinusoidal import Sinusoidal as Config


class Sinusoidal(nn.Module):
    """Fixed sines and cosines of the position."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c

    def forward(self, x: Tensor, start: int = 0, positions: Tensor | None = None) -> Tensor:
        """The rows (T, dim) of the tokens x (B, T, dim), which stand at positions start .. start + T - 1."""
        c = self.c
        if c.counted and positions is not None:
            places = positions  # (B, T)
        else:
            places = torch.arange(start, start + x.shape[1], device=x.device)  # (T,)
        if c.offset:
            places = places + c.offset
        if c.layout == "half":
            return sinusoidal_half(places, c.dim, c.base, c.spacing).to(x.dtype)  # (T, dim)
        else:
            return sinusoidal(places, c.dim, c.base).to(x.dtype)  # (T, dim)
