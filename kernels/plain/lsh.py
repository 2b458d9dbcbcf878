"""Attention within buckets of a hash (Reformer, Kitaev et al. 2020): T log T work for T tokens.

Queries and keys are the same vectors. A round sorts the tokens by (bucket, position) and cuts the row into chunks; a
token sees its own chunk and `look_back` chunks before it, and itself only if it sees nothing else in any round.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.plain.precision import wide
from archspec.kernels.plain.state import State, append

ALONE = -1e5  # the score of a token with itself, which counts for nothing beside any other


def lsh_attention(
    qk: Tensor,
    v: Tensor,
    chunk: int,
    look_back: int,
    *,
    buckets: Tensor | None = None,
    rotations: Tensor | None = None,
    causal: bool = False,
    wrap: bool = False,
    unit_keys: bool = False,
    state: State | None = None,
) -> Tensor:
    """Attention of qk (B, H, T, K) to itself, with values (B, H, T, V), in R rounds.

    Either buckets (B, H, R, T) or rotations (H, K, R, n / 2) for n buckets. wrap: all rounds, laid end to end, are one
    ring of chunks. unit_keys: keys are divided by their length, not by their root mean square. In a later call each
    token is what it would be as the last one of the whole, of which the state keeps qk, v and buckets.
    """
    if rotations is not None:
        buckets = hash_buckets(qk, rotations)
    assert buckets is not None
    before = 0
    if state is not None:
        before = state.get("tokens", 0)
        state["tokens"] = before + qk.shape[2]
        qk, v, buckets = append(state, qk=qk, v=v, buckets=buckets.mT)
        buckets = buckets.mT
    if before:
        lengths = range(before + 1, qk.shape[2] + 1)
        wholes = [
            whole(qk[:, :, :n], v[:, :, :n], buckets[..., :n], chunk, look_back, causal, wrap, unit_keys)
            for n in lengths
        ]
        return torch.cat([y[:, :, -1:] for y in wholes], dim=2)
    return whole(qk, v, buckets, chunk, look_back, causal, wrap, unit_keys)


def whole(
    qk: Tensor, v: Tensor, buckets: Tensor, chunk: int, look_back: int, causal: bool, wrap: bool, unit_keys: bool
) -> Tensor:
    """The attention of a whole sequence."""
    T, R = qk.shape[2], buckets.shape[2]
    order = F.pad(buckets.argsort(dim=-1, stable=True), (0, -T % chunk), value=T)  # (B, H, R, n chunk), T for none
    tokens = order.flatten(2).unflatten(2, (-1, chunk))  # (B, H, R n, chunk)
    n, each = tokens.shape[2] // R, torch.arange(tokens.shape[2], device=qk.device).unsqueeze(1)
    back = torch.arange(look_back + 1, device=qk.device)
    others = tokens[:, :, (each - back) % (R * n)]  # (B, H, R n, look_back + 1, chunk)
    if not wrap:
        others = others.masked_fill((each % n < back).unsqueeze(-1), T)
    others = others.flatten(3)
    query, key = tokens.unsqueeze(-1), others.unsqueeze(-2)
    scores = rows(wide(qk), tokens) @ rows(keys_of(qk, unit_keys), others).mT
    scores = scores.masked_fill(key > query if causal else key == T, -torch.inf).masked_fill(key == query, ALONE)
    y = scores.softmax(-1) @ rows(wide(v), others)  # (B, H, R n, chunk, V)
    weights = scores.logsumexp(-1, keepdim=True)
    place = order.argsort(dim=-1)[..., :T] + n * chunk * torch.arange(R, device=qk.device).unsqueeze(1)
    y, weights = (rows(x.flatten(2, 3), place) for x in (y, weights))  # (B, H, R, T, V or 1)
    return (weights.softmax(2) * y).sum(2).to(v.dtype)


def rows(x: Tensor, tokens: Tensor) -> Tensor:
    """x (B, H, T, D) at tokens (B, H, ...), any where there is none: (B, H, ..., D)."""
    at = tokens.flatten(2).clamp(max=x.shape[2] - 1).unsqueeze(-1).expand(-1, -1, -1, x.shape[3])
    return x.gather(2, at).unflatten(2, tokens.shape[2:])


def hash_buckets(x: Tensor, rotations: Tensor) -> Tensor:
    """Buckets (B, H, R, T) of x (B, H, T, K): argmax of [x R, -x R] for rotations (H, K, R, n / 2)."""
    rotated = torch.einsum("bhtk,hkrn->bhrtn", wide(x.detach()), wide(rotations))
    return torch.cat((rotated, -rotated), dim=-1).argmax(-1)


def random_rotations(
    n_heads: int, width: int, rounds: int, n_buckets: int, generator: torch.Generator | None = None
) -> Tensor:
    """Directions (n_heads, width, rounds, n_buckets / 2) of a hash, from a normal distribution."""
    return torch.randn(n_heads, width, rounds, n_buckets // 2, generator=generator)


def keys_of(qk: Tensor, unit: bool) -> Tensor:
    """Keys of shared queries, (..., K): over root mean square (or, unit, over length) and sqrt(K)."""
    square = wide(qk).square()
    if unit:
        size = square.sum(-1, keepdim=True)
    else:
        size = square.mean(-1, keepdim=True)
    return wide(qk) * torch.rsqrt(size + 1e-6) * qk.shape[-1] ** -0.5
