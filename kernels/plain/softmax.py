"""Softmax attention: o[i] = sum_j softmax_j(scale q[i] . k[j] + bias[i, j]) v[j] over the keys j that query i sees."""

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.plain.precision import wide


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    window: int | None = None,
    dilation: int = 1,
    pattern: str | None = None,
    stride: int | None = None,
    summary: int | None = None,
    prefix_len: int | Tensor | None = None,
    documents: Tensor | None = None,
    global_tokens: Tensor | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    bias: Tensor | None = None,
    alibi: Tensor | None = None,
    key_mask: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention of q (B, H, T, D), the last T of S positions, over k (B, H_kv, S, D) and v (B, H_kv, S, D_v)."""
    T, S = q.shape[2], k.shape[2]
    if (
        causal
        and window is None
        and dilation == 1
        and pattern is None
        and prefix_len is None
        and documents is None
        and global_tokens is None
        and softcap is None
        and sinks is None
        and bias is None
        and alibi is None
        and key_mask is None
    ):
        # is_causal takes the queries for the first positions, and here they are the last.
        mask = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T) if 1 < T < S else None
        return F.scaled_dot_product_attention(
            q, k, v, mask, dropout_p=dropout, is_causal=T == S, scale=scale, enable_gqa=True
        )
    if window is not None or dilation > 1 or pattern is not None or prefix_len is not None or documents is not None:
        mask = visible(q, k, causal, window, dilation, pattern, stride, summary, prefix_len, documents, global_tokens)
        if key_mask is not None:
            mask = mask & key_mask[:, None, None]
    elif causal:
        mask = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
        if key_mask is not None:
            mask = mask & key_mask[:, None, None]
    else:
        mask = None if key_mask is None else key_mask[:, None, None]  # (B, 1, 1, S)
    if softcap is not None or sinks is not None:
        return attention_by_scores(q, k, v, mask, causal, scale, softcap, sinks, bias, alibi, key_mask, dropout)
    if alibi is not None:
        fall = -alibi.view(1, -1, 1, 1) * distances(q, k).abs()
        bias = fall if bias is None else bias + fall
    if bias is not None:
        bias = bias.to(q.dtype)
        mask = bias if mask is None else bias.masked_fill(~mask, -torch.inf)
    return F.scaled_dot_product_attention(q, k, v, mask, dropout_p=dropout, scale=scale, enable_gqa=True)


def visible(
    q: Tensor,
    k: Tensor,
    causal: bool,
    window: int | None,
    dilation: int,
    pattern: str | None,
    stride: int | None,
    summary: int | None,
    prefix_len: int | Tensor | None,
    documents: Tensor | None,
    global_tokens: Tensor | None,
) -> Tensor:
    """True where a query sees a key, (T, S) or (B, 1, T, S), the queries being the last T of S positions."""
    T, S = q.shape[2], k.shape[2]
    mask = torch.ones(T, S, dtype=torch.bool, device=q.device)
    if causal:
        mask = mask.tril(S - T)
    if window is not None:
        mask = mask.triu(S - T + 1 - reach(window, dilation))
    if window is not None and not causal:
        mask = mask.tril(S - T - 1 + reach(window, dilation))
    if dilation > 1:
        mask = mask & (distances(q, k) % dilation == 0)
    if pattern == "strided" and stride is not None:
        # The last tokens, and before them every stride-th (Child et al. 2019).
        mask = mask & ((distances(q, k) < stride) | (distances(q, k) % stride == 0))
    if pattern == "fixed" and stride is not None and summary is not None:
        # The own block, and the last tokens of every block before (Child et al. 2019).
        block = torch.arange(S, device=q.device) // stride
        last = torch.arange(S, device=q.device) % stride >= stride - summary
        mask = mask & ((block[S - T :].unsqueeze(1) == block) | last)
    if prefix_len is not None:
        prefix = torch.as_tensor(prefix_len, device=q.device).view(-1, 1, 1, 1)
        mask = mask | (torch.arange(S, device=q.device) < prefix)  # (1 or B, 1, T, S)
    if global_tokens is not None:
        # They see all and are seen by all (Longformer, Beltagy et al. 2020).
        everywhere = global_tokens[:, None, S - T :, None] | global_tokens[:, None, None]  # (B, 1, T, S)
        mask = mask | (everywhere & (distances(q, k) >= 0) if causal else everywhere)
    if documents is not None:
        mask = mask & (documents[:, None, S - T :, None] == documents[:, None, None])  # (B, 1, T, S)
    return mask


def reach(window: int, dilation: int) -> int:
    """How many positions a window spans."""
    return window if dilation == 1 else window * dilation


def distances(q: Tensor, k: Tensor) -> Tensor:
    """Position of the query minus position of the key, (T, S)."""
    return torch.arange(k.shape[2] - q.shape[2], k.shape[2], device=q.device).unsqueeze(1) - torch.arange(
        k.shape[2], device=q.device
    )


def attention_by_scores(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    causal: bool,
    scale: float | None,
    softcap: float | None,
    sinks: Tensor | None,
    bias: Tensor | None,
    alibi: Tensor | None,
    key_mask: Tensor | None,
    dropout: float,
) -> Tensor:
    """Attention with its scores written out, in float32: PyTorch's operator cannot change them on the way."""
    heads_per_key = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(heads_per_key, dim=1), v.repeat_interleave(heads_per_key, dim=1)
    scores = wide(q) @ wide(k).mT * (q.shape[3] ** -0.5 if scale is None else scale)  # (B, H, T, S)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias
    if alibi is not None:
        scores = scores - alibi.view(-1, 1, 1) * distances(q, k).abs()
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    if sinks is not None:
        # A logit of each head that takes its share of the weights and gives nothing (gpt-oss).
        sink = wide(sinks).view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        weights = torch.cat((scores, sink), dim=-1).softmax(-1)[..., :-1]
    else:
        weights = scores.softmax(-1)
    if mask is not None and (key_mask is not None or not causal):
        # A query that sees no key gives 0.
        weights = weights.masked_fill(~mask, 0.0)
    if dropout:
        weights = F.dropout(weights, dropout)
    return weights.to(v.dtype) @ v
