"""Selective scan, the state space of Mamba with a decay per channel and state (Gu and Dao 2023, arXiv:2312.00752).

    h[t, d, n] = exp(dt[t, d] A[d, n]) h[t-1, d, n] + dt[t, d] B[t, n] x[t, d]
    y[t, d] = (sum_n h[t, d, n] C[t, n] + D[d] x[t, d]) * silu(z[t, d])

Shapes: x, dt, z (B, T, D), dt after softplus; A (D, N) negative; B, C (B, T, N); D (D,) -> y (B, T, D); the state is
(B, D, N). Nothing of size (T, D, N) is ever kept: the forward pass for training saves the state entering each chunk of
SCAN_CHUNK tokens, and the backward pass recomputes the states of one chunk at a time, last chunk first:

    s[t, d] = dy[t, d] silu(z[t, d])
    g[t, d, n] = C[t, n] s[t, d] + exp(dt[t+1, d] A[d, n]) g[t+1, d, n]     the gradient of h[t]
    k[t, d, n] = g[t, d, n] exp(dt[t, d] A[d, n]) h[t-1, d, n]              the gradient of the exponent dt[t] A

Computed in float32, or float64 for float64 inputs, by Triton on a GPU (not measured on one), by loops that Numba
compiles on a CPU, and by the PyTorch below otherwise: it works on (chunk, N, D) products that stay in the cache.
Measured on one core with AVX-512, D 1024, N 16, T 1024: 11 ms forward, 43 ms with the gradients; PyTorch 50 and 274 ms.
"""

from math import prod
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.backend import cpu, gpu
from archspec.kernels.contract import require
from archspec.kernels.library import Shape, operator
from archspec.kernels.precision import wide_type
from archspec.kernels.state import State, recall
from archspec.kernels.thresholds import SCAN_CHUNK

EXAMPLES: tuple[dict[str, int], ...] = (
    {"B": 2, "T": 63},
    {"T": 1, "D": 5, "N": 3},
    {"T": 100, "D": 33, "N": 16},
    {"B": 1, "T": 257, "D": 3, "N": 1},
    {"B": 0, "T": 5},
)


def example(B: int = 2, T: int = 63, D: int = 7, N: int = 4) -> dict[str, Tensor]:
    """Arguments of `selective_scan` for tests and measurements."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64)

    return {
        "x": normal(B, T, D),
        "dt": F.softplus(normal(B, T, D)),
        "A": -normal(D, N).exp(),
        "B": normal(B, T, N),
        "C": normal(B, T, N),
        "D": normal(D),
        "z": normal(B, T, D),
    }


def reference(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    initial: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The recurrence in float64, token by token; returns y and the last state (B, D, N)."""
    x, dt, A, B, C = (tensor.double() for tensor in (x, dt, A, B, C))
    h = x.new_zeros(x.shape[0], *A.shape) if initial is None else initial.double()
    outputs = []
    for t in range(x.shape[1]):
        h = torch.exp(dt[:, t, :, None] * A) * h + (dt[:, t] * x[:, t]).unsqueeze(-1) * B[:, t, None]
        outputs.append((h * C[:, t, None]).sum(-1))
    y = torch.stack(outputs, dim=1)
    y = y if D is None else y + D.double() * x
    return y if z is None else y * F.silu(z.double()), h


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
    """y of the equations above, (B, T, D) in the type of x; the state is kept under "ssm", (B, D, N).

    D and z are left out where they are None. Raises ValueError for shapes that do not fit together.
    """
    h = recall(state, "ssm")
    sizes = require(
        "selective_scan",
        x=(x, "B T D"),
        dt=(dt, "B T D"),
        A=(A, "D N"),
        B=(B, "B T N"),
        C=(C, "B T N"),
        D=(D, "D"),
        z=(z, "B T D"),
        state=(h, "B D N"),
    )
    wide = wide_type(x)
    h = x.new_zeros(sizes["B"], sizes["D"], sizes["N"], dtype=wide) if h is None else h.to(wide)
    given = Inputs(x, dt, A, B, C, D, z, h)
    if sizes["T"] == 1 and state is not None:
        y, state["ssm"] = _step(given)
        return y
    train = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in given)
    y, last, _ = scan(*given, train)
    if state is not None:
        state["ssm"] = last
    return y


class Inputs(NamedTuple):
    """What goes into a scan, in the shapes of the equations above; h (B, D, N) is the state before the first token."""

    x: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    h: Tensor


def _step(given: Inputs) -> tuple[Tensor, Tensor]:
    """One token: T = 1."""
    x, dt, A, B, C, D, z, h = given
    like, wide = x.dtype, h.dtype
    x, dt, A, B, C = (tensor.to(wide) for tensor in (x, dt, A, B, C))
    h = torch.exp(dt.mT * A) * h + (dt * x).mT * B
    y = (h @ C.mT).mT
    y = y if D is None else y + D.to(wide) * x
    y = y if z is None else y * F.silu(z.to(wide))
    return y.to(like), h


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


def vectorised_forward(given: Inputs, train: bool) -> tuple[Tensor, Tensor, Tensor]:
    """y, the last state, and for training the state entering each chunk (B, chunks, N, D)."""
    x, dt, A, B, C, D, z, h = given
    like = x.dtype
    x, dt, A, B, C, h = (tensor.to(h.dtype) for tensor in (x, dt, A.mT, B, C, h.mT))  # h is (B, N, D) here
    y = torch.empty_like(x)
    entering = h.new_empty(_entering(x.shape, A.shape[0], train))
    for index, start in enumerate(range(0, x.shape[1], SCAN_CHUNK)):
        now = slice(start, start + SCAN_CHUNK)
        _, states = _chunk_states(x[:, now], dt[:, now], A, B[:, now], h)
        y[:, now] = _read(C[:, now], states)
        if train:
            entering[:, index] = h
        h = states[-1]
    y = y if D is None else y.add_(D.to(h.dtype) * x)
    y = y if z is None else y.mul_(_silu(z, h.dtype))
    return y.to(like), h.mT.clone(memory_format=torch.contiguous_format), entering


