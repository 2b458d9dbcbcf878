"""Attention within buckets of a hash (Reformer, Kitaev et al. 2020): T log T work for T tokens.

Queries and keys are the same vectors x. A round hashes them by random rotations, argmax of [x R, -x R], sorts the
tokens by (bucket, position), and cuts the sorted row into chunks; a token sees its own chunk and `look_back` chunks
before it, in the causal case only tokens before it in the text, and itself only if it sees nothing else in any round.
Rounds are joined by their log-sum-exp: one softmax over all that was seen, in which a token seen twice counts twice.

Shapes: qk (B, H, T, K), v (B, H, T, V), buckets (B, H, R, T), rotations (H, K, R, buckets / 2) -> (B, H, T, V).

Two things differ between implementations. Keys: x over its root mean square and sqrt(K), which scores x . x' / |x'|
(the published code, and transformers), or x over its length and sqrt(K), with scores x . x' / (|x'| sqrt(K)).
Look-back: within a round, or (`wrap`, transformers) along all rounds laid end to end and closed to a ring.

It is PyTorch on every device, and was not measured on a GPU. A few chunks at a time are gathered, scored and summed,
forward and backward, so that nothing of T x chunk numbers is kept: the output and one log-sum-exp a token are, and
rounds x T rows are made in between. Gradients are gathered by the inverse permutation of each round, not scattered: the
same on every run.
"""

from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor

from archspec.kernels.contract import require, require_integers
from archspec.kernels.library import Shape, operator
from archspec.kernels.precision import wide, wide_type
from archspec.kernels.state import State, append, recall

EPS = 1e-6  # added to the mean square (or, for keys of unit length, to the sum of squares) under the root
CACHED = 1 << 20  # scores that exist at once on a CPU
AT_ONCE = 1 << 27  # and elsewhere


def reference(
    qk: Tensor,
    v: Tensor,
    buckets: Tensor,
    chunk: int,
    look_back: int,
    causal: bool = False,
    wrap: bool = False,
    unit_keys: bool = False,
) -> Tensor:
    """The definition in float64, token by token."""
    qk, v = qk.double(), v.double()
    key = keys_of(qk, unit_keys)
    rows = []
    for b, h in torch.cartesian_prod(torch.arange(qk.shape[0]), torch.arange(qk.shape[1])).tolist():
        seen = _seen(buckets[b, h], chunk, look_back, wrap)
        for i, others in enumerate(seen):
            visible = [j for j in others if j != i and (j < i or not causal)] or [i]
            weights = (key[b, h, visible] @ qk[b, h, i]).softmax(0)
            rows.append(weights @ v[b, h, visible])
    return torch.stack(rows).view(v.shape) if rows else v + 0 * qk.sum()


def _seen(buckets: Tensor, chunk: int, look_back: int, wrap: bool) -> list[list[int]]:
    """The tokens in the chunks that each token looks at, with repetitions; buckets (R, T)."""
    rounds = [torch.argsort(row, stable=True).split(chunk) for row in buckets]
    every = [part.tolist() for parts in rounds for part in parts]
    seen: list[list[int]] = [[] for _ in range(buckets.shape[1])]
    for at, part in enumerate(every):
        place = at % len(rounds[0])
        back = range(look_back + 1) if wrap else range(min(look_back, place) + 1)
        for i in part:
            seen[i] += [j for steps in back for j in every[(at - steps) % len(every)]]
    return seen


