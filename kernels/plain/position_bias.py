"""Biases of attention scores that depend on the distance of query and key: ALiBi's slopes, T5's buckets."""

import math

import torch
from torch import Tensor

from archspec.kernels.plain.state import State, append


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
    """The bucket of each query and key (T, S), the queries being the last T: single distances, then ever wider ones."""
    if distance is None:
        distance = torch.arange(S - T, S, device=device).unsqueeze(1) - torch.arange(S, device=device)
    half = n_buckets // 2 if bidirectional else n_buckets  # the buckets of keys before the query
    steps = distance.abs() if bidirectional else distance.clamp(min=0)
    exact = half // 2
    growth = torch.log(steps.clamp(min=1).float() / exact) / math.log(max_distance / exact)
    far = (exact + (growth * (half - exact)).long()).clamp(max=half - 1)
    buckets = torch.where(steps < exact, steps.long(), far)
    return buckets + (distance < 0) * half if bidirectional else buckets


def place_distances(
    places: Tensor, state: State | None = None, keep: int | None = None, mask: Tensor | None = None
) -> Tensor:
    """Places (B, T) of tokens minus those of all keys, (B, T, S); the state keeps them beside the keys."""
    (kept,) = append(state, keep=keep, mask=mask, places=places[:, None, :, None])  # (B, 1, S, 1)
    return places.unsqueeze(2) - kept[:, 0, :, 0].unsqueeze(1)
