"""Softmax attention with the masks, biases and normalisers of published models.

    o[i] = sum_j softmax_j(scale * q[i] . k[j] + bias[i, j]) v[j]  over the keys j that query i may see

Shapes: q (B, H, T, D), k (B, Hkv, S, D), v (B, Hkv, S, Dv) -> (B, H, T, Dv); H is a multiple of Hkv and query head h
reads key head h // (H / Hkv) (Ainslie et al. 2023). The queries are the last T of the S positions, which makes a
prefix held in a state and a whole sequence the same case. A query that sees no key gives 0. Who sees whom is said in
`attention_mask`.

What runs: all keys, or all up to the own position, go to PyTorch's operator everywhere (flash attention on a GPU). The
rest goes on a GPU to Triton (`kernels/gpu/attention.py`, not measured on a GPU). On a CPU, few pairs of queries and
keys go to PyTorch's operator with a mask, or have their scores written out (`attention_dense`), and many go in tiles
(`attention_blocks`), whose backward pass recomputes the scores and needs the output and its log-sum-exp alone. One
query reads the keys of its window and nothing else, with the query heads of a key head side by side as its queries.

PyTorch's FlexAttention says masks and score functions too, but wants the whole call compiled; it has no backward pass
on a CPU, where at T 2048 and a window of 256 its forward pass took 48 ms and tiles 36, and it is not measured on a GPU.

Measured on one CPU core, forward + backward in ms, B 1, H 8, D 64, float32, whole mask or written out -> tiles:

    case                               T 512          T 1024         T 2048         T 4096
    window 256                         34 -> 28       102 -> 55      394 -> 112     1667 -> 230
    window 1024                                                      424 -> 229     1669 -> 543
    documents of 256                   26 -> 21       91 -> 33       390 -> 97
    window 128, 8 global tokens        27 -> 42       103 -> 75      470 -> 167
    strided, stride 64                 29 -> 38       109 -> 91      516 -> 197
    fixed, stride 128, summary 8       29 -> 20       106 -> 42      436 -> 99
    soft-cap                           55 -> 44       365 -> 151     1620 -> 571
    sinks                              64 -> 25       301 -> 88      1680 -> 348
    ALiBi                              38 -> 35       244 -> 191
    key mask alone, not causal         23 -> 34       87 -> 139      353 -> 586    (so no tiles there)

ALiBi is without a gradient of its slopes (with one: 372 -> 247 at T 1024). Values narrower than keys are filled up with
zeros for the fused operator: 873 -> 207 ms at T 2048, D 64, Dv 48.
"""

from typing import Any

import torch
from torch import Tensor

from archspec.kernels.attention.arguments import check_pattern, check_shapes, check_tokens
from archspec.kernels.attention.blocks import Scores
from archspec.kernels.attention.dense import left_open, masked, plain, with_alibi, written_out
from archspec.kernels.attention.mask import Rules, distances, seen
from archspec.kernels.attention.operators import attend, attend_one
from archspec.kernels.thresholds import PAIRS_AT_ONCE, PAIRS_WRITTEN_OUT


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
    """Attention of q over k and v, in the type of v; shapes as above.

    causal: a query sees the keys up to its own position.
    window: the number of keys a query sees, itself included; without causal the keys with |i - j| < window.
    dilation: the keys of a window are so far apart, and without one all that are seen (Longformer).
    pattern: "strided" (the last `stride` keys, and every stride-th) or "fixed" (the keys of the own block of `stride`,
        and the last `summary` of each block before), with causal and in place of a window (Sparse Transformer).
    prefix_len: the first prefix_len keys are seen by every query, a number or one per sequence (B,).
    documents: (B, S) whole numbers; a query sees the keys of its own number (packed sequences: `document_ids`).
    global_tokens: (B, S), True for tokens that see and are seen by all, as far as causal allows (Longformer).
    scale: defaults to D^-0.5.
    softcap: scores become softcap * tanh(scores / softcap) before biases (Gemma 2).
    sinks: (H,) a logit per head that joins the denominator only (gpt-oss).
    bias: added to the scores, broadcastable to (B, H, T, S).
    alibi: slopes (H,), adds -slope * |i - j| to the scores (Press et al. 2021).
    key_mask: (B, S), True for real tokens.
    dropout: probability of dropping an attention weight.

    Raises ValueError or TypeError for arguments that do not fit one another.
    """
    check_shapes(q, k, v, causal, sinks, bias, alibi)
    check_pattern(causal, window, dilation, pattern, stride, summary)
    check_tokens(q, k, prefix_len, documents=documents, global_tokens=global_tokens, key_mask=key_mask)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    q, k = q.to(v.dtype), k.to(v.dtype)
    bias = bias if bias is None else bias.reshape((1,) * (4 - bias.dim()) + tuple(bias.shape))
    prefix = None if prefix_len is None else _lengths(prefix_len, q)
    settings = (causal, window or 0, dilation, pattern or "", stride or 1, summary or 1)
    rules = _that_matter(Rules(*settings, key_mask, prefix, documents, global_tokens), q.shape[2], k.shape[2])
    if q.shape[2] == 1 and rules.causal and _chooses(rules):
        k, v, bias, alibi, rules = _seen_by_the_last(k, v, bias, alibi, rules)
    T, S = q.shape[2], k.shape[2]

    of_keys = not (_chooses(rules) or rules.causal)  # what a query sees is not a matter of where it stands
    as_they_are = bias is None and alibi is None
    written = softcap is not None or sinks is not None
    if as_they_are and not written and not _chooses(rules) and rules.key_mask is None and (of_keys or T == S):
        return plain(q, k, v, rules.causal, scale, dropout)
    if q.is_cuda and not dropout and T == 1 and of_keys and as_they_are:
        return attend_one(q, k, v, rules.key_mask, sinks, 0, scale, softcap or 0.0)
    learns = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (bias, alibi))
    no_mask = of_keys and alibi is None and not (written or learns)
    most = PAIRS_WRITTEN_OUT if written or learns else PAIRS_AT_ONCE
    few = T == 1 or no_mask or (not left_open(T * S) and most >= T * S)
    if not dropout and (q.is_cuda or not few):
        return attend(q, k, v, *Scores(scale, softcap or 0.0, bias, alibi), sinks, *rules)[0]
    mask = seen(torch.arange(S - T, S, device=q.device), torch.arange(S, device=q.device), rules)
    bias = bias if alibi is None else with_alibi(bias, alibi, distances(T, S, q.device))
    if written:
        return written_out(q, k, v, scale, mask, bias, softcap, sinks, dropout)
    return masked(q, k, v, scale, mask, bias, dropout)


