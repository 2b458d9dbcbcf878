"""Matrix memory whose transition is diagonal plus low rank: RWKV-7 in general, and every delta rule (Yang et al. 2024).

    S[t] = diag(exp(g[t])) S[t-1] + b[t] u[t]^T + k[t] v[t]^T,    u[t] = S[t-1]^T a[t],    y[t] = scale S[t]^T q[t]

Shapes: q, k, a, b and the log decay g <= 0 (B, T, H, K), v (B, T, H, V) -> y (B, T, H, V); the state S is (B, H, K, V)
in float32 or wider. Source: Peng et al. 2025, "RWKV-7 Goose", equation 17, where a = -kappa and b = kappa * rate. The
operator also takes g of one value a head, (B, T, H), and, without k, runs the delta rule of `memory.delta_rule`:

    u[t] = beta[t] (v[t] - (diag(exp(g[t])) S[t-1])^T a[t]),    S[t] = diag(exp(g[t])) S[t-1] + b[t] u[t]^T

Within a chunk of tokens the vectors u solve a unit-lower-triangular system (the WY form: Yang et al. 2024,
"Parallelizing linear transformers with the delta rule", section 3): (I - M) u = z, where M[i, j] is a[i] . b[j] times
the decay between the two tokens, and z reads the state that enters the chunk. The inverse of I - M is found once for
all chunks in one batch; from chunk to chunk only states pass, with three matrix products each.

The decay between two tokens is never a quotient. One value a head: the exponential of a difference of cumulative
sums in float64, never above zero. One value a channel: products of decays over halves of halves of the chunk (a read
in the right half is decayed back to the middle, a write in the left half on to the middle), so that nothing overflows
or cancels and a decay of exactly zero (g = -inf) is a number like any other.

The forward pass keeps the state that enters each chunk and nothing else; the backward pass recomputes the rest for a
few chunks at a time and takes the gradient of the state through the chunks in reverse.

On a GPU, Triton kernels run all of the forward pass and the backward pass over the states, while the products within
chunks of the backward pass are batched products of PyTorch in float32; that has not been measured on a GPU. Elsewhere
everything is PyTorch. On one CPU thread in float32 at T = 1024, eight heads of 64 x 64, the general case takes 57 ms
forward and 173 ms with all gradients; token by token the forward pass alone takes 89 ms.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.backend import gpu
from archspec.kernels.contract import require, require_choice
from archspec.kernels.library import Shape, operator
from archspec.kernels.memory.decayed_scores import Decayed, decayed_scores, decayed_scores_backward, score_flops
from archspec.kernels.precision import wide_type
from archspec.kernels.state import State, recall

CHUNKS = (16, 32, 64)
ROWS = 4096  # tokens times heads that go through the within-chunk products together, for those to stay in the cache
GPU_ROWS = 1 << 17  # the same where it is a matter of memory


def reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    decay: Tensor,
    scale: float = 1.0,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The recurrence in float64, token by token; returns y and the last state."""
    q, k, v, a, b, decay = (x.double() for x in (q, k, v, a, b, decay))
    S = v.new_zeros(*q[:, :1].squeeze(1).shape, v.shape[-1]) if state is None else state.double()
    outputs = []
    for t in range(q.shape[1]):
        u = torch.einsum("bhkv,bhk->bhv", S, a[:, t])
        S = decay[:, t].exp().unsqueeze(-1) * S + b[:, t].unsqueeze(-1) * u.unsqueeze(-2)
        S = S + k[:, t].unsqueeze(-1) * v[:, t].unsqueeze(-2)
        outputs.append(scale * torch.einsum("bhkv,bhk->bhv", S, q[:, t]))
    return torch.stack(outputs, dim=1) if outputs else v.clone(), S


