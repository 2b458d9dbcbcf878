"""Softmax attention as operators of torch.library: in tiles, by Triton on a GPU, with a gradient that recomputes.

`attend(q, k, v, *scores, sinks, *rules)` gives the output and, for its own backward pass, the log-sum-exp of the scores
of each query; `attend_one` is for one query over a long cache, whose keys a GPU reads in parallel.
"""

from collections.abc import Sequence
from math import prod
from types import ModuleType
from typing import Any

from torch import Tensor

from archspec.kernels.attention.blocks import Scores, backward_blocks, forward_blocks
from archspec.kernels.attention.mask import Rules
from archspec.kernels.backend import gpu
from archspec.kernels.library import Shape, operator
from archspec.kernels.precision import wide_type


def _kernels(q: Tensor, v: Tensor) -> ModuleType | None:
    """The Triton kernels, where there are any and the heads are not too wide for them."""
    fast = gpu("attention", q)
    return fast if fast is not None and max(q.shape[3], v.shape[3]) <= fast.MAX_WIDTH else None


def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    softcap: float,
    bias: Tensor | None,
    alibi: Tensor | None,
    sinks: Tensor | None,
    causal: bool,
    window: int,
    dilation: int,
    pattern: str,
    stride: int,
    summary: int,
    key_mask: Tensor | None,
    prefix_len: Tensor | None,
    documents: Tensor | None,
    global_tokens: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp (B, H, T) of the visible scores and the sink, in float32 or wider."""
    scores = Scores(scale, softcap, bias, alibi)
    settings = (causal, window, dilation, pattern, stride, summary)
    rules = Rules(*settings, key_mask, prefix_len, documents, global_tokens)
    run = forward_blocks if (fast := _kernels(q, v)) is None else fast.forward
    return run(q, k, v, scores, sinks, rules)


def _backward(
    grads: list[Tensor | None],
    outputs: list[Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *settings: Any,
    needed: Sequence[bool],
) -> list[Tensor]:
    """Gradients; those of bias and alibi cost passes of their own and are zeros where they are not needed."""
    scores, sinks, rules = Scores(*settings[:4]), settings[4], Rules(*settings[5:])
    learns = any(needed[3 : 3 + sum(x is not None for x in (scores.bias, scores.alibi))])
    run = backward_blocks if (fast := _kernels(q, v)) is None else fast.backward
    return run(grads, outputs, q, k, v, scores, sinks, rules, learns)


def _fake(q: Tensor, k: Tensor, v: Tensor, *others: object) -> tuple[Tensor, Tensor]:
    return v.new_empty(*q.shape[:3], v.shape[3]), q.new_empty(q.shape[:3], dtype=wide_type(q))


def _flops(q: Shape, k: Shape, v: Shape, *others: object) -> int:
    """Two products over all T x S pairs, as PyTorch counts its own operator."""
    return 2 * prod(q[:3]) * k[2] * (q[3] + v[3])


def _backward_flops(q: Shape, k: Shape, v: Shape, *others: object, needed: Sequence[bool] = ()) -> int:
    """Five products: the scores again, and the gradients of weights, values, queries and keys."""
    return 2 * prod(q[:3]) * k[2] * (3 * q[3] + 2 * v[3])


attend = operator(
    "attention",
    _forward,
    _backward,
    _fake,
    flops=_flops,
    backward_flops=_backward_flops,
    keeps=(0, 1),
    selective=True,
)


def _decode(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_mask: Tensor | None,
    sinks: Tensor | None,
    window: int,
    scale: float,
    softcap: float,
) -> Tensor:
    """One query, split over the keys where there is a kernel for it."""
    if (fast := _kernels(q, v)) is not None:
        return fast.decode(q, k, v, key_mask, sinks, window, scale, softcap)
    rules = Rules(causal=True, window=window, key_mask=key_mask)
    return forward_blocks(q, k, v, Scores(scale, softcap, None, None), sinks, rules)[0]


def _decode_backward(
    grads: list[Tensor | None],
    outputs: list[Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_mask: Tensor | None,
    sinks: Tensor | None,
    window: int,
    scale: float,
    softcap: float,
) -> list[Tensor]:
    """The general gradient, after the general forward pass for its log-sum-exp."""
    rules = Rules(causal=True, window=window, stride=1, summary=1, key_mask=key_mask)
    inputs = (q, k, v, *Scores(scale, softcap, None, None), sinks, *rules)
    return _backward([grads[0], None], list(_forward(*inputs)), *inputs, needed=[True] * 3)


attend_one = operator(
    "attention_decode",
    _decode,
    _decode_backward,
    lambda *inputs: _fake(*inputs)[0],
    flops=_flops,
    backward_flops=_backward_flops,
)
