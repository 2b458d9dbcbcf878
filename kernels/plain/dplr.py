"""Matrix memory whose transition is diagonal plus low rank: RWKV-7 (Peng et al. 2025).

S[t] = diag(exp(g[t])) S[t-1] + b[t] u[t]^T + k[t] v[t]^T,    u[t] = S[t-1]^T a[t],    y[t] = scale S[t]^T q[t]
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.plain.decay import decayed_scores, log_decay_sums
from archspec.kernels.plain.precision import wide
from archspec.kernels.plain.state import State

CHUNK = 16  # tokens with a decay for each pair and channel


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
    """y (B, T, H, V) of q, k, a, b and log decays (B, T, H, K) and v (B, T, H, V); the state keeps S as "memory".

    Within a chunk u depends on the u before: (I - M) u = what S and the values before give, M being the products of a
    and earlier b.
    """
    S = wide(v).new_zeros(len(v), *k.shape[2:], v.shape[3])  # (B, H, K, V)
    if state is not None and "memory" in state:
        S = state["memory"]
    size = CHUNK if chunk is None else min(chunk, CHUNK)
    outputs = []
    for now in (slice(start, start + size) for start in range(0, v.shape[1], size)):
        q_c, k_c, v_c, a_c, b_c = (wide(x[:, now]).transpose(1, 2) for x in (q, k, v, a, b))  # (B, H, L, K or V)
        total = log_decay_sums(wide(decay[:, now]))  # (B, H, L, K)
        before = F.pad(total[:, :, :-1], (0, 0, 1, 0))  # u reads before the decay of its token
        recalled = (a_c * before.exp()) @ S + decayed_scores(a_c, k_c, before, total, -1) @ v_c
        one = torch.eye(total.shape[2], dtype=S.dtype, device=S.device)
        u = torch.linalg.solve_triangular(
            one - decayed_scores(a_c, b_c, before, total, -1), recalled, upper=False, unitriangular=True
        )
        y = decayed_scores(q_c, b_c, total, total, 0) @ u + decayed_scores(q_c, k_c, total, total, 0) @ v_c
        outputs.append((y + (q_c * total.exp()) @ S).transpose(1, 2))
        end = total[:, :, -1:]
        S = end.exp().mT * S + (b_c * (end - total).exp()).mT @ u + (k_c * (end - total).exp()).mT @ v_c
    if state is not None:
        state["memory"] = S
    y = torch.cat(outputs, dim=1)
    if scale != 1.0:
        y = scale * y
    return y.to(v.dtype)
