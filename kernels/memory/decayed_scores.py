"""Products of reads and writes within a chunk of tokens, each times the decay between its two tokens.

    scores[0][i, j] = sum_c reads[0][i, c] exp(g[j+1, c] + ... + g[i-1, c]) writes[j, c]    for j < i
    scores[1][i, j] = sum_c reads[1][i, c] exp(g[j+1, c] + ... + g[i, c]) writes[j, c]      for j <= i

The first read happens before the decay of its own token, the second after it. Alongside come the reads decayed back
to the start of the chunk, the writes decayed on to its end, and the decay of the whole chunk.

Shapes: M chunks of C tokens, m written vectors a token; reads (2, M, C, K), writes (M, m, C, K), log decays g <= 0 of
none, (M, C) or (M, C, K) -> scores (2, M, C, m C). No exponent is above zero, and no decay is a quotient:

* one value a token: exp(s[i] - s[j]) of sums s in float64, clamped at zero before the exponential. Values of g below
  FLOOR count as FLOOR, so that the differences are numbers; exp gives zero for both.
* one value a channel: products of factors exp(g) over halves of halves of the chunk. A read in the right half of a
  block is decayed back to its middle and a write in the left half on to it, so that each half of a block needs one
  matrix product, nothing overflows or cancels, and exp(-inf) = 0 is a factor like any other.

The gradient of g uses that a pair's decay is a product over the tokens between: g[l] receives read * d_read of later
tokens less write * d_write of tokens from l on, plus what reaches the end of the chunk.
"""

from typing import NamedTuple

import torch
from torch import Tensor

FLOOR = -1e4  # far below the log of the smallest number


class Decayed(NamedTuple):
    """Results, see above, and what the gradients need of the way there."""

    reads: Tensor  # (2, M, C, K)
    writes: Tensor  # (M, m C, K)
    scores: Tensor  # (2, M, C, m C)
    total: Tensor | None  # (M, 1 or K, 1)
    kept: tuple[Tensor, ...]


def decayed_scores(reads: Tensor, writes: Tensor, log_decay: Tensor | None) -> Decayed:
    """Reads, writes and scores under the decay; what is given is not changed."""
    if log_decay is None:
        scores = _products(reads, writes)
        scores[0].unflatten(-1, (-1, scores.shape[2])).transpose(1, 2).tril_(-1)
        scores[1].unflatten(-1, (-1, scores.shape[2])).transpose(1, 2).tril_()
        return Decayed(reads, writes.flatten(1, 2), scores, None, ())
    return _one_a_token(reads, writes, log_decay) if log_decay.dim() == 2 else _one_a_channel(reads, writes, log_decay)


