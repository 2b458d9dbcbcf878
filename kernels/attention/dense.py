"""Softmax attention over every pair of a query and a key at once: PyTorch's operator, or the scores written out."""

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.attention.blocks import padded
from archspec.kernels.backend import on_cpu
from archspec.kernels.precision import wide_type
from archspec.kernels.thresholds import PAIRS_UNPADDED


def left_open(size: int) -> bool:
    """Whether torch.export leaves a size open: a choice that depends on it would close it."""
    return isinstance(size, torch.SymInt)


def with_alibi(bias: Tensor | None, alibi: Tensor, distance: Tensor) -> Tensor:
    """The bias (1 or B, H, T, S) that ALiBi's slopes (H,) make of distances (T, S), with another one."""
    fall = -alibi.view(1, -1, 1, 1) * distance.abs()  # (1, H, T, S)
    return fall if bias is None else bias + fall


def plain(q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float, dropout: float) -> Tensor:
    """Attention over all keys or all up to the own position, in PyTorch's operator."""
    if causal:
        return _attended(q, k, v, None, True, scale, dropout)
    # the query heads of one key head are just more queries: nothing is repeated
    (B, H, T, D), shared = q.shape, k.shape[1]
    grouped = q.reshape(B, shared, H // shared * T, D)
    return _attended(grouped, k, v, None, False, scale, dropout).reshape(B, H, T, v.shape[3])


def masked(
    q: Tensor, k: Tensor, v: Tensor, scale: float, mask: Tensor | None, bias: Tensor | None, dropout: float
) -> Tensor:
    """Attention with a mask or a bias for every pair, in PyTorch's operator."""
    B, H, T, _ = q.shape
    S, shared = k.shape[2], k.shape[1]
    if bias is not None:
        mask = bias.to(q.dtype) if mask is None else bias.to(q.dtype).masked_fill(~mask, -torch.inf)
        mask = mask.expand(B, H, T, S)
    if T != 1:
        return _attended(q, k, v, mask, False, scale, dropout)
    grouped = q.reshape(B, shared, H // shared, q.shape[3])
    mask = mask if bias is None else mask.reshape(B, shared, H // shared, S)
    return _attended(grouped, k, v, mask, False, scale, dropout).reshape(B, H, 1, v.shape[3])


def _attended(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float, dropout: float
) -> Tensor:
    """PyTorch's operator; on a CPU its fused form wants values as wide as keys.

    On a GPU only its flash attention shares keys among heads: where that does not run, they are repeated.
    """
    width, group, kind = v.shape[3], q.shape[1] // k.shape[1], v.dtype
    pairs = q.shape[2] * group * k.shape[2]
    if on_cpu(q) and (left_open(pairs) or pairs >= PAIRS_UNPADDED):
        q, k, v = (padded(x, max(q.shape[3], width)) for x in (q, k, v))
    if q.is_cuda and group > 1 and (mask is not None or q.element_size() > 2 or q.shape[3] != width or width > 256):
        k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))
    shared = {"enable_gqa": True} if q.shape[1] != k.shape[1] else {}
    y = F.scaled_dot_product_attention(q, k, v, mask, dropout, causal, scale=scale, **shared)
    return y[..., :width].to(kind)  # autocast would choose another


def written_out(
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
    wide = wide_type(q)  # also for the products: in 16 bits they overflow before a soft-cap
    scores = (q.to(wide) * scale).reshape(B, shared, H // shared * T, D) @ k.to(wide).mT
    scores = scores.view(B, H, T, S).to(wide)
    scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
    scores = scores if bias is None else scores + bias
    scores = scores if mask is None else scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    if sinks is not None:
        sink = sinks.to(scores.dtype).view(1, H, 1, 1).expand(B, H, T, 1)
        scores = torch.cat((scores, sink), dim=-1)
    weights = scores.softmax(-1)[..., :S]
    weights = weights if mask is None else weights.masked_fill(~mask, 0.0)
    weights = (F.dropout(weights, dropout) if dropout else weights).to(v.dtype)
    return (weights.reshape(B, shared, H // shared * T, S) @ v).view(B, H, T, v.shape[-1]).to(v.dtype)