def example(B: int = 2, T: int = 63, H: int = 3, K: int = 8, V: int = 12) -> dict[str, Tensor]:
    """Example arguments of `dplr` as RWKV-7 makes them: a unit removal key and a rate in [0, 1]."""
    kappa = F.normalize(torch.randn(B, T, H, K, dtype=torch.float64), dim=-1)
    rate = torch.rand(B, T, H, K, dtype=torch.float64)
    q, k = (torch.randn(B, T, H, K, dtype=torch.float64) * K**-0.5 for _ in range(2))
    v = torch.randn(B, T, H, V, dtype=torch.float64)
    decay = -0.6065 * torch.rand(B, T, H, K, dtype=torch.float64)
    return {"q": q, "k": k, "v": v, "a": -kappa, "b": kappa * rate, "decay": decay}


EXAMPLES = (
    {"T": 1},
    {"T": 63},
    {"T": 100, "H": 1, "K": 5, "V": 3},
    {"T": 257, "B": 1},
    {"B": 0, "T": 5},
    {"B": 1, "T": 33, "K": 64, "V": 64},
)


def dplr(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    decay: Tensor,
    *,
    scale: float = 1.0,
    chunk: int | None = None,
    state: State | None = None,
) -> Tensor:
    """y of the equations above, (B, T, H, V) in the type of v; the state is kept under "memory", (B, H, K, V).

    q, k, a, b, decay (B, T, H, K), v (B, T, H, V); decay is a logarithm, at most 0, and may be -inf. `chunk` tokens
    go through at once: 16, 32 or 64, which matters for speed and rounding alone. A NaN or infinity reaches all later
    tokens, and may reach the earlier ones of its chunk, in whose masked products it is multiplied by zero.
    """
    keys = "B T H K"
    sizes = require("dplr", q=(q, keys), k=(k, keys), v=(v, "B T H V"), a=(a, keys), b=(b, keys), decay=(decay, keys))
    require_choice("dplr", "chunk", chunk, (None, *CHUNKS))
    initial = initial_state("dplr", state, v, sizes)
    if sizes["T"] == 1 and state is not None:
        y, last = _step(q, k, v, a, b, decay, initial)
        y = y * scale
    else:
        y, last = remember(q, a, b, v, k, None, decay, initial, scale, chunk)
    if state is not None:
        state["memory"] = last
    return y.to(v.dtype)


def initial_state(op: str, state: State | None, v: Tensor, sizes: dict[str, int]) -> Tensor:
    """The memory (B, H, K, V) that the state holds, or zeros, in float32 or wider."""
    wide = wide_type(v)
    memory = recall(state, "memory")
    if memory is None:
        return v.new_zeros(sizes["B"], sizes["H"], sizes["K"], sizes["V"], dtype=wide)
    require(op, v=(v, "B T H V"), state=(memory, f"B H {sizes['K']} V"))
    return memory.to(wide)


def _step(q: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, decay: Tensor, S: Tensor) -> tuple[Tensor, Tensor]:
    """One token: T = 1."""
    q, k, v, a, b, decay = (x.squeeze(1).to(S.dtype) for x in (q, k, v, a, b, decay))
    u = a.unsqueeze(-2) @ S
    S = decay.exp().unsqueeze(-1) * S + b.unsqueeze(-1) * u + k.unsqueeze(-1) * v.unsqueeze(-2)
    return (q.unsqueeze(-2) @ S).transpose(1, 2), S


def remember(
    q: Tensor,
    a: Tensor,
    b: Tensor,
    v: Tensor,
    k: Tensor | None,
    beta: Tensor | None,
    decay: Tensor | None,
    initial: Tensor,
    scale: float,
    chunk: int | None,
) -> tuple[Tensor, Tensor]:
    """y and the last state of either equation through the operator; each of G heads of q, a, b serves H / G of v."""
    chunk = (64 if v.is_cuda else 32) if chunk is None else chunk
    given = (q, a, b, v, k, beta, decay, initial)
    train = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in given)
    y, last, _ = memory_of_low_rank(*given, scale, chunk, train)
    return y, last


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


