"""Softmax attention tile by tile: what `attention` computes, without anything of size (T, S).

With p[i, j] = exp(score[i, j] - lse[i]),

    out[i] = sum_j p[i, j] v[j],  lse[i] = log(sum_j exp(score[i, j]) + exp(sink))
    d score[i, j] = p[i, j] (dout[i] . v[j] - dout[i] . out[i] + dlse[i])

so the backward pass needs out and lse alone: it computes the scores of one tile again, uses them, and forgets them. The
sums of a query whose keys lie in several tiles are joined by their lse. On a CPU a tile runs in PyTorch's fused
attention, which can do everything but a soft-cap and the gradients of biases; otherwise as products of matrices in
float32, or float64 for float64.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.attention.mask import Rules, seen
from archspec.kernels.attention.tiles import Tile, Where, reach, tiles
from archspec.kernels.precision import wide_type

ROWS = 128  # queries of a tile; twice as many where they see more keys than NEARBY
NEARBY = 512
SCORES = 1 << 20  # numbers that the scores of a tile may have where they are written out; biases alone four times


class Scores(NamedTuple):
    """What makes scores of products: a factor, a soft-cap (0 for none), and what is added; bias has four axes."""

    scale: float
    softcap: float
    bias: Tensor | None
    alibi: Tensor | None


def forward_blocks(
    q: Tensor, k: Tensor, v: Tensor, scores: Scores, sinks: Tensor | None, rules: Rules
) -> tuple[Tensor, Tensor]:
    """The output (B, H, T, Dv) in the type of v, and lse (B, H, T) in float32 or wider."""
    B, H, T, D = q.shape
    width, wide = v.shape[3], wide_type(q)
    fused = _can_fuse(q, scores)
    if fused:
        q, k, v = (padded(x, max(D, width)) for x in (q, k, v))
    in_parts = rules.pattern == "strided" or rules.global_tokens is not None
    out = v.new_zeros(B, H, T, v.shape[3], dtype=wide if in_parts else v.dtype)
    lse = q.new_full((B, H, T), -torch.inf, dtype=wide)
    for tile, added in _tiles_with_added(q, k, scores, rules, fused):
        q_tile, k_tile, v_tile = q[:, :, tile.queries], k[:, :, tile.keys], v[:, :, tile.keys]
        y, log_sum = (_fused if fused else _explicit)(q_tile, k_tile, v_tile, scores, added)
        if tile.part != "near":
            y, log_sum = _joined(out[:, :, tile.queries], lse[:, :, tile.queries], y, log_sum)
        out[:, :, tile.queries], lse[:, :, tile.queries] = y.to(out.dtype), log_sum
    out = out[..., :width]
    if sinks is not None:
        keys_only, lse = lse, torch.logaddexp(lse, sinks.to(wide).unsqueeze(1))
        out = out * torch.exp(keys_only - _finite(lse)).unsqueeze(-1)
    return out.to(v.dtype), lse


def backward_blocks(
    grads: list[Tensor | None],
    outputs: list[Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scores: Scores,
    sinks: Tensor | None,
    rules: Rules,
    learns: bool = True,
) -> list[Tensor]:
    """Gradients of q, k, v and of those of bias, alibi and sinks that are there; without `learns` biases have zeros."""
    out, lse = outputs
    (D, width), wide = (q.shape[3], v.shape[3]), wide_type(q)
    dout = torch.zeros_like(out) if grads[0] is None else grads[0].to(out.dtype)
    delta = (dout.to(wide) * out).sum(-1)  # dout . out - dlse, (B, H, T)
    delta = delta if grads[1] is None else delta - grads[1]
    base = _finite(lse)
    dsinks = [] if sinks is None else [-(torch.exp(sinks.to(wide).unsqueeze(1) - base) * delta).sum((0, 2))]
    learns = learns and not (scores.bias is None and scores.alibi is None)
    fused = _can_fuse(q, scores) and not learns and grads[1] is None
    if fused:
        q, k, v, out, dout = (padded(x, max(D, width)) for x in (q, k, v, out, dout))
    dq, dk, dv = (torch.zeros_like(x, dtype=wide, memory_format=torch.contiguous_format) for x in (q, k, v))
    dbias, dalibi = (None if x is None else torch.zeros_like(x, dtype=wide) for x in (scores.bias, scores.alibi))
    for tile, added in _tiles_with_added(q, k, scores, rules, fused):
        of_rows = (x[:, :, tile.queries] for x in (q, dout, out, base, delta))
        of_keys = (x[:, :, tile.keys] for x in (k, v))
        if fused:
            *parts, dscores = _fused_backward(*of_rows, *of_keys, scores, added)
        else:
            *parts, dscores = _explicit_backward(*of_rows, *of_keys, scores, added)
        for total, part, where in zip((dq, dk, dv), parts, (tile.queries, tile.keys, tile.keys), strict=True):
            _add(total, where, part)
        if dbias is not None and learns:
            _add_to_bias(dbias, tile, dscores)
        if dalibi is not None and learns:
            dalibi -= dscores.sum(0).flatten(1) @ _distance(tile, q, k).flatten()
    others = [x for x in (dbias, dalibi) if x is not None]
    return [dq[..., :D], dk[..., :D], dv[..., :width], *others, *dsinks]


# What is added to scores


def _tiles_with_added(
    q: Tensor, k: Tensor, scores: Scores, rules: Rules, fused: bool
) -> Iterator[tuple[Tile, Tensor | None]]:
    """The tiles, each with what is added to its scores, (n, m) or four axes that broadcast: biases, -inf for unseen."""
    B, H, T, _ = q.shape
    S = k.shape[2]
    if q.numel() == 0 or S == 0:
        return
    rows = _rows(B * H, H, min(S, reach(rules, S)), scores, fused)
    data = (rules.prefix_len, rules.documents, rules.global_tokens, rules.key_mask, scores.bias)
    alike = rules.pattern != "fixed" and all(x is None for x in data)  # tiles of one shape
    before, added = None, None
    for tile in tiles(T, rules, rows, torch.arange(S, device=k.device)):
        shape = _shape(tile) if alike else None
        if shape is None or shape != before:
            added = _added(tile, q, k, scores, rules)
        before = shape
        yield tile, added


def _rows(sequences: int, H: int, furthest: int, scores: Scores, fused: bool) -> int:
    """Queries of a tile, so that what is written out for it stays small."""
    rows = 2 * ROWS if furthest > NEARBY and fused else ROWS
    if not fused:
        return min(max(SCORES // (sequences * (furthest + ROWS)), ROWS // 8), rows)
    heads = 1 if scores.alibi is None else H
    heads = heads if scores.bias is None else max(heads, scores.bias.shape[0] * scores.bias.shape[1])
    return min(max(4 * SCORES // (heads * (furthest + ROWS)), ROWS // 8), rows)


def _shape(tile: Tile) -> tuple[int, ...] | None:
    """Lengths, offset and step of a tile of runs."""
    if not (isinstance(tile.queries, slice) and isinstance(tile.keys, slice)):
        return None
    (a, b, step), (low, high, _) = ((x.start, x.stop, x.step) for x in (tile.queries, tile.keys))
    return b - a, high - low, low - a, step


def _added(tile: Tile, q: Tensor, k: Tensor, scores: Scores, rules: Rules) -> Tensor | None:
    i, j = _positions(tile, q, k)
    mask = seen(i, j, rules, tile.part)
    added = None if scores.bias is None else scores.bias[_corner(scores.bias, tile)].to(wide_type(q))
    if scores.alibi is not None:
        fall = -scores.alibi.to(wide_type(q)).view(-1, 1, 1) * _distance(tile, q, k)
        added = fall.unsqueeze(0) if added is None else added + fall
    if mask is None or bool(mask.all()):
        return added
    return torch.where(mask, q.new_zeros((), dtype=wide_type(q)) if added is None else added, -torch.inf)


def _positions(tile: Tile, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    T, S = q.shape[2], k.shape[2]
    return torch.arange(S - T, S, device=q.device)[tile.queries], torch.arange(S, device=q.device)[tile.keys]


def _distance(tile: Tile, q: Tensor, k: Tensor) -> Tensor:
    i, j = (x.to(wide_type(q)) for x in _positions(tile, q, k))
    return (i.unsqueeze(1) - j).abs()


def _corner(bias: Tensor, tile: Tile) -> tuple[Where, ...]:
    """The index of a tile's part of a bias, whose axes may be 1."""
    rows = slice(None) if bias.shape[2] == 1 else tile.queries
    columns = slice(None) if bias.shape[3] == 1 else tile.keys
    if isinstance(rows, slice) or isinstance(columns, slice):
        return slice(None), slice(None), rows, columns
    return slice(None), slice(None), rows.unsqueeze(1), columns


