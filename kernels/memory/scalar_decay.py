"""Chunks of a matrix memory with one decay a head, or none; see `archspec.kernels.memory.chunked`.

A decay of one number a head multiplies what goes into and comes out of matrix products that all heads of a group share,
so that queries and keys are never repeated. The state is held as (B, groups, K, heads of a group, V), one matrix a
group.
"""

import torch
import torch.nn.functional as F
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


def _scalar_decays(g: Tensor, exclusive: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `halves` gives for one decay a head, g (chunks, B, groups, heads of the group, L).

    The decay between any two tokens (chunks, B, groups, heads of the group, L, L), from the start of the chunk to each
    token and from each to its end, as values are laid out, and of the whole chunk, as states are. Differences of sums
    are exact: multiples of 1 / 256, which float32 adds up without error, and the small remainders apart.
    """
    g = g.clamp(min=-746.0 if g.dtype == torch.float64 else -104.0)  # the exponential of which is zero
    coarse = (g * 256.0).round_().mul_(1 / 256.0)
    fine = (g - coarse).cumsum(-1)
    coarse = coarse.cumsum(-1)
    read_coarse, read_fine = (F.pad(x[..., :-1], (1, 0)) if exclusive else x for x in (coarse, fine))
    between = read_coarse.unsqueeze(-1) - coarse.unsqueeze(-2)
    between.add_(read_fine.unsqueeze(-1)).sub_(fine.unsqueeze(-2)).exp_().tril_(-1 if exclusive else 0)
    write = (coarse[..., -1:] - coarse).add_(fine[..., -1:] - fine).exp_()
    whole = (coarse[..., -1] + fine[..., -1]).exp_()
    read, write = (x.movedim(-1, 2).unsqueeze(-1) for x in ((read_coarse + read_fine).exp_(), write))
    return between, read, write, whole.unsqueeze(3).unsqueeze(-1)


def heads_of(x: Tensor) -> Tensor:
    """(B, L, groups, heads of the group, V) -> one matrix a head: (B heads, L, V)."""
    return x.permute(0, 2, 3, 1, 4).reshape(-1, x.shape[1], x.shape[4])


def from_heads(x: Tensor, like: Tensor) -> Tensor:
    """(B heads, L, V) -> (B, L, groups, heads of the group, V)."""
    B, L, G, R, V = like.shape
    return x.view(B, G, R, L, V).permute(0, 3, 1, 2, 4)


def scalar_forward(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, y: Tensor, states: list[Tensor], s: Segments
) -> None:
    """Fill y (chunks, B, L, groups, heads of the group, V) and the states after the first, which enters the segment."""
    q, k = flat_keys(q), flat_keys(k)
    scores = q @ k.mT
    if g is None:
        scores.tril_(-1 if s.exclusive else 0)
        for i in range(len(q)):
            rows = rows_of(v[i])
            read = q[i] @ matrices(states[i])
            pass_on(states[i], states[i + 1], None, k[i], rows)
            y[i] = from_rows(plus(read, scores[i], rows), v[i])
        return
    between, read, write, whole = _scalar_decays(g, s.exclusive)
    for i in range(len(q)):
        c = min(i, len(whole) - 1)
        before = from_rows(q[i] @ matrices(states[i]), v[i])
        pass_on(states[i], states[i + 1], whole[c], k[i], rows_of(v[i] * write[c]))
        weights = scores[i].view(s.B, s.G, 1, s.L, s.L) * between[c]
        inside = from_heads(weights.view(-1, s.L, s.L) @ heads_of(v[i]), v[i])
        torch.addcmul(inside, before, read[c], out=y[i])


def _plain_backward(
    q: Tensor, k: Tensor, v: Tensor, dy: Tensor, states: Tensor, carry: Tensor, s: Segments
) -> tuple[Tensor, Tensor, Tensor, None]:
    """`scalar_backward` where nothing decays."""
    shape, own = q.shape, -1 if s.exclusive else 0
    q, k = flat_keys(q), flat_keys(k)
    scores = (q @ k.mT).tril_(own)
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty(v.shape, dtype=s.wide, device=s.device)
    for i in reversed(range(len(q))):
        rows, drows, entering, leaving = rows_of(v[i]), rows_of(dy[i]), matrices(states[i]), matrices(carry)
        dscores = (drows @ rows.mT).tril_(own)
        torch.baddbmm(drows @ entering.mT, dscores, k[i], out=dq[i])
        torch.baddbmm(rows @ leaving.mT, dscores.mT, q[i], out=dk[i])
        dv[i] = from_rows(plus(k[i] @ leaving, scores[i].mT, drows), v[i])
        pass_on(carry, carry, None, q[i], drows)
    return dq.view(shape), dk.view(shape), dv, None


def scalar_backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dy: Tensor,
    g: Tensor | None,
    states: Tensor,
    carry: Tensor,
    s: Segments,
    learned: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients of q, k, v and the log decays of a segment, in its layouts.

    states are those that enter the chunks; carry is the gradient of the state after the last chunk, and becomes that of
    the state before the first.
    """
    if g is None:
        return _plain_backward(q, k, v, dy, states, carry, s)
    shape = q.shape
    q, k = flat_keys(q), flat_keys(k)
    scores = q @ k.mT
    between, read, write, whole = _scalar_decays(g, s.exclusive)
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty(v.shape, dtype=s.wide, device=s.device)
    dg = []
    for i in reversed(range(len(q))):
        c = min(i, len(whole) - 1)
        entering, leaving = matrices(states[i]), matrices(carry)
        weights = scores[i].view(s.B, s.G, 1, s.L, s.L) * between[c]
        heads, dheads = heads_of(v[i]), heads_of(dy[i])
        dscores = (dheads @ heads.mT).view(weights.shape)
        inside = (dscores * between[c]).sum(2).view(-1, s.L, s.L)
        read_dy = dy[i] * read[c]
        read_rows = rows_of(read_dy)
        torch.baddbmm(read_rows @ entering.mT, inside, k[i], out=dq[i])
        torch.baddbmm(rows_of(v[i] * write[c]) @ leaving.mT, inside.mT, q[i], out=dk[i])
        after = from_rows(k[i] @ leaving, v[i]) * write[c]
        torch.add(from_heads(weights.view(-1, s.L, s.L).mT @ dheads, v[i]), after, out=dv[i])
        if learned:
            both = dscores.mul_(weights)
            both.diagonal(dim1=-2, dim2=-1).zero_()
            before = (read_dy * from_rows(q[i] @ entering, v[i])).sum(-1).movedim(1, -1)
            kept = (after * v[i]).sum(-1).movedim(1, -1)
            end = (states[i] * carry).sum((2, 4)) * whole[c].squeeze(-1).squeeze(2) + kept.sum(-1)
            dg.append(decay_gradient(both.sum(-1) + before, both.sum(-2) + kept, end, s.exclusive))
        pass_on(carry, carry, whole[c], q[i], read_rows)
    return dq.view(shape), dk.view(shape), dv, torch.stack(dg[::-1]).unsqueeze(-1) if learned else None
