"""Softmax attention as its papers define it, entry by entry and in float64."""

import torch
from torch import Tensor


def sees(
    i,
    j,
    causal=False,
    window=None,
    dilation=1,
    pattern=None,
    stride=None,
    summary=None,
    prefix_len=0,
    documents=None,
    global_tokens=None,
    key_mask=None,
):
    """Whether the query at position i sees the key at position j of one sequence; tokens are lists."""
    d = i - j
    if pattern == "strided":
        near = d >= 0 and (d < stride or d % stride == 0)
    elif pattern == "fixed":
        near = d >= 0 and (i // stride == j // stride or j % stride in range(stride - summary, stride))
    else:
        far = abs(d)
        near = (d >= 0 or not causal) and far % dilation == 0 and (window is None or far // dilation < window)
    if global_tokens is not None and (d >= 0 or not causal):
        near = near or global_tokens[j] or (i >= 0 and global_tokens[i])
    near = near or j < prefix_len
    if documents is not None and documents[i] != documents[j]:
        return False
    return bool(near) and (key_mask is None or bool(key_mask[j]))


def mask(B: int, T: int, S: int, **rules) -> Tensor:
    """(B, 1, T, S) of `sees`, the queries being the last T of S positions."""
    each = {name: rules.pop(name) for name in ("documents", "global_tokens", "key_mask") if rules.get(name) is not None}
    prefix = (
        torch.as_tensor(rules.pop("prefix_len", None) or 0).expand(B).tolist()
        if not isinstance(rules.get("prefix_len"), Tensor)
        else rules.pop("prefix_len").expand(B).tolist()
    )
    whole = torch.zeros(B, 1, T, S, dtype=torch.bool)
    for b in range(B):
        own = {name: tokens[b].tolist() for name, tokens in each.items()}
        for t in range(T):
            for j in range(S):
                whole[b, 0, t, j] = sees(S - T + t, j, prefix_len=prefix[b], **own, **rules)
    return whole


def attention(q, k, v, seen, scale=None, softcap=None, sinks=None, bias=None, alibi=None) -> Tensor:
    """sum_j exp(s_ij) v_j / (sum_j exp(s_ij) + exp(sink)) over the keys that are seen; 0 for a query that sees none."""
    (_, H, T, D), S = q.shape, k.shape[2]
    k, v = (x.repeat_interleave(H // x.shape[1], dim=1) for x in (k, v))
    scores = q @ k.mT * (D**-0.5 if scale is None else scale)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias
    if alibi is not None:
        i, j = torch.arange(S - T, S), torch.arange(S)
        scores = scores - alibi[:, None, None] * (i[:, None] - j).abs()
    weights = scores.exp() * seen
    total = weights.sum(-1, keepdim=True)
    if sinks is not None:
        total = total + sinks.exp()[:, None, None]
    return weights / total.masked_fill(total == 0, 1.0) @ v


# The masks of the papers over whole rows


def sliding(T: int, window: int) -> Tensor:
    d = torch.arange(T)[:, None] - torch.arange(T)
    return (d >= 0) & (d < window)


def strided(T: int, stride: int) -> Tensor:
    """Child et al. 2019: both heads' patterns together."""
    d = torch.arange(T)[:, None] - torch.arange(T)
    return (d >= 0) & ((d < stride) | (d % stride == 0))


def fixed(T: int, stride: int, c: int) -> Tensor:
    """Child et al. 2019: the own block, and the last c columns of every block."""
    i, j = torch.arange(T)[:, None], torch.arange(T)
    return (j <= i) & ((i // stride == j // stride) | (j % stride >= stride - c))


def longformer(T: int, one_sided: int, is_global: Tensor) -> Tensor:
    """Beltagy et al. 2020: a window of one_sided tokens each way, and global tokens both ways."""
    d = (torch.arange(T)[:, None] - torch.arange(T)).abs()
    return (d <= one_sided) | is_global | is_global[:, None]
