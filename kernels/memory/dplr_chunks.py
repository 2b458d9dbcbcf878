"""The general matrix memory and the delta rule in chunks of tokens, in PyTorch; see `archspec.kernels.memory.dplr`.

Tensors of a sequence come as (B, T, ...), with T = n C; here they are laid out as M = n B H chunks of C tokens. The
chunks are independent but for the state, which a pass takes through them: forward from the first to the last, and its
gradient back.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from archspec.kernels.backend import gpu
from archspec.kernels.memory.decayed_scores import Decayed, decayed_scores, decayed_scores_backward


def _chunked(x: Tensor, C: int, heads: int) -> Tensor:
    """(B, n C, G, D) as a view (n, B, G, heads / G, C, D)."""
    x = x.unflatten(1, (-1, C)).permute(1, 0, 3, 2, 4).unsqueeze(3)
    return x.expand(-1, -1, -1, heads // x.shape[2], -1, -1)


def _flat(x: Tensor, C: int, heads: int, wide: torch.dtype) -> Tensor:
    """(B, n C, G, D) copied to (n B heads, C, D)."""
    return _chunked(x, C, heads).to(wide).reshape(-1, C, x.shape[-1])


def _fill(place: Tensor, x: Tensor, C: int, heads: int, factor: Tensor | float = 1.0) -> None:
    """Copy (B, n C, G, K), times (n B heads, C, 1) or a number, into (n B heads, C, K)."""
    x = _chunked(x, C, heads)
    place = place.view(x.shape)
    if isinstance(factor, Tensor):
        torch.mul(x, factor.view(*x.shape[:-1], 1), out=place)
    elif factor == 1.0:
        place.copy_(x)
    else:
        place.copy_(x).mul_(factor)  # in this order: the product is of the wide type


def unflat(x: Tensor, like: Tensor, heads: int) -> Tensor:
    """(n B heads, C, D) as a view (B, n, C, G, D), G as in `like`, summed over heads that share one of them."""
    B, _, G, D = like.shape
    x = x.view(-1, B, G, heads // G, x.shape[-2], D)
    x = x.squeeze(3) if heads == G else x.sum(3)
    return x.permute(1, 0, 3, 2, 4)


class Inputs(NamedTuple):
    """The tensors of a sequence, (B, T, ...), in the order of the operator; a goes with k, or with beta."""

    q: Tensor
    a: Tensor
    b: Tensor
    v: Tensor
    k: Tensor | None
    beta: Tensor | None
    decay: Tensor | None


class Terms(NamedTuple):
    """What the pass over the states needs of M = n * J chunks, J = B * H, of C tokens with m writes each."""

    reads: Tensor  # (2, M, C, K) before any decay: what z loses, and scale q
    writes: Tensor  # (M, m, C, K) before any decay
    log_decay: Tensor | None  # (M, C) or (M, C, K)
    done: Decayed
    inverse: Tensor  # (M, C, C) of the triangular system
    rate: Tensor | None  # (M, C, 1) beta


def terms_of(given: Inputs, scale: float, C: int, wide: torch.dtype) -> Terms:
    """Everything within chunks.

    The first read is beta exp(g) a of the delta rule, or -a of the general case: either way z loses what it reads.
    """
    q, a, b, v, k, beta, decay = given
    H = v.shape[2]
    log_decay = None if decay is None else _flat(_with_axis(decay), C, H, wide)
    rate = None if beta is None else _flat(beta.unsqueeze(-1), C, H, wide)
    reads = torch.empty(2, v.shape[0] * v.shape[1] * H // C, C, q.shape[3], dtype=wide, device=v.device)
    if rate is None:
        _fill(reads[0], a, C, H, -1.0)
    elif log_decay is None:
        _fill(reads[0], a, C, H, rate)
    elif decay.dim() == 3:
        _fill(reads[0], a, C, H, rate * log_decay.exp())
    else:
        _fill(reads[0], a, C, H, rate)
        reads[0].mul_(log_decay.exp())
    _fill(reads[1], q, C, H, scale)
    writes = reads.new_empty(reads.shape[1], 1 if k is None else 2, C, q.shape[3])
    for place, x in zip(writes.unbind(1), (b, k), strict=False):
        _fill(place, x, C, H)
    log_decay = log_decay.squeeze(-1) if decay is not None and decay.dim() == 3 else log_decay
    done = decayed_scores(reads, writes, log_decay)
    eye = torch.eye(C, dtype=wide, device=v.device)
    inverse = torch.linalg.solve_triangular(done.scores[0, :, :, :C], eye, upper=False, unitriangular=True)
    return Terms(reads, writes, log_decay, done, inverse, rate)


def _with_axis(x: Tensor) -> Tensor:
    """(B, T, H) or (B, T, H, K) with a last axis, of one where there is none."""
    return x.unsqueeze(-1) if x.dim() == 3 else x


def _inputs_of_system(terms: Terms, v: Tensor) -> tuple[Tensor, Tensor]:
    """z (M, C, V) but for what it reads of the entering state, and a place for u, above v where there is a k."""
    _, M, C, width = terms.done.scores.shape
    written = terms.reads.new_empty(M, width, v.shape[3])
    if terms.rate is None:
        values = _flat(v, C, v.shape[2], terms.reads.dtype)
        written[:, C:] = values
        return torch.bmm(terms.done.scores[0, :, :, C:], values).neg_(), written
    z = torch.empty_like(written)
    _fill(z, v, C, v.shape[2], terms.rate)
    return z, written


def forward_pass(terms: Terms, v: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
    """Fill the states (n + 1, J, K, V) from the first on; returns y (M, C, V) and the written values (M, m C, V)."""
    n, J = len(states) - 1, states.shape[1]
    z, written = _inputs_of_system(terms, v)
    C = z.shape[1]
    reads, writes, inverse, zs, us = (
        x.unflatten(0, (n, J)).unbind(0) for x in (terms.done.reads[0], terms.done.writes, terms.inverse, z, written)
    )
    total = None if terms.done.total is None else terms.done.total.unflatten(0, (n, J))
    for i in range(n):
        torch.baddbmm(zs[i], reads[i], states[i], alpha=-1, out=zs[i])
        torch.bmm(inverse[i], zs[i], out=us[i][:, :C])
        _ = states[i + 1].copy_(states[i]) if total is None else torch.mul(states[i], total[i], out=states[i + 1])
        torch.baddbmm(states[i + 1], writes[i].mT, us[i], out=states[i + 1])
    y = torch.bmm(terms.done.reads[1], states[:-1].flatten(0, 1))
    return torch.baddbmm(y, terms.done.scores[1], written, out=y), written


def segment_gradients(
    dy: Tensor, given: Inputs, entering: Tensor, carry: Tensor, scale: float, C: int
) -> list[Tensor | None]:
    """Gradients of q, a, b, v, k, beta, decay of some chunks, and of the state that enters the first of them.

    carry (J, K, V) is the gradient of the state that leaves the last one.
    """
    _, a, _, v, k, beta, decay = given
    H, wide = v.shape[2], entering.dtype
    terms = terms_of(given, scale, C, wide)
    done, before = terms.done, entering.flatten(0, 1)
    z, written = _inputs_of_system(terms, v)
    torch.baddbmm(z, done.reads[0], before, alpha=-1, out=z)
    torch.bmm(terms.inverse, z, out=written[:, :C])
    loss = torch.stack([torch.empty_like(z), _flat(dy, C, H, wide)])  # gradients of -z and y, (2, M, C, V)
    dwritten = torch.bmm(done.scores[1].mT, loss[1])
    leaving, carry = _backward_pass(terms, loss, dwritten, carry)

    dreads, dwrites, dlog = _product_gradients(terms, before, leaving, written, loss)
    if k is None:
        dv, dk = -terms.rate * loss[0], None
        da, dbeta, dlog = _rate_gradients(terms, dreads[0], loss[0], dlog, _flat(a, C, H, wide), _flat(v, C, H, wide))
        dbeta = unflat(dbeta, beta.unsqueeze(-1), H).squeeze(-1)
    else:
        dv, dk = dwritten[:, C:].baddbmm(done.scores[0, :, :, C:].mT, loss[0]), dwrites[:, 1]
        da, dbeta = dreads[0].neg_(), None
    results = (dreads[1].mul_(scale), da, dwrites[:, 0], dv, dk)
    gradients = [None if x is None else unflat(x, like, H) for x, like in zip(results, given, strict=False)]
    if decay is not None:
        dlog = unflat(dlog.reshape(*dlog.shape[:2], -1), _with_axis(decay), H)
        dlog = dlog.squeeze(-1) if decay.dim() == 3 else dlog
    return [*gradients, dbeta, dlog, carry]


def _product_gradients(
    terms: Terms, before: Tensor, leaving: Tensor, written: Tensor, loss: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients of the reads, the writes and the log decay, none of them decayed, through all products of the chunks.

    States that enter and gradients of states that leave (M, K, V), written values (M, m C, V), and `loss` as above.
    """
    dreads, dscores = torch.empty_like(terms.reads), torch.empty_like(terms.done.scores)
    for dread, dscore, part in zip(dreads, dscores, loss, strict=True):
        torch.bmm(part, before.mT, out=dread)
        torch.bmm(part, written.mT, out=dscore)
    dwrites = torch.bmm(written, leaving.mT)
    dtotal = torch.linalg.vecdot(before, leaving)
    return decayed_scores_backward(
        dreads, dwrites, dscores, dtotal, terms.done, terms.reads, terms.writes, terms.log_decay
    )