def lsh_attention(
    qk: Tensor,
    v: Tensor,
    chunk: int,
    look_back: int,
    *,
    buckets: Tensor | None = None,
    rotations: Tensor | None = None,
    causal: bool = False,
    wrap: bool = False,
    unit_keys: bool = False,
    state: State | None = None,
) -> Tensor:
    """Attention of qk (B, H, T, K) to itself within chunks of `chunk` tokens and the `look_back` chunks before.

    Either buckets (B, H, R, T), whole numbers, or rotations (H, K, R, n / 2) for n buckets, from `random_rotations`.
    wrap, unit_keys: see above. No score is scaled but by its key.

    With a state the first call is the whole above. In a later call each token is what it would be as the last token of
    the whole: the tokens after it, which change how those before are cut into chunks, are not there yet. The state
    holds qk, v and buckets; a token costs a sort of S numbers and R chunk (look_back + 1) keys.
    """
    sizes = require(
        "lsh_attention",
        qk=(qk, "B H T K"),
        v=(v, "B H T V"),
        rotations=(rotations, "H K R n"),
    )
    if (buckets is None) == (rotations is None):
        raise ValueError("lsh_attention: expected either buckets or rotations")
    require_integers("lsh_attention", buckets=buckets)
    if chunk < 1 or look_back < 0:
        raise ValueError(f"lsh_attention: chunk = {chunk} and look_back = {look_back}, expected at least 1 and 0")
    buckets = hash_buckets(qk, rotations) if buckets is None else buckets
    wanted = (*qk.shape[:2], buckets.shape[-2], sizes["T"])
    if tuple(buckets.shape) != wanted:
        raise ValueError(f"lsh_attention: buckets has shape {tuple(buckets.shape)}, expected {wanted} (B H R T)")
    before = recall(state, "tokens") or 0
    if state is not None:
        state["tokens"] = before + sizes["T"]
        qk, v, turned = append(state, qk=qk, v=v, buckets=buckets.mT)
        buckets = turned.mT
    if before:
        steps = range(before + 1, before + 1 + sizes["T"])
        options = (chunk, look_back, causal, wrap, unit_keys)
        return torch.cat([_step(qk[:, :, :n], v[:, :, :n], buckets[..., :n], *options) for n in steps], dim=2)
    order = _chunks(buckets, chunk).flatten(0, 1)
    q, k, values = (x.flatten(0, 1) for x in (qk, keys_of(qk, unit_keys), v))
    y, _ = attend(q, k, values, order, look_back, causal, wrap)
    return y.view(v.shape)


def hash_buckets(x: Tensor, rotations: Tensor) -> Tensor:
    """Buckets (B, H, R, T) of x (B, H, T, K): argmax of [x R, -x R] for rotations (H, K, R, n / 2)."""
    rotated = torch.einsum("bhtk,hkrn->bhrtn", wide(x.detach()), rotations.to(wide_type(x)))
    return torch.cat((rotated, -rotated), dim=-1).argmax(-1)


