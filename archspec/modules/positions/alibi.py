"""ALiBi's slopes, as a module. What it computes is said in `archspec.layers.positions.alibi`."""

import torch
from torch import Tensor, nn

from archspec.kernels.attention.position_bias import alibi_slopes
from archspec.layers.positions.alibi import Alibi as Config


class Alibi(nn.Module):
    """The slope of each head, by which its scores fall with the distance."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        # The bits of float32 slopes: as integers they stay exact when the model is cast to another dtype.
        self.bits = nn.Buffer(torch.empty(c.n_heads, dtype=torch.int32), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Compute the slopes."""
        self.bits.copy_(alibi_slopes(self.c.n_heads).view(torch.int32))

    def forward(self, distances: Tensor | None = None) -> Tensor:
        """The slopes, (n_heads,) in float32."""
        c = self.c
        if c.placed and distances is not None:
            # What scores lose at distances (B, T, S) of queries from keys: (B, n_heads, T, S).
            return -self.bits.view(torch.float32).view(-1, 1, 1) * distances.abs().unsqueeze(1)
        return self.bits.view(torch.float32)
