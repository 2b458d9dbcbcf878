"""Rotary position embedding (RoFormer, Su et al. 2021): channel pair i is turned by the angle position * inv_freq[i].

A pair is channels (i, i + R), or (2i, 2i + 1) where interleaved; channels beyond 2R pass through. Tables are (T, R).
"""

import torch
from torch import Tensor


def rope_tables(positions: Tensor, inv_freq: Tensor, attention_factor: float = 1.0) -> tuple[Tensor, Tensor]:
    """cos and sin of every angle: whole positions (T,), inv_freq (R,) in float32 -> (T, R)."""
    angle = positions.unsqueeze(-1) * inv_freq
    if attention_factor != 1.0:
        return angle.cos() * attention_factor, angle.sin() * attention_factor
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool = False) -> Tensor:
    """Turn the first 2R channels of x (..., T, D) by the angles of cos and sin (T, R)."""
    R = cos.shape[-1]
    if interleaved:
        first, second = x[..., : 2 * R].unflatten(-1, (R, 2)).unbind(-1)
        turned = torch.stack((first * cos - second * sin, second * cos + first * sin), dim=-1).flatten(-2)
        return torch.cat((turned, x[..., 2 * R :]), dim=-1).to(x.dtype)
    first, second, rest = x.split((R, R, x.shape[-1] - 2 * R), dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin, rest), dim=-1).to(x.dtype)


def rotate_pair(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, interleaved: bool = False) -> tuple[Tensor, Tensor]:
    """`rotate` of queries q (..., T, D) and keys k (..., T, D)."""
    return rotate(q, cos, sin, interleaved), rotate(k, cos, sin, interleaved)