def _add_to_bias(dbias: Tensor, tile: Tile, dscores: Tensor) -> None:
    corner = _corner(dbias, tile)
    part = dbias[corner]
    dbias[corner] = part + dscores.sum_to_size(part.shape)


# One tile


def _fused(q: Tensor, k: Tensor, v: Tensor, scores: Scores, added: Tensor | None) -> tuple[Tensor, Tensor]:
    """Output and lse of q (B, H, n, D) over k, v (B, Hkv, m, D), by PyTorch's fused attention of the CPU."""
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q, k, v, attn_mask=_of_tile(added, q, k), scale=scores.scale
    )
    if added is not None and bool((lse == 0).any()):  # as it is for a query that sees no key
        lse = lse.masked_fill((added == -torch.inf).all(-1), -torch.inf)
    return out, lse


def _fused_backward(
    q: Tensor,
    dout: Tensor,
    out: Tensor,
    lse: Tensor,
    delta: Tensor,
    k: Tensor,
    v: Tensor,
    scores: Scores,
    added: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, None]:
    """Gradients of q, k, v; those of the scores are not given."""
    dq, dk, dv = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        dout, q, k, v, out, lse, 0.0, False, attn_mask=_of_tile(added, q, k), scale=scores.scale
    )
    return dq, dk, dv, None


