"""The matrix memory in chunks of tokens, in PyTorch: forward and backward pass of `matrix_memory`.

Within a chunk the output is a masked matrix product, between chunks only the state passes. Decays enter as exponentials
of sums of log decays over the tokens between two, which are never positive: nothing overflows. How they enter differs
for one decay a head (`archspec.kernels.memory.scalar_decay`) and one a channel
(`archspec.kernels.memory.vector_decay`).

The backward pass recomputes all of it from the states that enter the chunks. The gradient of the log decay of a token
is the sum, over the later tokens t of the chunk, of q[t] . dq[t] - k[t] . dk[t] without the product of a token with
itself, on top of the product of the state at the end of the chunk with its gradient: log decays only stretch queries
and keys.
"""

import torch
from torch import Tensor

from archspec.kernels.memory.scalar_decay import scalar_backward, scalar_forward
from archspec.kernels.memory.segments import Inputs, Segments
from archspec.kernels.memory.vector_decay import vector_backward, vector_forward


def kept_type(q: Tensor, k: Tensor, v: Tensor) -> torch.dtype:
    """The type in which states are kept for the backward pass: that of the products which read them on a GPU."""
    if torch.float64 in (q.dtype, k.dtype, v.dtype):
        return torch.float64
    return torch.bfloat16 if v.dtype == torch.bfloat16 and v.is_cuda else torch.float32


def chunked_forward(given: Inputs, train: bool) -> tuple[Tensor, Tensor, Tensor]:
    """y (B, T, H, V), the last state (B, H, K, V), and for training the state that enters each chunk."""
    q, k, v, _, initial, scale, *_ = given
    s = Segments(given)
    y = v.new_empty(v.shape)
    state = s.first_state(initial).clone(memory_format=torch.contiguous_format)
    held = state.new_empty(s.chunks + 1 if train else 0, *state.shape)
    if train:
        held[0] = state
    segment = vector_forward if s.vector else scalar_forward
    for number, now in s:
        n = s.length(now)
        states = list(held[number : number + n + 1]) if train else [state] * (n + 1)
        values = s.values(v, now)
        out = s.place(y, now)
        room = values.new_empty(values.shape) if out is None else out
        segment(s.keys(q, now) * scale, s.keys(k, now), values, s.decays(now), room, states, s)
        if out is None:
            s.store(y, now, room)
        state = states[-1]
    return y, s.as_given(state).clone(), held[:-1].to(kept_type(q, k, v))


def chunked_backward(grads: list[Tensor | None], entering: Tensor, given: Inputs, learned: bool) -> list[Tensor]:
    """Gradients of q, k, v and, where they are given, of the decay and the initial state."""
    q, k, v, decay, initial, scale, *_ = given
    s = Segments(given)
    dy = v.new_zeros(v.shape) if grads[0] is None else grads[0]
    dq, dk, dv = (torch.empty(x.shape, dtype=s.wide, device=x.device) for x in (q, k, v))
    ddecay = None if decay is None else torch.zeros(s.decay_shape, dtype=s.wide, device=q.device)
    carry = s.first_state(grads[1]).clone(memory_format=torch.contiguous_format)
    segment = vector_backward if s.vector else scalar_backward
    for number, now in reversed(list(s)):
        states = entering[number : number + s.length(now)].to(s.wide)
        inputs = s.keys(q, now) * scale, s.keys(k, now), s.values(v, now), s.values(dy, now)
        found = segment(*inputs, s.decays(now), states, carry, s, learned)
        s.store_keys(dq, now, found[0] * scale)
        s.store_keys(dk, now, found[1])
        s.store(dv, now, found[2])
        if ddecay is not None and found[3] is not None:
            s.store_decay(ddecay, now, found[3])
    result = [dq, dk, dv]
    if decay is not None:
        result.append(_as_decay(ddecay, decay))
    return result if initial is None else [*result, s.as_given(carry)]


def _as_decay(ddecay: Tensor, decay: Tensor) -> Tensor:
    """The gradient of log decays in their shape; none passes where a decay is zero."""
    total = ddecay.sum((0, 1)) if decay.dim() < 3 else ddecay
    return total.masked_fill(decay == -torch.inf, 0.0)
