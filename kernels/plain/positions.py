"""Fixed sinusoidal position tables.

Angles are computed in float32 as position * frequency; row p of a table is the embedding of position p.
"""

import math

import torch
from torch import Tensor


def sinusoidal(positions: Tensor, dim: int, theta: float = 10000.0) -> Tensor:
    """Sine and cosine interleaved: channel 2i is sin(p theta^(-2i/dim)), channel 2i+1 its cosine (Vaswani et al. 2017).

    positions (...,) -> (..., dim) in float32; an odd dim ends on a sine.
    """
    exponent = torch.arange(0, dim, 2, device=positions.device, dtype=torch.float32) / dim
    angle = positions.float().unsqueeze(-1) * theta**-exponent  # (..., ceil(dim / 2))
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-2)[..., :dim]


def sinusoidal_half(positions: Tensor, dim: int, theta: float = 10000.0, spacing: int = 1) -> Tensor:
    """All sines, then all cosines: channel i is sin(p theta^(-i / (dim/2 - spacing))) (tensor2tensor, Whisper).

    spacing = 1 makes the slowest frequency exactly 1 / theta; spacing = 0 gives the frequencies of Vaswani et al. in
    this layout (Transformer-XL). positions (...,) -> (..., dim) in float32; an odd dim ends on a zero.
    """
    half = dim // 2
    step = math.log(theta) / max(half - spacing, 1)
    frequency = torch.exp(-step * torch.arange(half, device=positions.device, dtype=torch.float32))
    angle = positions.float().unsqueeze(-1) * frequency  # (..., dim // 2)
    table = torch.cat((angle.sin(), angle.cos()), dim=-1)
    return torch.nn.functional.pad(table, (0, dim - 2 * half))
