"""Log decays of published matrix memories that are not learned, one a head."""

import torch
from torch import Tensor


def retention_decays(heads: int) -> Tensor:
    """Log decays (H,) of retention, log(1 - 2^(-5 - h)) (Sun et al. 2023, eq. 8)."""
    return torch.log1p(-torch.exp2(-5.0 - torch.arange(heads, dtype=torch.float64))).float()


def lightning_decays(heads: int, layer: int, n_layers: int) -> Tensor:
    """Log decays (H,) of TransNormerLLM and MiniMax: slopes 2^(-8 (h + 1) / H) that shrink with the layer's number.

    The same geometric slopes as ALiBi's for a power of two of heads; the 1e-5 are the published code's.
    """
    slopes = torch.exp2(-8.0 * torch.arange(1, heads + 1, dtype=torch.float64) / heads)
    return (-slopes * (1 - layer / (n_layers - 1 + 1e-5) + 1e-5)).float()


def linear_lightning_decays(heads: int, layer: int, n_layers: int) -> Tensor:
    """Log decays (H,) of flash-linear-attention's lightning attention: slopes 8 h / H, linear in the head."""
    return (-8.0 / heads * (1 - layer / n_layers) * torch.arange(heads, dtype=torch.float64)).float()