def _unflat(x: Tensor, like: Tensor, heads: int) -> Tensor:
    """(n B heads, C, D) as a view (B, n, C, G, D), G as in `like`, summed over heads that share one of them."""
    B, _, G, D = like.shape
    x = x.view(-1, B, G, heads // G, x.shape[-2], D)
    x = x.squeeze(3) if heads == G else x.sum(3)
    return x.permute(1, 0, 3, 2, 4)


def _padded(T: int, chunk: int, *tensors: Tensor | None) -> tuple[int, list[Tensor | None]]:
    """The chunk length for T tokens and the tensors filled up with zeros, which leave the memory as it is."""
    C = chunk_of(T, chunk)
    if T % C == 0:
        return C, list(tensors)
    return C, [x if x is None else F.pad(x, (0, 0) * (x.dim() - 2) + (0, -T % C)) for x in tensors]


def _segments(T: int, C: int, heads: int, like: Tensor) -> list[slice]:
    """Tokens of a few chunks each, for `heads` heads in all sequences together."""
    if heads == 0:
        return []
    rows = ROWS if like.device.type == "cpu" else GPU_ROWS
    length = C * max(rows // (C * heads), 1)
    return [slice(start, min(start + length, T)) for start in range(0, T, length)]


class Terms(NamedTuple):
    """What the pass over the states needs of M = n * J chunks, J = B * H, of C tokens with m writes each."""

    reads: Tensor  # (2, M, C, K) before any decay: what z loses, and scale q
    writes: Tensor  # (M, m, C, K) before any decay
    log_decay: Tensor | None  # (M, C) or (M, C, K)
    done: Decayed
    inverse: Tensor  # (M, C, C) of the triangular system
    rate: Tensor | None  # (M, C, 1) beta


def _terms(
    q: Tensor, a: Tensor, b: Tensor, v: Tensor, k: Tensor | None, beta: Tensor | None, decay: Tensor | None,
    scale: float, C: int, wide: torch.dtype,
) -> Terms:  # fmt: skip
    """Everything within chunks.

    The first read is beta exp(g) a of the delta rule, or -a of the general case: either way z loses what it reads.
    """
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


def _forward_pass(terms: Terms, v: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
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


def _forward(
    q: Tensor, a: Tensor, b: Tensor, v: Tensor, k: Tensor | None, beta: Tensor | None, decay: Tensor | None,
    initial: Tensor, scale: float, chunk: int, train: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """y, the last state, and the state entering each chunk (chunks, B H, K, V) where `train`."""
    B, T, H = v.shape[:3]
    fast = gpu("dplr", v)
    if fast is not None:
        return fast.forward(q, a, b, v, k, beta, decay, initial, scale, chunk_of(T, chunk), train)
    C, given = _padded(T, chunk, q, a, b, v, k, beta, decay)
    y = v.new_empty(given[3].shape)
    state = initial.flatten(0, 1)
    entering = state.new_empty(y.shape[1] // C if train else 0, *state.shape)
    with torch.autocast(v.device.type, enabled=False):  # it would round products that have to be exact
        for now in _segments(y.shape[1], C, B * H, v):
            part = [x if x is None else x[:, now] for x in given]
            terms = _terms(*part, scale, C, state.dtype)
            states = state.new_empty(1 + (now.stop - now.start) // C, *state.shape)
            states[0] = state
            outputs, _ = _forward_pass(terms, part[3], states)
            y[:, now].unflatten(1, (-1, C)).copy_(_unflat(outputs, y, H))
            if train:
                entering[now.start // C : now.stop // C] = states[:-1]
            state = states[-1]
    return y[:, :T], state.clone().view_as(initial), entering


def _backward(
    grads: list[Tensor | None], outputs: list[Tensor], q: Tensor, a: Tensor, b: Tensor, v: Tensor, k: Tensor | None,
    beta: Tensor | None, decay: Tensor | None, initial: Tensor, scale: float, chunk: int, train: bool,
) -> list[Tensor]:  # fmt: skip
    """Gradients of every input that is there, a few chunks at a time, from the last to the first."""
    B, T, H = v.shape[:3]
    dy = torch.zeros_like(v) if grads[0] is None else grads[0]
    carry = torch.zeros_like(initial) if grads[1] is None else grads[1].to(initial.dtype)
    carry = carry.flatten(0, 1)
    C, (dy, *given) = _padded(T, chunk, dy, q, a, b, v, k, beta, decay)
    found = [None if x is None else torch.empty(x.shape, dtype=carry.dtype, device=x.device) for x in given]
    with torch.autocast(v.device.type, enabled=False):
        for now in reversed(_segments(dy.shape[1], C, B * H, v)):
            part = [x if x is None else x[:, now] for x in given]
            entering = outputs[0][now.start // C : now.stop // C]
            *parts, carry = _segment_gradients(dy[:, now], part, entering, carry, scale, C)
            for whole, piece in zip(found, parts, strict=True):
                if whole is not None:
                    whole[:, now].unflatten(1, (-1, C)).copy_(piece)
    return [*(x[:, :T] for x in found if x is not None), carry.view_as(initial)]


def _segment_gradients(
    dy: Tensor, given: list[Tensor | None], entering: Tensor, carry: Tensor, scale: float, C: int
) -> list[Tensor | None]:
    """Gradients of q, a, b, v, k, beta, decay of some chunks, and of the state that enters the first of them.

    carry (J, K, V) is the gradient of the state that leaves the last one.
    """
    a, v, k, beta, decay = given[1], *given[3:]
    H, wide = v.shape[2], entering.dtype
    terms = _terms(*given, scale, C, wide)
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
        dbeta = _unflat(dbeta, beta.unsqueeze(-1), H).squeeze(-1)
    else:
        dv, dk = dwritten[:, C:].baddbmm(done.scores[0, :, :, C:].mT, loss[0]), dwrites[:, 1]
        da, dbeta = dreads[0].neg_(), None
    results = (dreads[1].mul_(scale), da, dwrites[:, 0], dv, dk)
    gradients = [None if x is None else _unflat(x, like, H) for x, like in zip(results, given, strict=False)]
    if decay is not None:
        dlog = _unflat(dlog.reshape(*dlog.shape[:2], -1), _with_axis(decay), H)
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


def _fake(
    q: Tensor, a: Tensor, b: Tensor, v: Tensor, k: Tensor | None, beta: Tensor | None, decay: Tensor | None,
    initial: Tensor, scale: float, chunk: int, train: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    B, H, K, V = initial.shape
    chunks = -(-v.shape[1] // chunk_of(v.shape[1], chunk)) if train else 0
    return v.new_empty(v.shape), initial.new_empty(initial.shape), initial.new_empty(chunks, B * H, K, V)


def chunk_of(T: int, chunk: int) -> int:
    """The chunk length for T tokens: no longer than it takes to hold them."""
    C = CHUNKS[0]
    while min(chunk, T) > C:
        C *= 2
    return C


def _counts(q: Shape, v: Shape, k: Shape | None, decay: Shape | None, chunk: int) -> tuple[int, int, int, int]:
    """Chunks of all heads, their length, FLOPs of the scores, and how many vectors a token writes."""
    B, T, H, _ = v
    C = chunk_of(T, chunk)
    M, m = B * H * -(-T // C), 1 if k is None else 2
    return M, C, score_flops(M, C, q[3], m, decay is not None and len(decay) == 4), m


def _flops(
    q: Shape, a: Shape, b: Shape, v: Shape, k: Shape | None, beta: Shape | None, decay: Shape | None,
    initial: Shape, scale: float, chunk: int, train: bool,
) -> int:  # fmt: skip
    """Of the scores, of what passes between tokens and states, and of u and y; not of the triangular solve."""
    M, C, scores, m = _counts(q, v, k, decay, chunk)
    K, V = initial[2:]
    return scores + 2 * M * C * V * ((2 + m) * K + (2 * m) * C)


def _backward_flops(
    q: Shape, a: Shape, b: Shape, v: Shape, k: Shape | None, beta: Shape | None, decay: Shape | None,
    initial: Shape, scale: float, chunk: int, train: bool,
) -> int:  # fmt: skip
    M, C, scores, m = _counts(q, v, k, decay, chunk)
    K, V = initial[2:]
    return 3 * scores + 2 * M * C * V * ((5 + 2 * m) * K + 5 * m * C)


memory_of_low_rank = operator(
    "dplr", _forward, _backward, _fake, flops=_flops, backward_flops=_backward_flops, keeps=(2,)
)