def _lengths(prefix_len: int | Tensor, q: Tensor) -> Tensor:
    """The length of each prefix, (B,)."""
    return torch.as_tensor(prefix_len, device=q.device).view(-1).expand(q.shape[0]).long().clamp(min=0)


def _chooses(rules: Rules) -> bool:
    """Whether more than the order of query and key decides which keys are seen."""
    masks = (rules.prefix_len, rules.documents, rules.global_tokens)
    return bool(rules.window or rules.dilation > 1 or rules.pattern) or any(x is not None for x in masks)


def _that_matter(rules: Rules, T: int, S: int) -> Rules:
    """The rules without those that change nothing for these lengths."""
    if not left_open(T * S) and rules.window * rules.dilation >= max(T, S):
        rules = rules._replace(window=0)
    if not (rules.window or rules.dilation > 1 or rules.pattern):
        if T == 1:
            rules = rules._replace(causal=False)  # the one query is the last position
        if not rules.causal:
            rules = rules._replace(prefix_len=None, global_tokens=None)
    return rules


def _seen_by_the_last(
    k: Tensor, v: Tensor, bias: Tensor | None, alibi: Tensor | None, rules: Rules
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Rules]:
    """Keys, values, biases and rules for one query at the last position, with what it sees of a window alone."""
    if rules.pattern or rules.prefix_len is not None or rules.global_tokens is not None:
        return k, v, bias, alibi, rules
    S = k.shape[2]
    first = S - 1 - (rules.window - 1) * rules.dilation if rules.window else (S - 1) % rules.dilation
    kept = slice(first, S, rules.dilation)
    if alibi is not None:
        bias, alibi = with_alibi(bias, alibi, distances(1, S, k.device)), None
    bias = bias if bias is None or bias.shape[3] == 1 else bias[..., kept]
    key_mask, documents = (x if x is None else x[:, kept] for x in (rules.key_mask, rules.documents))
    rules = Rules(key_mask=key_mask, documents=documents, stride=1, summary=1)
    return k[:, :, kept], v[:, :, kept], bias, alibi, rules


def example(
    B: int = 2, H: int = 4, Hkv: int = 2, T: int = 63, S: int = 63, D: int = 16, Dv: int = 12
) -> dict[str, Any]:
    """Arguments of `attention` with a window, a soft-cap, sinks, a bias and padding."""
    sizes = {"q": (B, H, T, D), "k": (B, Hkv, S, D), "v": (B, Hkv, S, Dv), "bias": (H, 1, S), "sinks": (H,)}
    given: dict[str, Any] = {name: torch.randn(*size, dtype=torch.float64) for name, size in sizes.items()}
    key_mask = torch.arange(S).expand(B, S) >= min(S - 1, 2)
    return {**given, "key_mask": key_mask, "causal": True, "window": 17, "softcap": 20.0}


EXAMPLES = (
    {"B": 2, "H": 4, "Hkv": 2, "T": 63, "S": 63, "D": 16, "Dv": 12},
    {"T": 1, "S": 1},
    {"T": 1, "S": 100},
    {"T": 100, "S": 100, "H": 3, "Hkv": 1, "D": 5, "Dv": 7},
    {"T": 257, "S": 257, "H": 2, "Hkv": 2},
    {"B": 0},
)