def random_rotations(
    n_heads: int, width: int, rounds: int, n_buckets: int, generator: torch.Generator | None = None
) -> Tensor:
    """Directions (n_heads, width, rounds, n_buckets / 2) of a hash, from a normal distribution; float32."""
    if n_buckets % 2:
        raise ValueError(f"random_rotations: n_buckets = {n_buckets}, expected an even number")
    return torch.randn(n_heads, width, rounds, n_buckets // 2, generator=generator)


def keys_of(qk: Tensor, unit: bool) -> Tensor:
    """Keys of shared queries, (..., K): over root mean square (or, unit, over length) and sqrt(K)."""
    k = wide(qk)
    square = k.square()
    square = square.sum(-1, keepdim=True) if unit else square.mean(-1, keepdim=True)
    return k * torch.rsqrt(square + EPS) * qk.shape[-1] ** -0.5


def _chunks(buckets: Tensor, chunk: int) -> Tensor:
    """Tokens sorted by (bucket, position) in chunks, (B, H, R, n, chunk); T stands for none, at the end of a round."""
    T = buckets.shape[-1]
    order = torch.argsort(buckets, dim=-1, stable=True)
    return torch.nn.functional.pad(order, (0, -T % chunk), value=T).unflatten(-1, (-(-T // chunk), chunk))


def _step(
    qk: Tensor, v: Tensor, buckets: Tensor, chunk: int, look_back: int, causal: bool, wrap: bool, unit_keys: bool
) -> Tensor:
    """The last token of S, (B, H, 1, V): one softmax over the chunks that it sees in all rounds."""
    S, K = qk.shape[2:]
    order = _chunks(buckets, chunk)  # (B, H, R, n, chunk)
    R, n = order.shape[2:4]
    rank = (buckets <= buckets[..., -1:]).sum(-1) - 1  # behind all of its bucket
    first = torch.arange(R, device=qk.device) * n
    at = (rank // chunk).unsqueeze(-1) - torch.arange(look_back + 1, device=qk.device)  # (B, H, R, W), in its round
    around = (at + first.unsqueeze(-1)) % (R * n)
    seen = order.flatten(2, 3).gather(2, around.flatten(2).unsqueeze(-1).expand(-1, -1, -1, chunk))
    hidden = seen >= S - 1  # none, or itself
    if not wrap:
        hidden = hidden | (at.flatten(2).unsqueeze(-1) < 0)
    seen, hidden = seen.flatten(2).clamp(max=S - 1), hidden.flatten(2)  # (B, H, R W chunk)
    keys = keys_of(qk.gather(2, seen.unsqueeze(-1).expand(-1, -1, -1, K)), unit_keys)
    scores = (keys @ qk[:, :, -1:].to(keys.dtype).mT).squeeze(-1).masked_fill(hidden, -torch.inf)
    alone = hidden.all(-1, keepdim=True)
    weights = scores.masked_fill(alone, 0).softmax(-1).unsqueeze(-2)
    y = weights @ v.gather(2, seen.unsqueeze(-1).expand(-1, -1, -1, v.shape[-1])).to(keys.dtype)
    return torch.where(alone.unsqueeze(-1), v[:, :, -1:].to(y.dtype), y).to(v.dtype)


def _forward(
    q: Tensor, k: Tensor, v: Tensor, order: Tensor, look_back: int, causal: bool, wrap: bool
) -> tuple[Tensor, Tensor]:
    """y (G, T, V) and its log-sum-exp (G, T), -inf for a token that sees itself only; order (G, R, n, C)."""
    q, k, values = (x.to(k.dtype) for x in (q, k, v))
    sums = k.new_empty(*order.shape, v.shape[2]).flatten(1, 2)  # (G, R n, C, V), each round's own mean
    totals = k.new_empty(order.shape).flatten(1, 2)
    for now, around, hidden in _blocks(q, order, look_back, causal, wrap):
        scores = (_rows(q, now.tokens) @ _rows(k, around.tokens).mT).masked_fill_(hidden, -torch.inf)
        total = scores.logsumexp(-1)
        weights = scores.sub_(_finite(total).unsqueeze(-1)).exp_()
        sums[:, now.at] = weights @ _rows(values, around.tokens)
        totals[:, now.at] = total
    inverse = _inverse(order, q.shape[1])
    lse = _unsorted(totals.unsqueeze(-1), inverse)  # (G, R, T, 1)
    total = lse.logsumexp(1)
    y = (_unsorted(sums, inverse) * (lse - _finite(total).unsqueeze(1)).exp()).sum(1)
    return torch.where(total == -torch.inf, values, y).to(v.dtype), total.squeeze(-1)


def _backward(
    grads: list[Tensor | None],
    outputs: list[Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    order: Tensor,
    look_back: int,
    causal: bool,
    wrap: bool,
) -> list[Tensor]:
    """Gradients of q, k and v. The weights of all rounds are exp(score - log-sum-exp), as of one softmax."""
    y, total = outputs
    q, k, values, dy = (x.to(k.dtype) for x in (q, k, v, torch.zeros_like(y) if grads[0] is None else grads[0]))
    alone = (total == -torch.inf).unsqueeze(-1)
    mean = (dy * y).sum(-1, keepdim=True)
    total = _finite(total).unsqueeze(-1)
    dq, dk, dv = (x.new_zeros(*order.shape, x.shape[2]).flatten(1, 2) for x in (q, k, values))  # (G, R n, C, ...)
    for now, around, hidden in _blocks(q, order, look_back, causal, wrap):
        query, key, above = _rows(q, now.tokens), _rows(k, around.tokens), _rows(dy, now.tokens)
        weights = (query @ key.mT).sub_(_rows(total, now.tokens)).masked_fill_(hidden, -torch.inf).exp_()
        slope = (above @ _rows(values, around.tokens).mT).sub_(_rows(mean, now.tokens)).mul_(weights)
        slope = slope.masked_fill_(hidden, 0)
        dq[:, now.at] = slope @ key
        for grad, part in ((dk, slope.mT @ query), (dv, weights.mT @ above)):
            parts = part.unflatten(2, (look_back + 1, -1))
            for back in range(look_back + 1):
                grad[:, around.at[:, back]] += parts[:, :, back]
    inverse = _inverse(order, q.shape[1])
    dq, dk, dv = (_unsorted(x, inverse).sum(1) for x in (dq, dk, dv))
    return [dq, dk, torch.where(alone, dv + dy, dv)]


class _Chunks:
    """Some chunks: where they are in the row of all rounds, and their tokens."""

    def __init__(self, at: Tensor, tokens: Tensor):
        self.at = at
        self.tokens = tokens


def _blocks(
    q: Tensor, order: Tensor, look_back: int, causal: bool, wrap: bool
) -> Iterator[tuple[_Chunks, _Chunks, Tensor]]:
    """A few chunks of queries (m,), (G, m, C); those around (m, W), (G, m, W C); and the pairs that are hidden."""
    G, R, n, C = order.shape
    T, W = q.shape[1], look_back + 1
    every = order.flatten(1, 2)  # (G, R n, C)
    step = max((CACHED if q.device.type == "cpu" else AT_ONCE) // max(G * C * W * C, 1), 1)
    back = torch.arange(W, device=q.device)
    for start in range(0, R * n, step):
        at = torch.arange(start, min(start + step, R * n), device=q.device)
        around = (at.unsqueeze(-1) - back) % (R * n)
        tokens, others = every[:, at], every[:, around]  # (G, m, C), (G, m, W, C)
        if not wrap:
            others = others.masked_fill((at.unsqueeze(-1) % n < back).unsqueeze(-1), T)
        others = others.flatten(2)
        pairs = tokens.unsqueeze(-1), others.unsqueeze(-2)
        hidden = (pairs[1] >= pairs[0]) if causal else (pairs[1] == pairs[0]) | (pairs[1] == T)
        hidden = hidden | (pairs[0] == T)
        yield _Chunks(at, tokens), _Chunks(around, others), hidden


def _rows(x: Tensor, tokens: Tensor) -> Tensor:
    """Rows of x (G, T, ...) at tokens (G, m, C), where T, for none, gives any row: (G, m, C, ...)."""
    G, T = x.shape[:2]
    first = torch.arange(G, device=x.device).view(-1, 1, 1) * T
    at = tokens.clamp(max=T - 1) + first
    return x.flatten(0, 1).index_select(0, at.flatten()).view(*tokens.shape, x.shape[2])


def _finite(total: Tensor) -> Tensor:
    """What to subtract from scores: 0 where all of them are -inf."""
    return total.masked_fill(total == -torch.inf, 0)


def _inverse(order: Tensor, T: int) -> Tensor:
    """Where each token is in each sorted round, (G, R, T), counted in the row of all rounds; order (G, R, n, C)."""
    flat = order.flatten(2)  # (G, R, n C)
    place = torch.arange(flat.shape[1] * flat.shape[2], device=order.device).view(1, *flat.shape[1:]).expand_as(flat)
    return order.new_empty(*flat.shape[:2], T + 1).scatter_(2, flat, place)[..., :T]


def _unsorted(x: Tensor, inverse: Tensor) -> Tensor:
    """(G, R n, C, ...) of sorted rounds -> (G, R, T, ...) by position."""
    return _rows(x.flatten(1, 2), inverse)


def _fake(
    q: Tensor, k: Tensor, v: Tensor, order: Tensor, look_back: int, causal: bool, wrap: bool
) -> tuple[Tensor, Tensor]:
    return v.new_empty(v.shape), k.new_empty(k.shape[:2])


def _flops(q: Shape, k: Shape, v: Shape, order: Shape, look_back: int, *rest: object) -> int:
    """Scores and means: every chunk with those around it."""
    return 2 * prod(order) * (look_back + 1) * order[3] * (q[2] + v[2])


def _backward_flops(q: Shape, k: Shape, v: Shape, order: Shape, look_back: int, *rest: object) -> int:
    """Scores again and the gradients of queries and keys; those of weights and values."""
    return 2 * prod(order) * (look_back + 1) * order[3] * (3 * q[2] + 2 * v[2])


attend = operator(
    "lsh_attention", _forward, _backward, _fake, flops=_flops, backward_flops=_backward_flops, keeps=(0, 1)
)


def example(
    B: int = 2, T: int = 63, H: int = 2, K: int = 8, V: int = 5, R: int = 2, n_buckets: int = 8
) -> dict[str, Tensor]:
    """Example arguments of `lsh_attention`: qk, v, buckets."""
    qk, v = torch.randn(B, H, T, K, dtype=torch.float64), torch.randn(B, H, T, V, dtype=torch.float64)
    return {"qk": qk, "v": v, "buckets": hash_buckets(qk, random_rotations(H, K, R, n_buckets))}


EXAMPLES: tuple[dict[str, int], ...] = (
    {},
    {"T": 1},
    {"B": 1, "T": 100, "R": 3},
    {"T": 16, "R": 1},
    {"B": 1, "H": 1, "T": 257, "n_buckets": 2},
    {"B": 0, "T": 7},
)
