"""State-space duality: the selective state space of Mamba-2 with one decay per head (Dao and Gu 2024).

    S[t] = exp(dt[t] A) S[t-1] + dt[t] x[t] B[t]^T        y[t] = S[t] C[t] + D x[t]

Shapes: x (B, T, H, P), dt (B, T, H) after softplus, A (H,) negative, B and C (B, T, G, N) shared by the H / G heads of
a group, D (H,) -> y (B, T, H, P); the state S is (B, H, P, N). It is the matrix memory of
`memory.matrix_memory` with keys B, queries C, values dt x and the log decay dt A, and runs as that does:
within a chunk of tokens a masked matrix product, between chunks only the states (section 6 of the paper), in float32 or
wider. On one core (shared, AVX-512, one thread), 16 heads of 64 x 128, 1024 and 4096 tokens took 18 and 70 ms, where
the chunked scan of transformers took 191 and 992.
"""

import torch
from torch import Tensor

from archspec.kernels.contract import require
from archspec.kernels.memory.matrix_scan import scan, step
from archspec.kernels.precision import wide_type
from archspec.kernels.state import State, recall


def example(B: int = 2, T: int = 63, H: int = 6, P: int = 5, G: int = 2, N: int = 4) -> dict[str, Tensor]:
    """Arguments of `ssd` in float64."""
    x, A, B_, C, D = (_normal(*shape) for shape in ((B, T, H, P), (H,), (B, T, G, N), (B, T, G, N), (H,)))
    return {"x": x, "dt": torch.nn.functional.softplus(_normal(B, T, H)), "A": -A.exp(), "B": B_, "C": C, "D": D}


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


EXAMPLES = ({"T": 1}, {"T": 63}, {"T": 100, "G": 1}, {"T": 257, "H": 3, "G": 3, "P": 7}, {"B": 0, "T": 63})


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
    """y of the recurrence above, (B, T, H, P) in the type of x; the state is kept under "ssm", (B, H, P, N).

    The state is in float32 or wider. Raises ValueError or TypeError where shapes, types or devices do not fit.
    """
    initial = recall(state, "ssm")
    sizes = require(
        "ssd",
        x=(x, "b T H P"),
        dt=(dt, "b T H"),
        A=(A, "H"),
        B=(B, "b T G N"),
        C=(C, "b T G N"),
        D=(D, "H"),
        state=(initial, "b H P N"),
    )
    if sizes["H"] % max(sizes["G"], 1):
        raise ValueError(f"ssd: x has {sizes['H']} heads, expected a multiple of the {sizes['G']} groups of B")
    wide = wide_type(x)
    dt = dt.to(wide)
    values, decay = (x.to(wide) * dt.unsqueeze(-1)).to(x.dtype), dt * A.to(wide)
    initial = None if initial is None else initial.mT  # (B, H, N, P)
    if state is not None and x.shape[1] == 1:
        y, last = step(C, B, values, decay, None, 1.0, initial)
    else:
        y, last = scan(C, B, values, decay, initial, chunk=chunk)
    if state is not None:
        state["ssm"] = last.mT
    return y.to(x.dtype) if D is None else y.to(wide).addcmul_(x.to(wide), D.to(wide).unsqueeze(-1)).to(x.dtype)
