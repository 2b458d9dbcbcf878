"""The recurrence of a matrix memory: as an operator over all tokens, and one token from a state.

What it computes, and in which shapes, is said in `archspec.kernels.memory.matrix_memory`.
"""

from collections.abc import Sequence
from math import prod
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from archspec.kernels.backend import gpu
from archspec.kernels.library import Shape, operator
from archspec.kernels.memory.chunked import chunked_backward, chunked_forward, kept_type
from archspec.kernels.memory.segments import Inputs, chunk_length, is_vector
from archspec.kernels.precision import wide_type


def per_channel(decay: Tensor, B: int, T: int, H: int, K: int) -> Tensor:
    """Any of the four shapes of a log decay as (B, T, H, K)."""
    return (decay.unsqueeze(-1) if decay.dim() in (1, 3) else decay).expand(B, T, H, K)


def scan(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor | None,
    initial: Tensor | None,
    scale: float = 1.0,
    exclusive: bool = False,
    chunk: int = 64,
) -> tuple[Tensor, Tensor]:
    """y and the last state; with `exclusive` the token itself is not read."""
    given = [x for x in (q, k, v, decay, initial) if x is not None]
    train = torch.is_grad_enabled() and any(x.requires_grad for x in given)
    y, last, _ = memory_of_matrices(q, k, v, decay, initial, scale, exclusive, chunk, train)
    return y, last


def step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor | None,
    bonus: Tensor | None,
    scale: float,
    initial: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """One token: T = 1 in the shapes of `matrix_memory`; y and the new state."""
    B, _, H, V = v.shape
    G, K = k.shape[2:]
    wide = wide_type(q, k, v)
    q, k, v = q[:, 0].to(wide).unsqueeze(2), k[:, 0].to(wide).unsqueeze(2), v[:, 0].to(wide)
    write = (k.unsqueeze(-1) * v.view(B, G, H // G, 1, V)).flatten(1, 2)  # (B, H, K, V)
    state = write if initial is None else initial.to(wide)
    new = write
    if initial is not None:
        keep = None if decay is None else per_channel(decay.to(wide), B, 1, H, K)[:, 0].exp().unsqueeze(-1)
        new = state + write if keep is None else torch.addcmul(write, state, keep)
    seen = new
    if bonus is not None:
        own = bonus.to(wide).unsqueeze(-1) * write
        seen = own if initial is None else state + own
    y = (q.unsqueeze(-2) @ seen.unflatten(1, (G, -1))).view(B, 1, H, V)
    return y if scale == 1.0 else y * scale, new


def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor | None,
    initial: Tensor | None,
    scale: float,
    exclusive: bool,
    chunk: int,
    train: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the last state, and for the backward pass the states that enter the chunks."""
    given = Inputs(q, k, v, decay, initial, scale, exclusive, _fitting(v, chunk))
    if not v.numel():
        y, last, entering = _fake(*given, train)
        return y, last.zero_() if initial is None else last.copy_(initial), entering
    run = chunked_forward if (fast := _fast(given)) is None else fast.forward
    return run(given, train)


def _backward(grads: list[Tensor | None], outputs: list[Tensor], *inputs: Any, needed: Sequence[bool]) -> list[Tensor]:
    """Gradients of q, k, v, the decay and the initial state; that of a decay which needs none is zero."""
    given = Inputs(*inputs[:-1])
    if not given.v.numel():
        found = [torch.zeros_like(x) for x in given[:5] if x is not None]
        return found if given.initial is None or grads[1] is None else [*found[:-1], grads[1].clone()]
    given = given._replace(chunk=_fitting(given.v, given.chunk))
    run = chunked_backward if (fast := _fast(given)) is None else fast.backward
    return run(grads, outputs[0], given, given.decay is not None and needed[3])


def _fast(given: Inputs) -> ModuleType | None:
    """Triton's kernels, unless something is to be computed in float64."""
    return None if wide_type(*given[:3]) == torch.float64 else gpu("matrix_memory", given.v)


def _fake(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    (q, k, v, decay, *_, chunk), train = inputs[:-1], inputs[-1]
    (B, T, H, V), (G, K) = v.shape, q.shape[2:]
    chunks = -(-T // chunk_length(decay, T, _fitting(v, chunk))) if train and v.numel() else 0
    G = H if is_vector(decay) else G
    entering = v.new_empty((chunks, B, G, K, H // max(G, 1), V), dtype=kept_type(q, k, v))
    return v.new_empty(v.shape), v.new_empty((B, H, K, V), dtype=wide_type(q, k, v)), entering


def _fitting(v: Tensor, chunk: int) -> int:
    """Tokens a chunk: on a GPU at most 64, whose products fit the registers."""
    return min(chunk, 64) if v.is_cuda else chunk


def _flops(q: Shape, k: Shape, v: Shape, decay: Shape | None, *settings: Any) -> int:
    """Of the products within chunks, of what is written to the state and of what is read."""
    *_, chunk, _ = settings
    scores, values, _, states = _products(q, v, decay, chunk)
    return scores + values + 2 * states


def _backward_flops(q: Shape, k: Shape, v: Shape, decay: Shape | None, *settings: Any, needed: Sequence[bool]) -> int:
    """Of the scores and their gradient, the gradients within chunks, and those of what was written and read."""
    *_, chunk, _ = settings
    scores, values, gradients, states = _products(q, v, decay, chunk)
    scalar = decay is not None and len(decay) in (1, 3)
    return scores + 2 * values + 2 * gradients + (5 if scalar and needed[3] else 4) * states


def _products(q: Shape, v: Shape, decay: Shape | None, chunk: int) -> tuple[int, int, int, int]:
    """FLOPs of q k^T, of its product with v, of the gradient of q from that of q k^T, and of a pass over the state."""
    if not prod(v):
        return 0, 0, 0, 0
    (B, T, H, V), (G, K) = v, q[2:]
    vector = decay is not None and len(decay) in (2, 4)
    L = min(1 << (chunk.bit_length() - 1), 1 << (T - 1).bit_length()) if vector else min(chunk, T)
    tokens = B * -(-T // L) * L
    if vector:  # blocks of 1, 2, 4, ... L / 2 rows and columns
        scores = tokens * H * K * (L - 1)
        return scores, 2 * tokens * L * H * V, scores, 2 * tokens * H * K * V
    return 2 * tokens * L * G * K, 2 * tokens * L * H * V, 2 * tokens * L * G * K, 2 * tokens * H * K * V


memory_of_matrices = operator(
    "matrix_memory",
    _forward,
    _backward,
    _fake,
    flops=_flops,
    backward_flops=_backward_flops,
    keeps=(2,),
    selective=True,
)
