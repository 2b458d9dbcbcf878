"""The backward pass of attention on a GPU: no score is kept, all are computed again from the stored log-sum-exp.

With p = exp(score - lse), dp = dout . v and delta = sum_j p dp - dlse = out . dout - dlse, the gradient of a score is
ds = p (dp - delta). One kernel holds a block of keys and sums dk and dv over the queries that see it, in every query
head of its group; one holds a block of queries and sums dq. Both visit blocks in one order, so that results are the
same from run to run. The gradient of a bias has a kernel of its own, which sums over broadcast axes as it goes.
"""

from typing import Any

import torch
import triton
from torch import Tensor

from archspec.kernels.attention.blocks import Scores
from archspec.kernels.gpu.attention_backward_kernels import _bias_kernel, _delta_kernel, _keys_kernel, _queries_kernel
from archspec.kernels.gpu.attention_mask import Sight
from archspec.kernels.gpu.attention_scores import (
    in_one_type,
    padded,
    rows,
    scoring,
)

ENOUGH = 132  # programs that keep a GPU busy, the multiprocessors of an H100


def gradients(
    grads: list[Tensor | None],
    outputs: list[Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scores: Scores,
    sinks: Tensor | None,
    seen: Sight,
    learns: bool,
) -> list[Tensor]:
    """Gradients of q, k, v and of those of bias, alibi and sinks that are there; outputs are out and lse.

    Without `learns` those of bias and alibi are zeros.
    """
    (out, lse), (bias, alibi) = outputs, (scores.bias, scores.alibi)
    dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    dslopes = torch.zeros(q.shape[:3] if alibi is not None else 0, dtype=torch.float32, device=q.device)
    dbias = None if bias is None else torch.zeros_like(bias)
    delta = torch.zeros_like(lse)
    if lse.numel():
        dout = torch.zeros_like(out) if grads[0] is None else grads[0]
        delta = _delta(out, dout, grads[1])
    if lse.numel() and k.shape[2]:
        tensors = (*(rows(x) for x in in_one_type(q, k, v)), rows(dout), lse, delta)
        arguments = (*tensors, seen, scoring(q, k, scores))
        _query_gradients(arguments, dq, dslopes if learns and alibi is not None else None)
        dk, dv = _key_gradients(arguments, q, k, v)
        dbias = _bias_gradient(arguments, q, k, v, bias) if learns and bias is not None else dbias
    found = [dq, dk, dv]
    if dbias is not None:
        found.append(dbias)
    if alibi is not None:
        found.append(dslopes.sum((0, 2)))
    if sinks is not None:
        share = torch.exp(sinks.float()[:, None] - lse).masked_fill(lse == -torch.inf, 0.0)
        found.append(-(share * delta).sum((0, 2)))
    return found


def _delta(out: Tensor, dout: Tensor, dlse: Tensor | None) -> Tensor:
    """out . dout - dlse for each query, (B, H, T)."""
    B, H, T, _ = out.shape
    delta = torch.empty(B, H, T, dtype=torch.float32, device=out.device)
    size = min(64, padded(T))
    grid = (triton.cdiv(T, size) * B * H,)
    _delta_kernel[grid](rows(out), rows(dout), None if dlse is None else dlse.contiguous(), delta, ROWS=size)
    return delta


def _query_gradients(arguments: tuple[Any, ...], dq: Tensor, dslopes: Tensor | None) -> None:
    B, H, T, _ = dq.shape
    sizes = _sizes(arguments, T)
    grid = (triton.cdiv(T, sizes["ROWS"]) * B * H,)
    _queries_kernel[grid](*arguments, rows(dq), dslopes, **sizes)


def _key_gradients(arguments: tuple[Any, ...], q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """dk and dv. Where key heads and keys are too few for the GPU, the heads of a group are split and summed after."""
    (B, shared, S, _), group = k.shape, q.shape[1] // k.shape[1]
    sizes = _sizes(arguments, q.shape[2], S)
    programs = triton.cdiv(S, sizes["COLUMNS"]) * B * shared
    splits = next(n for n in range(1, group + 1) if group % n == 0 and (n * programs >= ENOUGH or n == group))
    dk, dv = (
        torch.empty(splits * B, *x.shape[1:], dtype=torch.float32 if splits > 1 else x.dtype, device=x.device)
        for x in (k, v)
    )
    _keys_kernel[(programs * splits,)](*arguments, rows(dk), rows(dv), B, splits, **sizes)
    if splits > 1:
        dk, dv = (x.view(splits, B, *x.shape[1:]).sum(0) for x in (dk, dv))
    return dk, dv


def _bias_gradient(arguments: tuple[Any, ...], q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """The gradient of a bias in its own broadcast shape; a block's part of an axis of size 1 is summed in the block."""
    B, H, T, S = *q.shape[:3], k.shape[2]
    shape = (1,) * (4 - bias.dim()) + tuple(bias.shape)
    sizes = _sizes(arguments, T, S)
    blocks = (triton.cdiv(T, sizes["ROWS"]), triton.cdiv(S, sizes["COLUMNS"]))
    one_row, one_column = shape[2] == 1 and T > 1, shape[3] == 1 and S > 1
    parts = (blocks[0] if one_row else T, blocks[1] if one_column else S)
    partial = torch.empty(*shape[:2], *parts, dtype=torch.float32, device=q.device)
    grid = (blocks[0] * blocks[1] * shape[0] * shape[1],)
    repeats = (B // shape[0], H // shape[1])  # of one bias among sequences and heads
    _bias_kernel[grid](*arguments, partial, *parts, shape[1], *repeats, ONE_ROW=one_row, ONE_COLUMN=one_column, **sizes)
    partial = partial.sum(2, keepdim=True) if one_row else partial
    partial = partial.sum(3, keepdim=True) if one_column else partial
    return partial.view(bias.shape)


def _sizes(arguments: tuple[Any, ...], T: int, S: int | None = None) -> dict[str, int]:
    """Blocks for queries (T alone) or for keys."""
    q, _, v = arguments[:3]
    width, single = max(q.padded.value, v.padded.value), q.ptr.element_size() == 4
    if single:
        large, small, warps, stages = (32, 16, 4, 1) if width <= 64 else (16, 16, 4, 1)
    elif width <= 128:
        large, small, warps, stages = 128, 64, 8, 2
    else:
        large, small, warps, stages = 64, 32, 8, 1
    ROWS, COLUMNS = (large, small) if S is None else (small, large)
    ROWS = min(ROWS, padded(T))
    COLUMNS = COLUMNS if S is None else min(COLUMNS, padded(S))
    return {"ROWS": ROWS, "COLUMNS": COLUMNS, "num_warps": warps, "num_stages": stages}
