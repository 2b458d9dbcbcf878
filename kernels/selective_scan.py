"""Selective scan, the state space of Mamba with a decay per channel and state (Gu and Dao 2023).

    h[t, d, n] = exp(dt[t, d] A[d, n]) h[t-1, d, n] + dt[t, d] B[t, n] x[t, d]
    y[t, d] = (sum_n h[t, d, n] C[t, n] + D[d] x[t, d]) * silu(z[t, d])

Shapes: x, dt, z (B, T, D), dt after softplus; A (D, N) negative; B, C (B, T, N); D (D,) -> y (B, T, D); the state is
(B, D, N). All of it runs in float32, or float64 for float64 inputs. Tokens go through in short chunks whose (chunk,
N, D) products stay in the cache; the forward pass saves the state entering each chunk and nothing else of that size,
and the backward pass recomputes the states of one chunk at a time, last chunk first.
"""

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.library import operator
from archspec.kernels.state import State

Shape = tuple[int, ...]

CHUNK = 16  # tokens; (CHUNK, N, D) float32 products of a usual layer fit the second-level cache


def reference(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, initial: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The recurrence in float64, token by token, without D and z; returns y and the last state (B, D, N)."""
    x, dt, A, B, C = (tensor.double() for tensor in (x, dt, A, B, C))
    h = x.new_zeros(x.shape[0], *A.shape) if initial is None else initial.double()
    outputs = []
    for t in range(x.shape[1]):
        h = torch.exp(dt[:, t, :, None] * A) * h + (dt[:, t] * x[:, t]).unsqueeze(-1) * B[:, t, None]
        outputs.append((h * C[:, t, None]).sum(-1))
    return torch.stack(outputs, dim=1), h


def selective_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    state: State | None = None,
) -> Tensor:
    """y of the equations above, (B, T, D) in the type of x; the state is kept under "ssm", (B, D, N)."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    inputs = [tensor.to(wide) for tensor in (x, dt, A.mT, B, C)]
    h = None if state is None else state.get("ssm")
    h = x.new_zeros(x.shape[0], *A.mT.shape, dtype=wide) if h is None else h.mT.to(wide)  # (B, N, D)
    if x.shape[1] == 1:
        y, h = _step(*inputs, h)
    else:
        y, h, _ = scan(*inputs, h)
    if state is not None:
        state["ssm"] = h.mT
    y = y if D is None else y + D.to(wide) * inputs[0]
    y = y if z is None else y * F.silu(z.to(wide))
    return y.to(x.dtype)


def _step(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """One token: T = 1, A (N, D), h (B, N, D)."""
    h = torch.exp(dt * A) * h + (dt * x) * B.mT
    return C @ h, h


def _chunk_states(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Decays (L, B, N, D) of one chunk and its states (L + 1, B, N, D), the first being h (B, N, D) that enters it."""
    dt, x, B = dt.transpose(0, 1), x.transpose(0, 1), B.transpose(0, 1)
    decay = (dt.unsqueeze(2) * A).exp_()
    states = h.new_empty(len(x) + 1, *h.shape)
    states[0] = h
    torch.mul((dt * x).unsqueeze(2), B.unsqueeze(3), out=states[1:])
    for decay_t, before, state in zip(decay.unbind(0), states[:-1].unbind(0), states[1:].unbind(0), strict=True):
        state.addcmul_(decay_t, before)
    return decay, states


def _forward(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """y, the last state, and the state entering each chunk (chunks, B, N, D)."""
    y = torch.empty_like(x)
    entering = h.new_empty(-(-x.shape[1] // CHUNK), *h.shape)
    for index, start in enumerate(range(0, x.shape[1], CHUNK)):
        now = slice(start, start + CHUNK)
        _, states = _chunk_states(x[:, now], dt[:, now], A, B[:, now], h)
        y[:, now] = (C[:, now].transpose(0, 1).unsqueeze(2) @ states[1:]).squeeze(2).transpose(0, 1)
        entering[index] = h
        h = states[-1]
    return y, h.clone(), entering


def _backward(
    grads: list[Tensor | None], outputs: list[Tensor], x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, h: Tensor
) -> list[Tensor]:
    """Gradients of x, dt, A, B, C and the first state.

    With g[t] the gradient of h[t]: g[t] = C[t] dy[t] + exp(dt[t+1] A) g[t+1], and the gradient of the exponent dt[t]
    A is g[t] * exp(dt[t] A) * h[t-1].
    """
    dy = torch.zeros_like(x) if grads[0] is None else grads[0]
    carry = torch.zeros_like(h) if grads[1] is None else grads[1]  # exp(dt[t+1] A) g[t+1]
    (entering,) = outputs
    dx, ddt, dB, dC, dA = (torch.empty_like(tensor) for tensor in (x, dt, B, C, A))
    dA.zero_()
    for index in range(len(entering) - 1, -1, -1):
        now = slice(index * CHUNK, (index + 1) * CHUNK)
        decay, states = _chunk_states(x[:, now], dt[:, now], A, B[:, now], entering[index])
        B_t, C_t, dt_t, x_t, dy_t = (tensor[:, now].transpose(0, 1) for tensor in (B, C, dt, x, dy))
        dC[:, now] = (states[1:] @ dy_t.unsqueeze(3)).squeeze(3).transpose(0, 1)
        grad = C_t.unsqueeze(3) * dy_t.unsqueeze(2)  # (L, B, N, D)
        for grad_t, decay_t in zip(reversed(grad.unbind(0)), reversed(decay.unbind(0)), strict=True):
            carry = grad_t.add_(carry) * decay_t
        dB[:, now] = (grad @ (dt_t * x_t).unsqueeze(3)).squeeze(3).transpose(0, 1)
        dinput = (B_t.unsqueeze(2) @ grad).squeeze(2)  # gradient of dt * x, (L, B, D)
        dexponent = grad.mul_(decay).mul_(states[:-1])
        dA += torch.einsum("tbnd,tbd->nd", dexponent, dt_t)
        ddt[:, now] = (dinput * x_t + (dexponent * A).sum(2)).transpose(0, 1)
        dx[:, now] = (dinput * dt_t).transpose(0, 1)
    return [dx, ddt, dA, dB, dC, carry]


def _fake(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    entering = h.new_empty(-(-x.shape[1] // CHUNK), *h.shape)
    return x.new_empty(x.shape), h.new_empty(h.shape), entering


def _flops(x: Shape, dt: Shape, A: Shape, B: Shape, C: Shape, h: Shape) -> int:
    """Of the read-out; the recurrence itself is element-wise."""
    return 2 * prod(x) * A[0]


def _backward_flops(x: Shape, dt: Shape, A: Shape, B: Shape, C: Shape, h: Shape) -> int:
    """Of the gradients of B, C, A and of what enters the state."""
    return 8 * prod(x) * A[0]


scan = operator("selective_scan", _forward, _backward, _fake, flops=_flops, backward_flops=_backward_flops, keeps=(2,))
