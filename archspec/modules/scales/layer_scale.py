"""LayerScale, as a module."""

import torch
from torch import Tensor, nn

from archspec.layers.scales.layer_scale import LayerScale as Config


class LayerScale(nn.Module):
    """y = gamma * x, with one learned factor a channel (Touvron et al., 2021)."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        self.gamma = nn.Parameter(torch.empty(c.d_model))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start near zero, so that a deep network starts near the identity."""
        nn.init.constant_(self.gamma, self.c.initial)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, d_model) -> (B, T, d_model)."""
        return self.gamma * x
