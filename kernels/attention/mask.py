"""Which keys a query of softmax attention sees: causal, windowed, dilated, sparse, prefix, global, documents, padding.

With d = i - j for a query at position i and a key at position j, the queries being the last T of S positions,

    near    = (d >= 0 if causal) and (|d| < window * dilation and d % dilation == 0, as far as they are set)
    strided = d >= 0 and (d < stride or d % stride == 0)
    fixed   = d >= 0 and (i // stride == j // stride or j % stride >= stride - summary)
    visible = (near, or the pattern in its place | j < prefix_len | global) and same document and real key

where a global key is seen by every query and a global query sees every key, with `causal` or a pattern only for d >= 0.

Sources: Beltagy et al. 2020, Longformer (window, dilation, global tokens); Child et al. 2019, Sparse Transformers
(strided, fixed: the union of both heads' patterns); Raffel et al. 2020, T5 (prefix).
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Rules(NamedTuple):
    """What decides which keys are seen; 0, 1 and "" stand for a window, a dilation and a pattern that are not there."""

    causal: bool = False
    window: int = 0
    dilation: int = 1
    pattern: str = ""
    stride: int = 0
    summary: int = 0
    key_mask: Tensor | None = None
    prefix_len: Tensor | None = None
    documents: Tensor | None = None
    global_tokens: Tensor | None = None


def distances(T: int, S: int, device: torch.device | None = None) -> Tensor:
    """Position of the query minus position of the key, (T, S), the queries being the last T of S positions."""
    return torch.arange(S - T, S, device=device).unsqueeze(1) - torch.arange(S, device=device)


def visible(
    T: int,
    S: int,
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
    key_mask: Tensor | None = None,
    device: torch.device | None = None,
) -> Tensor | None:
    """Which keys each query sees: None for all, else a boolean (T, S), (B, 1, T, S) or (B, 1, 1, S).

    Arguments as in `attention`; the prefix and global tokens win over causal, window and pattern, and documents and
    key_mask over all.
    """
    if prefix_len is not None:
        prefix_len = torch.as_tensor(prefix_len, device=device).view(-1)
    settings = (causal, window or 0, dilation, pattern or "", stride or 0, summary or 0)
    rules = Rules(*settings, key_mask, prefix_len, documents, global_tokens)
    return seen(torch.arange(S - T, S, device=device), torch.arange(S, device=device), rules)


def seen(i: Tensor, j: Tensor, rules: Rules, part: str = "") -> Tensor | None:
    """Which of the keys at positions j (m,) the queries at positions i (n,) see; shapes as those of `visible`.

    The visible pairs fall into three disjoint parts, so that each can be computed where it is dense: "near" by window,
    pattern, prefix and global keys; "far", the stride of the strided pattern; "rows", the rest of global queries.
    """
    distance = i.unsqueeze(1) - j
    mask = _near(distance, i, j, rules)
    if mask is not None:
        mask = mask if rules.prefix_len is None else mask | (j < rules.prefix_len.view(-1, 1, 1, 1))
        if rules.global_tokens is not None:
            mask = mask | _not_later(rules.global_tokens[:, None, None, j], distance, rules)
        mask = _other_parts(mask, distance, i, rules, part)
    if rules.documents is not None:
        same = rules.documents[:, None, i, None] == rules.documents[:, None, None, j]
        mask = same if mask is None else mask & same
    if rules.key_mask is not None:
        real = rules.key_mask[:, None, None, j]
        mask = real if mask is None else mask & real
    return mask


def _near(distance: Tensor, i: Tensor, j: Tensor, rules: Rules) -> Tensor | None:
    """The pairs of window and pattern, but for the far ones of the strided pattern; None for all."""
    if rules.pattern == "strided":
        return (distance >= 0) & (distance < rules.stride)
    if rules.pattern == "fixed":
        own = (i // rules.stride).unsqueeze(1) == j // rules.stride
        return (distance >= 0) & (own | (j % rules.stride >= rules.stride - rules.summary))
    mask = distance >= 0 if rules.causal else None
    if rules.window:
        close = (distance if rules.causal else distance.abs()) < rules.window * rules.dilation
        mask = close if mask is None else mask & close
    if rules.dilation > 1:
        step = distance % rules.dilation == 0
        mask = step if mask is None else mask & step
    return mask


def _not_later(mask: Tensor, distance: Tensor, rules: Rules) -> Tensor:
    return mask & (distance >= 0) if rules.causal or rules.pattern else mask


def _other_parts(near: Tensor, distance: Tensor, i: Tensor, rules: Rules, part: str) -> Tensor:
    """The part that is asked for, or all of them together, given the near one."""
    if part == "near":
        return near
    mask = near
    if rules.pattern == "strided":
        far = (distance >= 0) & (distance % rules.stride == 0)
        if part == "far":
            return far & ~near
        mask = mask | far
    if rules.global_tokens is not None:
        rows = _not_later(rules.global_tokens[:, None, i, None], distance, rules)
        mask = rows & ~mask if part == "rows" else mask | rows
    return mask


def document_ids(lengths: Tensor, total: int) -> Tensor:
    """Number the documents of one packed sequence: lengths (N,) -> (total,), 0 for the first tokens, then 1, and so on.

    What is left after the last document is one more. `lengths.diff()` of cumulative lengths, as others write packed
    sequences, are the lengths; `attention` takes one row of numbers a sequence, (B, total).
    """
    ends = lengths.cumsum(0)
    return torch.searchsorted(ends, torch.arange(total, device=lengths.device), right=True)
