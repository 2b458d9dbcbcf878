"""Chunks of a matrix memory with a decay for each key channel; see `archspec.kernels.memory.chunked`.

Here decays multiply queries and keys. For two tokens of a chunk the sum of the log decays between them is split where
the halves of the smallest block of 2, 4, 8 ... tokens that holds both of them meet: decay from the cut to the later
token, and from the earlier token to the cut. No exponent is positive, nothing cancels, a log decay of -inf is like any
other, and the products for each size of blocks are one batched matrix product. The state is held as (B, heads, K, 1,
V).
"""

import torch
from torch import Tensor

from archspec.kernels.memory.segments import (
    Segments,
    decay_gradient,
    flat_keys,
    from_rows,
    matrices,
    pass_on,
    plus,
    rows_of,
)


def halves(g: Tensor, exclusive: bool) -> tuple[list[tuple[Tensor, Tensor]], Tensor, Tensor, Tensor]:
    """Decays between the tokens of a chunk from its log decays g (..., L, K), L a power of two.

    For blocks of 2, 4, ..., L tokens, each cut in halves: the decay from the cut to each token of the later half, and
    from each token of the earlier half to the cut, (..., blocks, half, K) both; then the decay from the start of the
    chunk to each token, from each token to its end (..., L, K), and of the whole chunk (..., K). What is read before it
    is written (`exclusive`) has not yet decayed at its own token.
    """
    read = torch.zeros_like(g) if exclusive else g.clone()
    read, write, whole = read.contiguous(), torch.zeros_like(g).contiguous(), g
    levels, half = [], 1
    while half < g.shape[-2]:
        blocks = (*g.shape[:-2], -1, 2, half, g.shape[-1])
        late, early = read.view(blocks).select(-3, 1), write.view(blocks).select(-3, 0)
        levels.append((late.exp(), early.exp()))
        first, second = whole[..., 0::2, :], whole[..., 1::2, :]
        late += first.unsqueeze(-2)
        early += second.unsqueeze(-2)
        whole, half = first + second, 2 * half
    return levels, read.exp_(), write.exp_(), whole.squeeze(-2).exp()


def _block(square: Tensor, half: int) -> Tensor:
    """Of (..., L, L), where the later halves of blocks of 2 half tokens meet the earlier: (..., blocks, half, half)."""
    blocks = square.shape[-1] // (2 * half)
    cut = square.unflatten(-1, (blocks, 2 * half)).unflatten(-3, (blocks, 2 * half))
    return torch.diagonal(cut, dim1=-4, dim2=-2).movedim(-1, -3)[..., half:, :half]


def _half(x: Tensor, half: int, which: int) -> Tensor:
    """The earlier (0) or later (1) halves of blocks of 2 half tokens of x (..., L, K): (..., blocks, half, K)."""
    return x.unflatten(-2, (-1, 2, half)).select(-3, which)


def _vector_scores(q: Tensor, k: Tensor, levels: list[tuple[Tensor, Tensor]], s: Segments) -> Tensor:
    """Products of queries and decayed keys (chunks, B, heads, L, L)."""
    scores = q.new_zeros(*q.shape[:-1], s.L)
    if not s.exclusive:
        scores.diagonal(dim1=-2, dim2=-1).copy_((q * k).sum(-1))
    for late, early in levels:
        half = late.shape[-2]
        _block(scores, half).copy_((_half(q, half, 1) * late) @ (_half(k, half, 0) * early).mT)
    return scores


def vector_forward(q: Tensor, k: Tensor, v: Tensor, g: Tensor, y: Tensor, states: list[Tensor], s: Segments) -> None:
    """As `scalar_forward`, every head being a group of its own, for log decays (chunks, B, heads, L, K)."""
    levels, read, write, whole = halves(g, s.exclusive)
    scores = flat_keys(_vector_scores(q, k, levels, s))
    q, k, whole = flat_keys(q * read), flat_keys(k * write), whole.unsqueeze(-1).unsqueeze(-1)
    for i in range(len(q)):
        rows = rows_of(v[i])
        before = q[i] @ matrices(states[i])
        pass_on(states[i], states[i + 1], whole[min(i, len(whole) - 1)], k[i], rows)
        y[i] = from_rows(plus(before, scores[i], rows), v[i])


def vector_backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dy: Tensor,
    g: Tensor,
    states: Tensor,
    carry: Tensor,
    s: Segments,
    learned: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """As `scalar_backward`, every head being a group of its own, for log decays (chunks, B, heads, L, K)."""
    levels, read, write, whole = halves(g, s.exclusive)
    scores = flat_keys(_vector_scores(q, k, levels, s))
    read_q, write_k = flat_keys(q * read), flat_keys(k * write)
    dq, dk = torch.empty_like(read_q), torch.empty_like(write_k)
    dscores, dv = torch.empty_like(scores), torch.empty(v.shape, dtype=s.wide, device=s.device)
    ends = q.new_zeros(len(q), s.B, s.H, s.K)
    for i in reversed(range(len(q))):
        rows, drows, entering, leaving = rows_of(v[i]), rows_of(dy[i]), matrices(states[i]), matrices(carry)
        torch.bmm(drows, rows.mT, out=dscores[i])
        torch.bmm(drows, entering.mT, out=dq[i])
        torch.bmm(rows, leaving.mT, out=dk[i])
        dv[i] = from_rows(plus(write_k[i] @ leaving, scores[i].mT, drows), v[i])
        if learned:
            ends[i] = (states[i] * carry).sum((3, 4))
        pass_on(carry, carry, whole[min(i, len(whole) - 1)].unsqueeze(-1).unsqueeze(-1), read_q[i], drows)
    dq, dk, dscores = dq.view(q.shape).mul_(read), dk.view(k.shape).mul_(write), dscores.view(*q.shape[:-1], s.L)
    ends = (ends * whole + (dk * k).sum(-2)) if learned else None
    for late, early in levels:
        half = late.shape[-2]
        meet = _block(dscores, half)
        _half(dq, half, 1).addcmul_(meet @ (_half(k, half, 0) * early), late)
        _half(dk, half, 0).addcmul_(meet.mT @ (_half(q, half, 1) * late), early)
    dg = None
    if ends is not None:
        dg = decay_gradient((dq * q).mT, (dk * k).mT, ends, s.exclusive).mT.unsqueeze(3)
    if not s.exclusive:
        own = dscores.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
        dq.addcmul_(own, k)
        dk.addcmul_(own, q)
    return dq, dk, dv, dg