def decayed_scores_backward(
    dreads: Tensor, dwrites: Tensor, dscores: Tensor, dtotal: Tensor, done: Decayed, reads: Tensor, writes: Tensor,
    log_decay: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
    """Gradients of reads, writes and log_decay. Those of the results may be overwritten; dtotal is (M, K)."""
    dwrites = dwrites.view_as(writes)
    if log_decay is None:
        C = dscores.shape[2]
        dscores[0].unflatten(-1, (-1, C)).transpose(1, 2).tril_(-1)
        dscores[1].unflatten(-1, (-1, C)).transpose(1, 2).tril_()
        _add_products(dreads, dwrites, dscores, reads, writes)
        return dreads, dwrites, None
    find = _one_a_token_backward if log_decay.dim() == 2 else _one_a_channel_backward
    return find(dreads, dwrites, dscores, dtotal, done, reads, writes, log_decay)


def score_flops(M: int, C: int, K: int, m: int, channels: bool) -> int:
    """Of the products in `decayed_scores`; its gradients take twice as many."""
    if not channels:
        return 4 * m * M * C * C * K
    return sum(4 * m * M * (C // (2 * s)) * s * s * K for s in _sizes(C))


def _sizes(C: int) -> list[int]:
    """Halves of blocks: 1, 2, 4 up to C / 2, C being a power of two."""
    return [1 << level for level in range(C.bit_length() - 1)]


def _products(reads: Tensor, writes: Tensor) -> Tensor:
    """Reads times writes without decay."""
    _, M, C, _ = reads.shape
    columns = writes.flatten(1, 2).mT
    scores = reads.new_empty(2, M, C, columns.shape[-1])
    for read, score in zip(reads, scores, strict=True):
        torch.bmm(read, columns, out=score)
    return scores


def _add_products(dreads: Tensor, dwrites: Tensor, dscores: Tensor, reads: Tensor, writes: Tensor) -> None:
    """Add the gradients that pass through `_products`."""
    rows, dwritten = writes.flatten(1, 2), dwrites.flatten(1, 2)
    for dread, dscore, read in zip(dreads, dscores, reads, strict=True):
        torch.baddbmm(dread, dscore, rows, out=dread)
        torch.baddbmm(dwritten, dscore.mT, read, out=dwritten)


def _one_a_token(reads: Tensor, writes: Tensor, log_decay: Tensor) -> Decayed:
    C, wide = reads.shape[2], reads.dtype
    sums = torch.nn.functional.pad(log_decay.double().clamp(min=FLOOR).cumsum(-1), (1, 0))  # (M, C + 1)
    between = (sums.unsqueeze(-1) - sums[:, None, 1:]).to(wide)  # (M, C + 1, C): row i after i tokens
    between.clamp_(max=0.0).exp_().tril_(-1)  # zero where a token would see a later one: exp(-inf) is slow on a CPU
    back, on = sums.to(wide).exp().unsqueeze(-1), (sums[:, -1:] - sums[:, 1:]).to(wide).exp().unsqueeze(-1)
    scores = _products(reads, writes)
    scores[0].unflatten(-1, (-1, C)).mul_(between[:, :C].unsqueeze(2))
    scores[1].unflatten(-1, (-1, C)).mul_(between[:, 1:].unsqueeze(2))
    near = torch.empty_like(reads)
    torch.mul(reads[0], back[:, :C], out=near[0])
    torch.mul(reads[1], back[:, 1:], out=near[1])
    return Decayed(near, (writes * on.unsqueeze(1)).flatten(1, 2), scores, back[:, -1:], (between, back, on))


def _one_a_token_backward(
    dreads: Tensor, dwrites: Tensor, dscores: Tensor, dtotal: Tensor, done: Decayed, reads: Tensor, writes: Tensor,
    log_decay: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    C = reads.shape[2]
    between, back, on = done.kept
    end = (done.total.squeeze(-1) * dtotal).sum(-1, keepdim=True) + _dots(done.writes.view_as(writes), dwrites).sum(
        (1, 2)
    ).unsqueeze(-1)
    dscores[0].unflatten(-1, (-1, C)).mul_(between[:, :C].unsqueeze(2))
    dscores[1].unflatten(-1, (-1, C)).mul_(between[:, 1:].unsqueeze(2))
    dreads[0].mul_(back[:, :C])
    dreads[1].mul_(back[:, 1:])
    dwrites.mul_(on.unsqueeze(1))
    _add_products(dreads, dwrites, dscores, reads, writes)
    before, after = _dots(reads, dreads)
    return dreads, dwrites, end - before + _later(before + after - _dots(writes, dwrites).sum(1))


def _dots(x: Tensor, y: Tensor) -> Tensor:
    return torch.linalg.vecdot(x, y)


def _later(x: Tensor) -> Tensor:
    """Sums of (M, C, ...) over this token and the later ones."""
    return x.flip(1).cumsum(1).flip(1)


def _one_a_channel(reads: Tensor, writes: Tensor, log_decay: Tensor) -> Decayed:
    _, M, C, K = reads.shape
    m = writes.shape[1]
    factor = log_decay.exp()
    near, far, total = reads.clone(), writes.clone(), factor
    near[1].mul_(factor)  # what is after its own decay is before it with a smaller read
    scores = reads.new_zeros(2, M, C, m * C)
    kept = []
    for s in _sizes(C):
        right, left, first, second = _halves(near, far, total, s)
        rows = _copy(right.transpose(0, 1)).view(-1, 2 * s, K)
        columns = _copy(left.transpose(1, 2)).view(-1, m * s, K)
        _block(scores, m, s).copy_((rows @ columns.mT).view(M, -1, 2, s, m, s).permute(2, 0, 3, 4, 5, 1))
        kept += [rows, columns, total]
        right.mul_(first)
        left.mul_(second)
        total = total[:, ::2] * total[:, 1::2]
    same = _dots(reads[1].unsqueeze(1), writes)
    scores[1].unflatten(-1, (m, C)).diagonal(dim1=1, dim2=3).copy_(same)
    return Decayed(near, far.flatten(1, 2), scores, total.mT, (factor, *kept))


def _copy(x: Tensor) -> Tensor:
    return x.clone(memory_format=torch.contiguous_format)


def _halves(reads: Tensor, writes: Tensor, total: Tensor, s: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Views of blocks of 2 s tokens: reads of right halves, writes of left halves, decay over left and right halves."""
    _, M, C, K = reads.shape
    right = reads.view(2, -1, 2, s, K)[:, :, 1]
    left = writes.view(M, -1, C // (2 * s), 2, s, K)[:, :, :, 0]
    first, second = total.view(M, -1, 2, 1, K).unbind(2)
    return right, left, first.reshape(-1, 1, K), second.unsqueeze(1)


def _block(scores: Tensor, m: int, s: int) -> Tensor:
    """View (2, M, s, m, s, C / 2s) of the scores of right halves with left halves, the blocks last."""
    _, M, C, _ = scores.shape
    blocks = scores.view(2, M, C // (2 * s), 2, s, m, C // (2 * s), 2, s)
    return blocks[:, :, :, 1, :, :, :, 0].diagonal(dim1=2, dim2=5)


def _one_a_channel_backward(
    dreads: Tensor, dwrites: Tensor, dscores: Tensor, dtotal: Tensor, done: Decayed, reads: Tensor, writes: Tensor,
    log_decay: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    _, M, C, K = reads.shape
    m = writes.shape[1]
    factor, *kept = done.kept
    end = done.total.squeeze(-1) * dtotal + (done.writes.view_as(writes) * dwrites).sum((1, 2))
    for s in reversed(_sizes(C)):
        total, columns, rows = kept.pop(), kept.pop(), kept.pop()
        right, left, first, second = _halves(dreads, dwrites, total, s)
        dblock = _block(dscores, m, s).permute(1, 5, 0, 2, 3, 4).reshape(-1, 2 * s, m * s)
        right.mul_(first).add_((dblock @ columns).view(-1, 2, s, K).transpose(0, 1))
        left.mul_(second).add_((dblock.mT @ rows).view(M, -1, m, s, K).transpose(1, 2))
    before = reads[0] * dreads[0]
    dreads[1].mul_(factor)
    dlog = end.unsqueeze(1) - before + _later(before + reads[1] * dreads[1] - (writes * dwrites).sum(1))
    same = dscores[1].unflatten(-1, (m, C)).diagonal(dim1=1, dim2=3).unsqueeze(-1)  # (M, m, C, 1)
    dreads[1].add_((same * writes).sum(1))
    dwrites.add_(same * reads[1].unsqueeze(1))
    return dreads, dwrites, dlog