def _silu(z: Tensor, wide: torch.dtype) -> Tensor:
    """silu, of contiguous memory, where it does not round a token by how many others there are."""
    return F.silu(z.to(wide).contiguous())


def _read(C: Tensor, states: Tensor) -> Tensor:
    """sum_n h C for one chunk, (B, L, D)."""
    return (C.transpose(0, 1).unsqueeze(2) @ states[1:]).squeeze(2).transpose(0, 1)


def vectorised_backward(dy: Tensor, dlast: Tensor, entering: Tensor, given: Inputs) -> list[Tensor]:
    """Gradients of x, dt, A, B, C, then of D and z where they are given, and of h."""
    x, dt, A, B, C, D, z, h = given
    wide = h.dtype
    x, dt, A, B, C, dy = (tensor.to(wide) for tensor in (x, dt, A.mT, B, C, dy))
    skip = x.new_zeros(()) if D is None else D.to(wide)
    s, dz = (dy, None) if z is None else (dy * _silu(z, wide), torch.empty_like(dy))
    carry = dlast.mT  # exp(dt[t+1] A) g[t+1]
    dx, ddt, dB, dC, dA = (torch.empty_like(tensor) for tensor in (x, dt, B, C, A))
    dA.zero_()
    for index in range(entering.shape[1] - 1, -1, -1):
        now = slice(index * SCAN_CHUNK, (index + 1) * SCAN_CHUNK)
        decay, states = _chunk_states(x[:, now], dt[:, now], A, B[:, now], entering[:, index])
        if dz is not None:
            dz[:, now] = _read(C[:, now], states)
        B_t, C_t, dt_t, x_t, s_t = (tensor[:, now].transpose(0, 1) for tensor in (B, C, dt, x, s))
        dC[:, now] = (states[1:] @ s_t.unsqueeze(3)).squeeze(3).transpose(0, 1)
        grad = C_t.unsqueeze(3) * s_t.unsqueeze(2)  # (L, B, N, D)
        for grad_t, decay_t in zip(reversed(grad.unbind(0)), reversed(decay.unbind(0)), strict=True):
            carry = grad_t.add_(carry) * decay_t
        dB[:, now] = (grad @ (dt_t * x_t).unsqueeze(3)).squeeze(3).transpose(0, 1)
        dinput = (B_t.unsqueeze(2) @ grad).squeeze(2)  # gradient of dt * x, (L, B, D)
        dexponent = grad.mul_(decay).mul_(states[:-1])
        dA += torch.einsum("tbnd,tbd->nd", dexponent, dt_t)
        ddt[:, now] = (dinput * x_t + (dexponent * A).sum(2)).transpose(0, 1)
        dx[:, now] = (dinput * dt_t).transpose(0, 1)
    dx += skip * s
    of_skip = [] if D is None else [(s * x).sum((0, 1))]
    of_gate = []
    if z is not None and dz is not None:
        gate = torch.sigmoid(z.to(wide))
        of_gate = [dz.add_(skip * x).mul_(dy * gate * (1 + z.to(wide) * (1 - gate)))]
    return [dx, ddt, dA.mT, dB, dC, *of_skip, *of_gate, carry.mT]


def _forward(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    h: Tensor,
    train: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    fast = gpu("selective_scan", x) or cpu("selective_scan", x)
    run = vectorised_forward if fast is None else fast.forward
    return run(Inputs(x, dt, A, B, C, D, z, h), train)


def _backward(grads: list[Tensor | None], outputs: list[Tensor], *inputs: Any) -> list[Tensor]:
    given, train = Inputs(*inputs[:-1]), inputs[-1]
    dy = torch.zeros_like(given.x) if grads[0] is None else grads[0]
    dlast = torch.zeros_like(given.h) if grads[1] is None else grads[1]
    entering = outputs[0] if train else _forward(*given, True)[2]
    fast = gpu("selective_scan", given.x) or cpu("selective_scan", given.x)
    run = vectorised_backward if fast is None else fast.backward
    return run(dy, dlast, entering, given)


def _entering(x: Shape, N: int, train: bool) -> Shape:
    """The shape of the states that training keeps."""
    return (x[0], -(-x[1] // SCAN_CHUNK), N, x[2]) if train else (0,)


def _fake(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    given, train = Inputs(*inputs[:-1]), inputs[-1]
    entering = _entering(given.x.shape, given.A.shape[1], train)
    return given.x.new_empty(given.x.shape), given.h.new_empty(given.h.shape), given.h.new_empty(entering)


def _flops(x: Shape, dt: Shape, A: Shape, *_: object) -> int:
    """Of the read-out; the recurrence itself is element-wise."""
    return 2 * prod(x) * A[1]


def _backward_flops(x: Shape, dt: Shape, A: Shape, B: Shape, C: Shape, D: Shape, z: Shape | None, *_: object) -> int:
    """Of the gradients of B, C, A and of what enters the state, and of the read-out again where it is gated."""
    return (8 if z is None else 10) * prod(x) * A[1]


scan = operator("selective_scan", _forward, _backward, _fake, flops=_flops, backward_flops=_backward_flops, keeps=(2,))
