"""State-space duality: the selective state space of Mamba-2 with one decay per head (Dao and Gu 2024).

S[t] = exp(dt[t] A) S[t-1] + dt[t] x[t] B[t]^T        y[t] = S[t] C[t] + D x[t]
"""

import torch
from torch import Tensor

from archspec.kernels.plain.precision import wide
from archspec.kernels.plain.state import State


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
    """y (B, T, H, P) of x (B, T, H, P), dt (B, T, H), A, D (H,), B and C (B, T, G, N); the state is S (B, H, P, N).

    Tokens of a chunk see one another through a masked product, and those before the chunk through S.
    """
    if x.shape[1] == 0:
        return x  # no tokens
    heads_per_group = x.shape[2] // B.shape[2]
    S = wide(x).new_zeros(len(x), *x.shape[2:], B.shape[3])
    if state is not None and "ssm" in state:
        S = state["ssm"]
    given = (wide(x) * wide(dt).unsqueeze(-1), wide(dt) * A, B, C)
    outputs = []
    for x_c, decay, B_c, C_c in zip(*(tensor.split(chunk, dim=1) for tensor in given), strict=True):
        B_c, C_c = (wide(y).repeat_interleave(heads_per_group, dim=2) for y in (B_c, C_c))  # (B, L, H, N)
        L = x_c.shape[1]
        total = decay.cumsum(1)  # (B, L, H), the log of the decay since the start of the chunk
        later = torch.ones(L, L, dtype=torch.bool, device=x.device).triu(1).unsqueeze(-1)
        between = (total.unsqueeze(2) - total.unsqueeze(1)).masked_fill(later, -torch.inf).exp()  # (B, L, L, H)
        scores = torch.einsum("bthn,bshn->btsh", C_c, B_c) * between
        before = torch.einsum("bthn,bhpn->bthp", C_c, S) * total.exp().unsqueeze(-1)
        outputs.append(before + torch.einsum("btsh,bshp->bthp", scores, x_c))
        to_end = (total[:, -1:] - total).exp().unsqueeze(-1)  # (B, L, H, 1)
        S = total[:, -1, :, None, None].exp() * S + torch.einsum("bshp,bshn->bhpn", x_c * to_end, B_c)
    if state is not None:
        state["ssm"] = S
    y = torch.cat(outputs, dim=1)
    if D is not None:
        y = y + D.unsqueeze(-1) * x
    return y.to(x.dtype)
