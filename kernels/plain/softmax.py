"""Softmax attention: o[i] = sum_j softmax_j(scale q[i] . k[j] + bias[i, j]) v[j] over the keys j that query i sees."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from archspec.kernels.plain.precision import wide

BLOCK = 128  # queries whose masks and scores exist at once


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
    chooses = (
        window is not None
        or dilation > 1
        or pattern is not None
        or prefix_len is not None
        or documents is not None
        or global_tokens is not None
    )
    written_out = softcap is not None or sinks is not None
    if causal and not chooses and not written_out and bias is None and alibi is None and key_mask is None:
        # is_causal takes the queries for the first positions, and here they are the last.
        mask = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T) if 1 < T < S else None
        return F.scaled_dot_product_attention(
            q, k, v, mask, dropout_p=dropout, is_causal=T == S, scale=scale, enable_gqa=True
        )
    if not chooses and not written_out and alibi is None and (bias is not None or not causal):
        if causal:
            mask = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
            if key_mask is not None:
                mask = mask & key_mask[:, None, None]
        else:
            mask = None if key_mask is None else key_mask[:, None, None]  # (B, 1, 1, S)
        if bias is not None:
            bias = bias.to(q.dtype)
            mask = bias if mask is None else bias.masked_fill(~mask, -torch.inf)
        return F.scaled_dot_product_attention(q, k, v, mask, dropout_p=dropout, scale=scale, enable_gqa=True)
    pairs = None if bias is None else bias.expand(*q.shape[:3], S)  # of queries and keys
    near = window is not None and prefix_len is None and global_tokens is None
    positions = torch.arange(S, device=q.device)
    end, outputs = S - T, []
    for rows in q.split(BLOCK, dim=2):
        start, end = end, end + rows.shape[2]  # the positions of these queries
        if near and causal:
            seen = slice(max(start + 1 - reach(window, dilation), 0), end)
        elif near and not causal:
            seen = slice(max(start + 1 - reach(window, dilation), 0), end - 1 + reach(window, dilation))
        elif causal and prefix_len is None:
            seen = slice(end)
        else:
            seen = slice(S)
        i, j = positions[start:end].unsqueeze(1), positions[seen]  # of queries (n, 1) and keys (m,)
        if near and not written_out and alibi is None:
            y = attention_of_block(
                rows,
                k[:, :, seen],
                v[:, :, seen],
                i,
                j,
                causal,
                window,
                dilation,
                pattern,
                stride,
                summary,
                prefix_len,
                documents,
                global_tokens,
                scale,
                softcap,
                sinks,
                None if pairs is None else pairs[:, :, i - S, j],
                alibi,
                key_mask,
                dropout,
            )
        else:
            # The backward pass makes the scores of a block again.
            y = checkpoint(
                attention_of_block,
                rows,
                k[:, :, seen],
                v[:, :, seen],
                i,
                j,
                causal,
                window,
                dilation,
                pattern,
                stride,
                summary,
                prefix_len,
                documents,
                global_tokens,
                scale,
                softcap,
                sinks,
                None if pairs is None else pairs[:, :, i - S, j],
                alibi,
                key_mask,
                dropout,
                use_reentrant=False,
            )
        outputs.append(y)
    return torch.cat(outputs, dim=2)


def attention_of_block(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    j: Tensor,
    causal: bool,
    window: int | None,
    dilation: int,
    pattern: str | None,
    stride: int | None,
    summary: int | None,
    prefix_len: int | Tensor | None,
    documents: Tensor | None,
    global_tokens: Tensor | None,
    scale: float | None,
    softcap: float | None,
    sinks: Tensor | None,
    bias: Tensor | None,
    alibi: Tensor | None,
    key_mask: Tensor | None,
    dropout: float,
) -> Tensor:
    """Attention of q (B, H, n, D) at positions i (n, 1) over k (B, H_kv, m, D) and v (B, H_kv, m, D_v) at j (m,)."""
    if causal or window is not None or dilation > 1 or documents is not None:
        mask = visible(i, j, causal, window, dilation, pattern, stride, summary, prefix_len, documents, global_tokens)
        if key_mask is not None:
            mask = mask & key_mask[:, None, None, j]
    else:
        mask = None if key_mask is None else key_mask[:, None, None, j]  # (B, 1, 1, m)
    if alibi is not None:
        fall = -alibi.view(-1, 1, 1) * (i - j).abs()  # (H, n, m)
        bias = fall if bias is None else bias + fall
    if softcap is None and sinks is None:
        if bias is not None:
            bias = bias.to(q.dtype)
            mask = bias if mask is None else bias.masked_fill(~mask, -torch.inf)
        return F.scaled_dot_product_attention(q, k, v, mask, dropout_p=dropout, scale=scale, enable_gqa=True)
    # In float32, as PyTorch's operator cannot change scores on their way.
    heads_per_key = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(heads_per_key, dim=1), v.repeat_interleave(heads_per_key, dim=1)
    scores = wide(q) @ wide(k).mT * (q.shape[3] ** -0.5 if scale is None else scale)  # (B, H, n, m)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    if sinks is not None:
        # A logit of each head that takes its share of the weights and gives nothing (gpt-oss).
        sink = wide(sinks).view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        weights = torch.cat((scores, sink), dim=-1).softmax(-1)[..., :-1]
    else:
        weights = scores.softmax(-1)
    if mask is not None and key_mask is not None:
        # A query that sees no key gives 0.
        weights = weights.masked_fill(~mask, 0.0)
    if dropout:
        weights = F.dropout(weights, dropout)
    return weights.to(v.dtype) @ v


def visible(
    i: Tensor,
    j: Tensor,
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
    """True where a query at position i (n, 1) sees a key at position j (m,)."""
    distance = i - j
    if causal:
        mask = distance >= 0
        if window is not None:
            mask = mask & (distance < reach(window, dilation))
    elif window is not None:
        mask = distance.abs() < reach(window, dilation)
    else:
        mask = torch.ones_like(distance, dtype=torch.bool)
    if dilation > 1:
        mask = mask & (distance % dilation == 0)
    if pattern == "strided" and stride is not None:
        # The last tokens, and before them every stride-th (Child et al. 2019).
        mask = mask & ((distance < stride) | (distance % stride == 0))
    if pattern == "fixed" and stride is not None and summary is not None:
        # The own block, and the last tokens of every block before (Child et al. 2019).
        mask = mask & ((i // stride == j // stride) | (j % stride >= stride - summary))
    if prefix_len is not None:
        mask = mask | (j < torch.as_tensor(prefix_len, device=j.device).view(-1, 1, 1, 1))  # (1 or B, 1, n, m)
    if global_tokens is not None:
        # They see all and are seen by all (Longformer, Beltagy et al. 2020).
        everywhere = global_tokens[:, None, i] | global_tokens[:, None, None, j]  # (B, 1, n, m)
        mask = mask | (everywhere & (distance >= 0) if causal else everywhere)
    if documents is not None:
        mask = mask & (documents[:, None, i] == documents[:, None, None, j])  # (B, 1, n, m)
    return mask


def reach(window: int, dilation: int) -> int:
    """How many positions a window spans."""
    return window if dilation == 1 else window * dilation
