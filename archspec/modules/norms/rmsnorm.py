"""Root mean square normalisation, as a module. What it computes is said in `archspec.layers.norms.rmsnorm`."""

import torch
from torch import Tensor, nn

from archspec.kernels.pointwise.norm import rms_norm
from archspec.layers.norms.rmsnorm import RMSNorm as Config


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps), the mean being that over the channels of a token."""

    def __init__(self, dim: int, c: Config):
        super().__init__()
        self.c = c
        if c.weight:
            self.weight = nn.Parameter(torch.empty(dim))
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as the plain norm."""
        c = self.c
        if c.weight and c.one_plus:
            # The factor of a channel is 1 + weight.
            nn.init.zeros_(self.weight)
        elif c.weight:
            nn.init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., dim) -> (..., dim)."""
        c = self.c
        return rms_norm(x, self.weight if c.weight else None, c.eps, one_plus=c.one_plus)
