"""Multi-head latent attention over a cache of latents, without the keys and values that they stand for.

    score[h, i, j] = scale ((q_nope[h, i] W_k[h]) . latent[j] + q_rope[h, i] . k_rope[j])
    y[h, i] = (sum_j softmax_j(score[h, i, j]) latent[j]) W_v[h]^T  over the positions j up to that of i

which is attention with keys W_k[h] latent[j] and values W_v[h] latent[j], the up-projections moved to the side of the
queries and of the outputs ("absorbed", DeepSeek-AI 2024, DeepSeek-V2, section 2.1 and appendix C). All heads share one
key and value a position, so that a decoding step reads L + R numbers a token.

Shapes: q_nope (B, H, T, N), q_rope (B, H, T, R), latent (B, 1, S, L), k_rope (B, 1, S, R), w_k (H, N, L), w_v (H, V, L)
-> (B, H, T, V); the queries are the last T of the S positions.

On a GPU a Triton kernel splits the positions among its programs (not measured on a GPU); the backward pass is that of
`attention_blocks`. On a CPU it is one call of PyTorch's fused operator whose values are its keys, [latent, k_rope], of
which only the latents are read: at H 16, N 128, R 64, V 128, L 512, S 4096 on one core a step takes 12 ms where values
narrower than keys took 54 ms, and 8 queries 31 ms instead of 630.
"""

from math import prod

import torch
from torch import Tensor

from archspec.kernels.attention.blocks import Scores, backward_blocks, forward_blocks
from archspec.kernels.attention.dense import left_open
from archspec.kernels.attention.mask import Rules
from archspec.kernels.attention.softmax import attention
from archspec.kernels.backend import gpu, on_cpu
from archspec.kernels.contract import require
from archspec.kernels.library import Shape, operator

PAIRS_FUSED = 1 << 12  # of a query and a latent, from which on values as wide as keys pay on a CPU


def reference(
    q_nope: Tensor, q_rope: Tensor, latent: Tensor, k_rope: Tensor, w_k: Tensor, w_v: Tensor, scale: float | None = None
) -> Tensor:
    """The same in float64 with the keys and values of each head made, query by query."""
    q_nope, q_rope, latent, k_rope, w_k, w_v = (x.double() for x in (q_nope, q_rope, latent, k_rope, w_k, w_v))
    T, S = q_nope.shape[2], latent.shape[2]
    scale = _usual_scale(q_nope, q_rope) if scale is None else scale
    k, v = latent @ w_k.mT, latent @ w_v.mT  # (B, H, S, N) and (B, H, S, V)
    rows = []
    for t in range(T):
        past = slice(0, S - T + t + 1)
        scores = (k[:, :, past] * q_nope[:, :, t, None]).sum(-1) + (k_rope[:, :, past] * q_rope[:, :, t, None]).sum(-1)
        rows.append(((scores * scale).softmax(-1).unsqueeze(-1) * v[:, :, past]).sum(2))
    return torch.stack(rows, dim=2)


