"""Biases of attention scores that depend on the distance of query and key: ALiBi's slopes, T5's buckets."""

import math

import torch
from torch import Tensor

from archspec.kernels.attention.mask import distances
from archspec.kernels.state import State, append


def alibi_slopes(n_heads: int, device: torch.device | None = None) -> Tensor:
    """2^(-8 h / n_heads) for h = 1 .. n_heads (Press et al. 2021), in float32 (n_heads,).

    Other than powers of two take the slopes of the power below, then every second slope of the power above.
    """
    power = 2 ** math.floor(math.log2(n_heads))
    slopes = [2.0 ** (-8.0 * h / power) for h in range(1, power + 1)]
    between = [2.0 ** (-4.0 * h / power) for h in range(1, 2 * (n_heads - power), 2)]
    return torch.tensor(slopes + between, dtype=torch.float32, device=device)


def t5_buckets(
    T: int,
    S: int,
    n_buckets: int = 32,
    max_distance: int = 128,
    bidirectional: bool = True,
    device: torch.device | None = None,
    distance: Tensor | None = None,
) -> Tensor:
    """Relative position buckets of T5 (Raffel et al. 2020), (T, S) integers below n_buckets.

    Half of the buckets are single distances, the others grow logarithmically up to max_distance. With bidirectional the
    upper half of all buckets is for keys after the query; without it those share bucket 0. The queries are the last T
    of S positions, unless `distance` says otherwise: position of the query minus that of the key, of any shape.
    Raises TypeError for distances that are no whole numbers.
    """
    distance = distances(T, S, device) if distance is None else distance
    if distance.is_floating_point():
        raise TypeError(f"positions are {distance.dtype}; the buckets of T5 are those of whole numbers")
    offset = torch.zeros_like(distance)
    if bidirectional:
        n_buckets //= 2
        offset = (distance < 0) * n_buckets
        distance = distance.abs()
    distance = distance.clamp(min=0)
    exact = n_buckets // 2
    growth = torch.log(distance.clamp(min=1).float() / exact) / math.log(max_distance / exact)
    far = (exact + (growth * (n_buckets - exact)).long()).clamp(max=n_buckets - 1)
    return offset + torch.where(distance < exact, distance.long(), far)


def place_distances(
    places: Tensor, state: State | None = None, keep: int | None = None, mask: Tensor | None = None
) -> Tensor:
    """Places (B, T) of tokens minus those of all keys, (B, T, S); the state keeps them beside the keys (`append`)."""
    (kept,) = append(state, keep=keep, mask=mask, places=places[:, None, :, None])  # (B, 1, S, 1)
    return places.unsqueeze(2) - kept[:, 0, :, 0].unsqueeze(1)
