"""State-space duality: the selective state space of Mamba-2 with one decay per head (Dao and Gu 2024).

    S[t] = exp(dt[t] A) S[t-1] + dt[t] x[t] B[t]^T        y[t] = S[t] C[t] + D x[t]

Shapes: x (B, T, H, P), dt (B, T, H) after softplus, A (H,) negative, B and C (B, T, G, N) shared by the H / G heads
of a group, D (H,) -> y (B, T, H, P); the state S is (B, H, P, N). Within a chunk of tokens the output is a masked
matrix product; between chunks only the states pass (section 6 of the paper). All of it runs in float32 or wider, and
decays are differences of cumulative sums, masked before the exponential so that none overflows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.state import State


def reference(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None, initial: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The recurrence in float64, token by token; returns y and the last state."""
    x, dt, A, B, C = (tensor.double() for tensor in (x, dt, A, B, C))
    B, C = (tensor.repeat_interleave(x.shape[2] // tensor.shape[2], dim=2) for tensor in (B, C))
    S = x.new_zeros(*x[:, 0].shape, B.shape[-1]) if initial is None else initial.double()
    outputs = []
    for t in range(x.shape[1]):
        S = torch.exp(dt[:, t] * A)[..., None, None] * S + torch.einsum("bh,bhp,bhn->bhpn", dt[:, t], x[:, t], B[:, t])
        outputs.append(torch.einsum("bhpn,bhn->bhp", S, C[:, t]))
    y = torch.stack(outputs, dim=1)
    return (y if D is None else y + D.double()[:, None] * x), S


def ssd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    state: State | None = None,
    chunk: int = 64,
) -> Tensor:
    """y of the recurrence above, (B, T, H, P) in the type of x; the state is kept under "ssm", (B, H, P, N)."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    inputs = [tensor.to(wide) for tensor in (x, dt, A, B, C)]
    initial = None if state is None else state.get("ssm")
    if initial is None:
        initial = inputs[0].new_zeros(*x[:, 0].shape, B.shape[-1])
    if x.shape[1] == 1:
        y, last = _step(*inputs, initial)
    else:
        y, last = chunked(*inputs, initial, chunk)
    if state is not None:
        state["ssm"] = last
    y = y if D is None else y + D.to(wide)[:, None] * inputs[0]
    return y.to(x.dtype)


def chunked(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, initial: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """The recurrence in chunks of `chunk` tokens; heads are (G, R), R heads reading the same B and C."""
    T, P, G = x.shape[1], x.shape[3], B.shape[2]
    L = min(chunk, T)
    pad = -T % L  # dt = 0 there: the state passes through unchanged
    if pad:
        x, dt, B, C = (F.pad(tensor, (0, 0) * (tensor.dim() - 2) + (0, pad)) for tensor in (x, dt, B, C))
    x = x.unflatten(1, (-1, L)).unflatten(3, (G, -1)).permute(0, 1, 3, 4, 2, 5)  # (B, chunks, G, R, L, P)
    dt = dt.unflatten(1, (-1, L)).unflatten(3, (G, -1)).permute(0, 1, 3, 4, 2)  # (B, chunks, G, R, L)
    B, C = (tensor.unflatten(1, (-1, L)).transpose(2, 3) for tensor in (B, C))  # (B, chunks, G, L, N)
    total = (dt * A.view(G, -1, 1)).cumsum(-1)
    x = x * dt.unsqueeze(-1)

    future = torch.ones(L, L, dtype=torch.bool, device=x.device).triu(1)
    decay = (total.unsqueeze(-1) - total.unsqueeze(-2)).masked_fill(future, -torch.inf).exp()
    y = ((C @ B.mT).unsqueeze(3) * decay) @ x  # (B, chunks, G, R, L, P)

    written = (x * (total[..., -1:] - total).exp().unsqueeze(-1)).permute(0, 1, 2, 4, 3, 5).flatten(4)
    written = (B.mT @ written).unflatten(-1, (-1, P))  # (B, chunks, G, N, R, P)
    entering, last = _carry(written, total[..., -1].exp(), initial)
    read = (C @ entering.flatten(4)).unflatten(-1, (-1, P)).transpose(3, 4)  # (B, chunks, G, R, L, P)
    y = y + read * total.exp().unsqueeze(-1)
    return y.permute(0, 1, 4, 2, 3, 5).flatten(3, 4).flatten(1, 2)[:, :T], last


def _carry(written: Tensor, decay: Tensor, initial: Tensor) -> tuple[Tensor, Tensor]:
    """State entering each chunk (B, chunks, G, N, R, P) and the last one (B, H, P, N), from what each chunk writes
    (B, chunks, G, N, R, P) and its whole decay (B, chunks, G, R)."""
    G, N, R, P = written.shape[2:]
    state = initial.to(written.dtype).view(-1, G, R, P, N).permute(0, 1, 4, 2, 3)
    entering = []
    for add, factor in zip(written.unbind(1), decay[:, :, :, None, :, None].unbind(1), strict=True):
        entering.append(state)
        state = torch.addcmul(add, factor, state)
    return torch.stack(entering, dim=1), state.permute(0, 1, 3, 4, 2).reshape(-1, G * R, P, N)


def _step(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, initial: Tensor) -> tuple[Tensor, Tensor]:
    """One token: shapes as above with T = 1."""
    B, C = (tensor.repeat_interleave(x.shape[2] // tensor.shape[2], dim=2)[:, 0] for tensor in (B, C))  # (B, H, N)
    dt = dt[:, 0].unsqueeze(-1)
    decay = (dt.unsqueeze(-1) * A.view(-1, 1, 1)).exp()  # (B, H, 1, 1)
    state = decay * initial.to(x.dtype) + (dt * x[:, 0]).unsqueeze(-1) * B.unsqueeze(-2)  # (B, H, P, N)
    return (state @ C.unsqueeze(-1)).squeeze(-1).unsqueeze(1), state
