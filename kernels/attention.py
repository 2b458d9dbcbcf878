"""Softmax attention with the masks, biases and normalisers of published models.

    o[i] = sum_j softmax_j(scale * q[i] . k[j] + bias[i, j]) v[j]  over the keys j that query i may see

Shapes: q (B, H, T, D), k (B, Hkv, S, D), v (B, Hkv, S, Dv) -> (B, H, T, Dv); H is a multiple of Hkv and query head h
reads key head h // (H / Hkv) (Ainslie et al. 2023). The queries are the last T of the S positions, which makes a
prefix held in a state and a whole sequence the same case. A query that sees no key gives 0.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def reference(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, bias: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """The equation above in float64 with a boolean mask (..., T, S), True = visible."""
    groups = q.shape[1] // k.shape[1]
    k, v = (x.double().repeat_interleave(groups, dim=1) for x in (k, v))
    scores = q.double() @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    scores = scores if bias is None else scores + bias.double()
    scores = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
    return torch.nan_to_num(scores.softmax(-1)) @ v


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    window: int | None = None,
    prefix_len: int | Tensor | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    bias: Tensor | None = None,
    alibi: Tensor | None = None,
    key_mask: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention of q over k and v; shapes as above.

    causal: a query sees the keys up to its own position.
    window: the number of keys a query sees, itself included; without causal the keys with |i - j| < window.
    prefix_len: the first prefix_len keys are seen by every query, a number or one per sequence (B,).
    scale: defaults to D^-0.5.
    softcap: scores become softcap * tanh(scores / softcap) before biases (Gemma 2).
    sinks: (H,) a logit per head that joins the denominator only (gpt-oss).
    bias: added to the scores, broadcastable to (B, H, T, S).
    alibi: slopes (H,), adds -slope * |i - j| to the scores (Press et al. 2021).
    key_mask: (B, S), True for real tokens.
    dropout: probability of dropping an attention weight.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    T, S = q.shape[2], k.shape[2]
    if causal and T == 1 and prefix_len is None:
        causal = False  # the one query is the last position and sees every key
        if window is not None and bias is None and alibi is None and key_mask is None:
            k, v, window, S = k[:, :, -window:], v[:, :, -window:], None, min(S, window)
    if window is not None and window >= S:
        window = None
    if alibi is not None:
        slopes = -alibi.view(-1, 1, 1) * distances(T, S, q.device).abs()  # (H, T, S)
        bias = slopes if bias is None else bias + slopes
    if softcap is not None or sinks is not None:
        mask = visible(T, S, causal=causal, window=window, prefix_len=prefix_len, key_mask=key_mask, device=q.device)
        return _explicit(q, k, v, scale, mask, bias, softcap, sinks, dropout)
    plain = window is None and prefix_len is None and bias is None and key_mask is None
    if plain and not causal:
        return _unmasked(q, k, v, scale, dropout)
    gqa = q.shape[1] != k.shape[1]
    if plain and T == S:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True, scale=scale, enable_gqa=gqa)
    mask = visible(T, S, causal=causal, window=window, prefix_len=prefix_len, key_mask=key_mask, device=q.device)
    if bias is not None:
        mask = bias.to(q.dtype) if mask is None else bias.to(q.dtype).masked_fill(~mask, -torch.inf)
        mask = mask.expand(q.shape[0], q.shape[1], T, S)
    return F.scaled_dot_product_attention(q, k, v, mask, dropout_p=dropout, scale=scale, enable_gqa=gqa)


def distances(T: int, S: int, device: torch.device | None = None) -> Tensor:
    """Position of the query minus position of the key, (T, S), the queries being the last T of S positions."""
    return torch.arange(S - T, S, device=device).unsqueeze(1) - torch.arange(S, device=device)


def visible(
    T: int,
    S: int,
    *,
    causal: bool = False,
    window: int | None = None,
    prefix_len: int | Tensor | None = None,
    key_mask: Tensor | None = None,
    device: torch.device | None = None,
) -> Tensor | None:
    """Which keys each query sees: None for all, else a boolean (T, S), (B, 1, T, S) or (B, 1, 1, S).

    Arguments as in `attention`; the prefix wins over causal and window, and key_mask over all.
    """
    mask = None
    if causal or window is not None:
        distance = distances(T, S, device)
        near = distance if causal else distance.abs()
        mask = near >= 0 if window is None else (near >= 0) & (near < window)
        if prefix_len is not None:
            length = torch.as_tensor(prefix_len, device=device).view(-1, 1, 1, 1)
            mask = mask | (torch.arange(S, device=device) < length)  # (B or 1, 1, T, S)
    if key_mask is not None:
        real = key_mask[:, None, None, :]
        mask = real if mask is None else mask & real
    return mask


def _unmasked(q: Tensor, k: Tensor, v: Tensor, scale: float, dropout: float) -> Tensor:
    """Every query sees every key, so the query heads of one key head are just more queries: nothing is repeated."""
    B, H, T, D = q.shape
    q = q.reshape(B, k.shape[1], -1, D)  # (B, Hkv, H / Hkv * T, D)
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scale).reshape(B, H, T, v.shape[-1])


def _explicit(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    mask: Tensor | None,
    bias: Tensor | None,
    softcap: float | None,
    sinks: Tensor | None,
    dropout: float,
) -> Tensor:
    """Attention with the scores written out, for what the fused operator cannot say; softmax in float32 or wider."""
    B, H, T, D = q.shape
    S, shared = k.shape[2], k.shape[1]
    scores = (q * scale).reshape(B, shared, -1, D) @ k.mT  # (B, Hkv, H / Hkv * T, S)
    scores = scores.view(B, H, T, S)
    scores = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
    scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
    scores = scores if bias is None else scores + bias
    scores = scores if mask is None else scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    if sinks is not None:
        sink = sinks.to(scores.dtype).view(1, H, 1, 1).expand(B, H, T, 1)
        scores = torch.cat((scores, sink), dim=-1)
    weights = scores.softmax(-1)[..., :S]
    weights = weights if mask is None else weights.masked_fill(~mask, 0.0)
    weights = F.dropout(weights, dropout, training=dropout > 0.0).to(v.dtype)
    return (weights.reshape(B, shared, -1, S) @ v).view(B, H, T, v.shape[-1])


def alibi_slopes(n_heads: int) -> Tensor:
    """2^(-8 h / n_heads) for h = 1 .. n_heads (Press et al. 2021), in float32 (n_heads,).

    Other than powers of two take the slopes of the power below, then every second slope of the power above.
    """
    power = 2 ** math.floor(math.log2(n_heads))
    slopes = [2.0 ** (-8.0 * h / power) for h in range(1, power + 1)]
    between = [2.0 ** (-4.0 * h / power) for h in range(1, 2 * (n_heads - power), 2)]
    return torch.tensor(slopes + between, dtype=torch.float32)


def t5_buckets(
    T: int,
    S: int,
    n_buckets: int = 32,
    max_distance: int = 128,
    bidirectional: bool = True,
    device: torch.device | None = None,
) -> Tensor:
    """Relative position buckets of T5 (Raffel et al. 2020), (T, S) integers below n_buckets.

    Half of the buckets are single distances, the others grow logarithmically up to max_distance. With bidirectional the
    upper half of all buckets is for keys after the query; without it those share bucket 0.
    """
    distance = distances(T, S, device)
    offset = torch.zeros_like(distance)
    if bidirectional:
        n_buckets //= 2
        offset = (distance < 0) * n_buckets
        distance = distance.abs()
    distance = distance.clamp(min=0)
    exact = n_buckets // 2
    growth = torch.log(distance.clamp(min=1).float() / exact) / math.log(max_distance / exact)
    far = (exact + (growth * (n_buckets - exact)).long()).clamp(max=n_buckets - 1)
    return offset + torch.where(distance < exact, distance, far)
