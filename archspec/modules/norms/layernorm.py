"""Layer normalisation, as a module. What it computes is said in `archspec.layers.norms.layernorm`."""

import torch
from torch import Tensor, nn

from archspec.kernels.pointwise.norm import layer_norm
from archspec.layers.norms.layernorm import LayerNorm as Config


class LayerNorm(nn.Module):
    """(x - mean(x)) / sqrt(var(x) + eps), mean and variance being those over the channels of a token."""

    def __init__(self, dim: int, c: Config):
        super().__init__()
        self.c = c
        if c.affine:
            self.weight = nn.Parameter(torch.empty(dim))
        if c.shifted:
            self.bias = nn.Parameter(torch.empty(dim))
        if c.affine:
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as the plain norm."""
        c = self.c
        if c.affine and c.one_plus:
            # The factor of a channel is 1 + weight.
            nn.init.zeros_(self.weight)
        elif c.affine:
            nn.init.ones_(self.weight)
        if c.shifted:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., dim) -> (..., dim)."""
        c = self.c
        return layer_norm(
            x,
            (1 + self.weight if c.one_plus else self.weight) if c.affine else None,
            self.bias if c.shifted else None,
            c.eps,
        )
