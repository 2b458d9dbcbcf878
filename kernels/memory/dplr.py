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

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.backend import gpu
from archspec.kernels.contract import require, require_choice
from archspec.kernels.library import Shape, operator
from archspec.kernels.memory.decayed_scores import score_flops
from archspec.kernels.memory.dplr_chunks import Inputs, forward_pass, segment_gradients, terms_of, unflat
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
        y, last = remember(Inputs(q, a, b, v, k, None, decay), initial, scale, chunk)
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


def remember(given: Inputs, initial: Tensor, scale: float, chunk: int | None) -> tuple[Tensor, Tensor]:
    """y and the last state of either equation through the operator; each of G heads of q, a, b serves H / G of v."""
    chunk = (64 if initial.is_cuda else 32) if chunk is None else chunk
    train = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (*given, initial))
    y, last, _ = memory_of_low_rank(*given, initial, scale, chunk, train)
    return y, last


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


def _tokens(given: Sequence[Tensor | None], now: slice) -> Inputs:
    """Some tokens of all of them."""
    return Inputs(*(x if x is None else x[:, now] for x in given))


def _forward(
    q: Tensor, a: Tensor, b: Tensor, v: Tensor, k: Tensor | None, beta: Tensor | None, decay: Tensor | None,
    initial: Tensor, scale: float, chunk: int, train: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """y, the last state, and the state entering each chunk (chunks, B H, K, V) where `train`."""
    B, T, H = v.shape[:3]
    fast = gpu("dplr", v)
    if fast is not None:
        return fast.forward(Inputs(q, a, b, v, k, beta, decay), initial, scale, chunk_of(T, chunk), train)
    C, given = _padded(T, chunk, q, a, b, v, k, beta, decay)
    y = v.new_empty(given[3].shape)
    state = initial.flatten(0, 1)
    entering = state.new_empty(y.shape[1] // C if train else 0, *state.shape)
    with torch.autocast(v.device.type, enabled=False):  # it would round products that have to be exact
        for now in _segments(y.shape[1], C, B * H, v):
            part = _tokens(given, now)
            terms = terms_of(part, scale, C, state.dtype)
            states = state.new_empty(1 + (now.stop - now.start) // C, *state.shape)
            states[0] = state
            outputs, _ = forward_pass(terms, part.v, states)
            y[:, now].unflatten(1, (-1, C)).copy_(unflat(outputs, y, H))
            if train:
                entering[now.start // C : now.stop // C] = states[:-1]
            state = states[-1]
    return y[:, :T], state.clone().view_as(initial), entering


def _backward(grads: list[Tensor | None], outputs: list[Tensor], *inputs: Any) -> list[Tensor]:
    """Gradients of every input that is there, a few chunks at a time, from the last to the first."""
    v, (initial, scale, chunk, _) = inputs[3], inputs[7:]
    B, T, H = v.shape[:3]
    dy = torch.zeros_like(v) if grads[0] is None else grads[0]
    carry = torch.zeros_like(initial) if grads[1] is None else grads[1].to(initial.dtype)
    carry = carry.flatten(0, 1)
    C, (dy, *given) = _padded(T, chunk, dy, *inputs[:7])
    found = [None if x is None else torch.empty(x.shape, dtype=carry.dtype, device=x.device) for x in given]
    with torch.autocast(v.device.type, enabled=False):
        for now in reversed(_segments(dy.shape[1], C, B * H, v)):
            part = _tokens(given, now)
            entering = outputs[0][now.start // C : now.stop // C]
            *parts, carry = segment_gradients(dy[:, now], part, entering, carry, scale, C)
            for whole, piece in zip(found, parts, strict=True):
                if whole is not None:
                    whole[:, now].unflatten(1, (-1, C)).copy_(piece)
    return [*(x[:, :T] for x in found if x is not None), carry.view_as(initial)]


def _fake(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    v, (initial, _, chunk, train) = inputs[3], inputs[7:]
    B, H, K, V = initial.shape
    chunks = -(-v.shape[1] // chunk_of(v.shape[1], chunk)) if train else 0
    return v.new_empty(v.shape), initial.new_empty(initial.shape), initial.new_empty(chunks, B * H, K, V)


def chunk_of(T: int, chunk: int) -> int:
    """The chunk length for T tokens: no longer than it takes to hold them."""
    C = CHUNKS[0]
    while min(chunk, T) > C:
        C *= 2
    return C


def _counts(
    q: Shape, a: Shape, b: Shape, v: Shape, k: Shape | None, beta: Shape | None, decay: Shape | None, *settings: Any
) -> tuple[int, int, int, int]:
    """Chunks of all heads, their length, FLOPs of the scores, and how many vectors a token writes."""
    (B, T, H, _), (_, _, chunk, _) = v, settings
    C = chunk_of(T, chunk)
    M, m = B * H * -(-T // C), 1 if k is None else 2
    return M, C, score_flops(M, C, q[3], m, decay is not None and len(decay) == 4), m


def _flops(*inputs: Any) -> int:
    """Of the scores, of what passes between tokens and states, and of u and y; not of the triangular solve."""
    M, C, scores, m = _counts(*inputs)
    K, V = inputs[7][2:]
    return scores + 2 * M * C * V * ((2 + m) * K + (2 * m) * C)


def _backward_flops(*inputs: Any) -> int:
    M, C, scores, m = _counts(*inputs)
    K, V = inputs[7][2:]
    return 3 * scores + 2 * M * C * V * ((5 + 2 * m) * K + 5 * m * C)


memory_of_low_rank = operator(
    "dplr", _forward, _backward, _fake, flops=_flops, backward_flops=_backward_flops, keeps=(2,)
)