def _of_tile(added: Tensor | None, q: Tensor, k: Tensor) -> Tensor | None:
    return None if added is None else added.expand(*added.shape[:-2], q.shape[2], k.shape[2]).to(q.dtype)


def _explicit(q: Tensor, k: Tensor, v: Tensor, scores: Scores, added: Tensor | None) -> tuple[Tensor, Tensor]:
    """The same with the scores written out."""
    scored, _ = _scored(q, k, scores, added)
    lse = scored.logsumexp(-1)
    weights = scored.sub_(_finite(lse).unsqueeze(-1)).exp_()
    return _times_keys(weights, v), lse


def _explicit_backward(
    q: Tensor,
    dout: Tensor,
    out: Tensor,
    lse: Tensor,
    delta: Tensor,
    k: Tensor,
    v: Tensor,
    scores: Scores,
    added: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and of the scores (B, H, n, m)."""
    scored, slope = _scored(q, k, scores, added)
    weights = scored.sub_(lse.unsqueeze(-1)).exp_()
    dv = _over_queries(weights, dout, v)
    dscores = _against_keys(dout.to(weights.dtype), v).sub_(delta.unsqueeze(-1)).mul_(weights)
    dproducts = (dscores if slope is None else dscores * slope) * scores.scale
    return _times_keys(dproducts, k), _over_queries(dproducts, q, k), dv, dscores


def _scored(q: Tensor, k: Tensor, scores: Scores, added: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Scores (B, H, n, m) in float32 or wider, and the slope of the soft-cap there."""
    scored, slope = _against_keys(q.to(wide_type(q)) * scores.scale, k), None
    if scores.softcap:
        bend = scored.div_(scores.softcap).tanh_()
        slope = 1 - bend.square()
        scored = bend * scores.softcap
    return scored if added is None else scored.add_(added), slope


def _against_keys(x: Tensor, k: Tensor) -> Tensor:
    """x (B, H, n, D) times k (B, Hkv, m, D): (B, H, n, m)."""
    B, H, n, D = x.shape
    return (x.reshape(B, k.shape[1], -1, D) @ k.to(x.dtype).mT).view(B, H, n, -1)


def _times_keys(weights: Tensor, k: Tensor) -> Tensor:
    """Weights (B, H, n, m) times k (B, Hkv, m, D): (B, H, n, D)."""
    B, H, n, m = weights.shape
    return (weights.view(B, k.shape[1], -1, m) @ k.to(weights.dtype)).view(B, H, n, -1)


def _over_queries(weights: Tensor, x: Tensor, k: Tensor) -> Tensor:
    """Weights (B, H, n, m) of x (B, H, n, D), summed over the queries of each key of k: (B, Hkv, m, D)."""
    B, _, _, m = weights.shape
    return weights.view(B, k.shape[1], -1, m).mT @ x.reshape(B, k.shape[1], -1, x.shape[3]).to(weights.dtype)


def _joined(out: Tensor, lse: Tensor, more: Tensor, log_sum: Tensor) -> tuple[Tensor, Tensor]:
    """Output and lse over two sets of keys."""
    total = torch.logaddexp(lse, log_sum)
    base = _finite(total)
    return out * torch.exp(lse - base).unsqueeze(-1) + more * torch.exp(log_sum - base).unsqueeze(-1), total


def _add(total: Tensor, where: Where, part: Tensor) -> None:
    if isinstance(where, slice):
        total[:, :, where] += part
    else:
        total.index_add_(2, where, part.to(total.dtype))


def _can_fuse(q: Tensor, scores: Scores) -> bool:
    return q.device.type == "cpu" and not scores.softcap


def padded(x: Tensor, width: int) -> Tensor:
    """Zeros after the channels, which change no product: the fused attention wants one width, and unit strides."""
    return F.pad(x, (0, width - x.shape[-1])) if x.shape[-1] < width else x if x.stride(-1) == 1 else x.contiguous()


def _finite(lse: Tensor) -> Tensor:
    """lse with 0 for a query that sees nothing."""
    return lse.masked_fill(lse == -torch.inf, 0.0)