def _rate_gradients(
    terms: Terms, dread: Tensor, dz: Tensor, dlog: Tensor | None, a: Tensor, v: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients of a, beta (M, C, 1) and g through the read beta exp(g) a and the value beta v; dz is negated."""
    dbeta = -torch.linalg.vecdot(v, dz).unsqueeze(-1)
    log_decay = terms.log_decay
    if log_decay is None:
        return dread * terms.rate, dbeta + torch.linalg.vecdot(a, dread).unsqueeze(-1), None
    if log_decay.dim() == 3:
        dread = dread * log_decay.exp()
        product = a * dread
        return dread * terms.rate, dbeta + product.sum(-1, keepdim=True), dlog + product * terms.rate
    dread = dread * log_decay.exp().unsqueeze(-1)
    product = torch.linalg.vecdot(a, dread).unsqueeze(-1)
    return dread * terms.rate, dbeta + product, dlog + (product * terms.rate).squeeze(-1)


def _backward_pass(terms: Terms, loss: Tensor, dwritten: Tensor, carry: Tensor) -> tuple[Tensor, Tensor]:
    """Take the gradient of the state (J, K, V) from behind the last chunk to before the first one.

    Completes dwritten (M, m C, V), sets loss[0] to the gradient of -z, and returns the gradient of the state that
    leaves each chunk (M, K, V) and that of the first state.
    """
    fast = gpu("dplr", carry)
    if fast is not None:
        done = terms.done
        return fast.backward_pass(done.reads, done.writes, terms.inverse, done.total, loss, dwritten, carry)
    C, J = loss.shape[2], len(carry)
    n = loss.shape[1] // max(J, 1)
    dz, dy, dws, writes, inverse, reads, late = (
        x.unflatten(0, (n, J)).unbind(0) for x in (*loss, dwritten, terms.done.writes, terms.inverse, *terms.done.reads)
    )
    leaving = carry.new_empty(n, *carry.shape)
    total = None if terms.done.total is None else terms.done.total.unflatten(0, (n, J))
    for i in range(n - 1, -1, -1):
        leaving[i] = carry
        torch.baddbmm(dws[i], writes[i], carry, out=dws[i])
        torch.bmm(inverse[i].mT, dws[i][:, :C], out=dz[i]).neg_()
        carry = carry.clone() if total is None else carry * total[i]
        torch.baddbmm(carry, reads[i].mT, dz[i], out=carry)
        torch.baddbmm(carry, late[i].mT, dy[i], out=carry)
    return leaving.flatten(0, 1), carry