def latent_attention(
    q_nope: Tensor,
    q_rope: Tensor,
    latent: Tensor,
    k_rope: Tensor,
    w_k: Tensor,
    w_v: Tensor,
    *,
    scale: float | None = None,
    key_mask: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Causal attention of the equations above, (B, H, T, V).

    scale: defaults to (N + R)^-0.5, N + R being the width of a key.
    key_mask: (B, S), True for real tokens.
    dropout: probability of dropping an attention weight.

    Raises ValueError or TypeError for tensors that do not fit one another.
    """
    sizes = require(
        "latent_attention",
        q_nope=(q_nope, "B H T N"),
        q_rope=(q_rope, "B H T R"),
        latent=(latent, "B 1 S L"),
        k_rope=(k_rope, "B 1 S R"),
        w_k=(w_k, "H N L"),
        w_v=(w_v, "H V L"),
    )
    T, S = sizes["T"], sizes["S"]
    if T > S:
        raise ValueError(f"latent_attention: {T} queries and {S} latents, expected no fewer latents than queries")
    scale = _usual_scale(q_nope, q_rope) if scale is None else scale
    q_latent = q_nope @ w_k.to(q_nope.dtype)
    if latent.is_cuda and not dropout and key_mask is None:
        y = attend_latents(q_latent, q_rope, latent, k_rope, scale)
    else:
        q = torch.cat((q_latent, q_rope), dim=-1)  # (B, H, T, L + R)
        k = torch.cat((latent, k_rope), dim=-1)  # (B, 1, S, L + R)
        same = on_cpu(q) and (left_open(T * S) or T * sizes["H"] * S >= PAIRS_FUSED)
        v = k if same else latent
        y = attention(q, k, v, causal=True, scale=scale, key_mask=key_mask, dropout=dropout)[..., : sizes["L"]]
    return y @ w_v.to(y.dtype).mT


def _usual_scale(q_nope: Tensor, q_rope: Tensor) -> float:
    return (q_nope.shape[3] + q_rope.shape[3]) ** -0.5


# The operator


def _forward(q_latent: Tensor, q_rope: Tensor, latent: Tensor, k_rope: Tensor, scale: float) -> Tensor:
    """The mean of the latents (B, H, T, L), in their type."""
    if (fast := gpu("attention", latent)) is not None:
        return fast.latent_decode(q_latent, q_rope, latent, k_rope, scale)
    return _in_blocks(q_latent, q_rope, latent, k_rope, scale)[0]


def _backward(
    grads: list[Tensor | None],
    outputs: list[Tensor],
    q_latent: Tensor,
    q_rope: Tensor,
    latent: Tensor,
    k_rope: Tensor,
    scale: float,
) -> list[Tensor]:
    out, lse, q, k, v, scores = _in_blocks(q_latent, q_rope, latent, k_rope, scale)
    dq, dk, dv = backward_blocks([grads[0], None], [out, lse], q, k, v, scores, None, Rules(causal=True))
    L = latent.shape[3]
    return [dq[..., :L], dq[..., L:], dk[..., :L] + dv, dk[..., L:]]


def _in_blocks(
    q_latent: Tensor, q_rope: Tensor, latent: Tensor, k_rope: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Scores]:
    """Output and log-sum-exp, and the queries, keys, values and scores that they are of."""
    q = torch.cat((q_latent, q_rope), dim=-1).to(latent.dtype)
    k = torch.cat((latent, k_rope.to(latent.dtype)), dim=-1)
    scores = Scores(scale, 0.0, None, None)
    out, lse = forward_blocks(q, k, latent, scores, None, Rules(causal=True))
    return out, lse, q, k, latent, scores


def _fake(q_latent: Tensor, q_rope: Tensor, latent: Tensor, k_rope: Tensor, scale: float) -> Tensor:
    return latent.new_empty(q_latent.shape)


def _flops(q_latent: Shape, q_rope: Shape, latent: Shape, k_rope: Shape, scale: float) -> int:
    return 2 * prod(q_latent[:3]) * latent[2] * (2 * latent[3] + k_rope[3])


def _backward_flops(q_latent: Shape, q_rope: Shape, latent: Shape, k_rope: Shape, scale: float) -> int:
    return 2 * prod(q_latent[:3]) * latent[2] * (5 * latent[3] + 3 * k_rope[3])


attend_latents = operator("latent_decode", _forward, _backward, _fake, flops=_flops, backward_flops=_backward_flops)


def example(
    B: int = 2, H: int = 3, T: int = 1, S: int = 63, N: int = 8, R: int = 4, V: int = 6, L: int = 10
) -> dict[str, Tensor]:
    """Arguments of `latent_attention`."""
    sizes = {"q_nope": (B, H, T, N), "q_rope": (B, H, T, R), "latent": (B, 1, S, L), "k_rope": (B, 1, S, R)}
    given = {name: torch.randn(*size, dtype=torch.float64) for name, size in sizes.items()}
    return given | {x: torch.randn(H, n, L, dtype=torch.float64) * L**-0.5 for x, n in (("w_k", N), ("w_v", V))}


EXAMPLES = (
    {"B": 2, "H": 3, "T": 5, "S": 63, "N": 8, "R": 4, "V": 6, "L": 10},
    {"T": 1, "S": 1},
    {"T": 1, "S": 257, "H": 5},
    {"T": 100, "S": 100, "L": 7},
    {"B": 0},
)
