"""State spaces as recurrences in float64, token by token, written from their equations."""

import torch
from torch import Tensor

F64 = torch.float64


def discretize(a: Tensor, b: Tensor, dt: float | Tensor, method: str) -> tuple[Tensor, Tensor]:
    """Dense A (N, N), B (N,), scalar dt: "bilinear" or "zoh" (exact)."""
    one = torch.eye(a.shape[0], dtype=a.dtype)
    if method == "bilinear":
        left = torch.linalg.inv(one - dt / 2 * a)
        return left @ (one + dt / 2 * a), left @ b * dt
    da = torch.linalg.matrix_exp(dt * a)
    return da, torch.linalg.solve(a, (da - one) @ b)


def dense_ssm(u: Tensor, da: Tensor, db: Tensor, c: Tensor) -> Tensor:
    """One channel: x = dA x + dB u, y = C x; u (T,)."""
    x = torch.zeros_like(db)
    out = []
    for t in range(len(u)):
        x = da @ x + db * u[t]
        out.append((c * x).sum())
    return torch.stack(out)


def dss_softmax(lam: Tensor, w: Tensor, dt: Tensor, length: int) -> Tensor:
    """Re sum_n w_n / lam_n softmax over positions of lam_n dt l; (D, L)."""
    s = torch.exp(lam.unsqueeze(-1) * dt[:, None, None] * torch.arange(length, dtype=F64))
    return ((w / lam).unsqueeze(-1) * s / s.sum(-1, keepdim=True)).sum(1).real


def modal_steps(u: Tensor, residues: Tensor, log_poles: Tensor) -> Tensor:
    """What decoding runs: s = pole s + u, y = Re sum_n residues_n s_n; u (B, T, D)."""
    s = torch.zeros(u.shape[0], *residues.shape, dtype=torch.complex128)
    out = []
    for t in range(u.shape[1]):
        s = torch.exp(log_poles) * s + u[:, t, :, None]
        out.append((residues * s).sum(-1).real)
    return torch.stack(out, dim=1)
