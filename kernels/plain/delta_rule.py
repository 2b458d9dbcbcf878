"""Delta rules: a memory that, for each key, replaces what it recalls by what it should recall.

S = diag(exp(g[t])) S[t-1];    S[t] = S + beta[t] k[t] (v[t] - S^T p[t])^T;    y[t] = scale S[t]^T q[t]
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.plain.decay import decayed_scores, log_decay_sums
from archspec.kernels.plain.precision import wide
from archspec.kernels.plain.state import State


def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    decay: Tensor | None = None,
    *,
    read_key: Tensor | None = None,
    scale: float = 1.0,
    chunk: int | None = None,
    state: State | None = None,
) -> Tensor:
    """y (B, T, H, V) of q, k, p (B, T, G, K), each of the G for H / G heads, v (B, T, H, V) and beta (B, T, H).

    decay: log decays (B, T, H) or (B, T, H, K); read_key: p, if other than k. Within a chunk the writes u = beta (v -
    S^T p) depend on those before: (I + beta M) u = beta (v - S^T p) with the S that enters the chunk, M being the
    products of p and earlier keys. The state keeps S (B, H, K, V) as "memory".
    """
    H, length = v.shape[2], 32 if chunk is None else chunk
    S = wide(v).new_zeros(len(v), H, k.shape[3], v.shape[3])
    if state is not None and "memory" in state:
        S = state["memory"]
    if decay is not None:
        decay = wide(decay.unsqueeze(-1) if decay.dim() == 3 else decay)  # (B, T, H, K or 1)
        length = length if decay.shape[-1] == 1 else 16  # tokens with a decay for each pair and channel
    outputs = []
    for now in (slice(start, start + length) for start in range(0, v.shape[1], length)):
        q_c, k_c = (wide(x[:, now]).repeat_interleave(H // x.shape[2], dim=2).transpose(1, 2) for x in (q, k))
        p_c = k_c
        if read_key is not None:
            p_c = wide(read_key[:, now]).repeat_interleave(H // read_key.shape[2], dim=2).transpose(1, 2)
        v_c, beta_c = wide(v[:, now]).transpose(1, 2), wide(beta[:, now]).mT.unsqueeze(-1)  # (B, H, L, V or 1)
        if decay is None:
            overlap, scores, whole = (p_c @ k_c.mT).tril(-1), (q_c @ k_c.mT).tril(), S
        else:
            total = log_decay_sums(decay[:, now])  # (B, H, L, K or 1)
            overlap = decayed_scores(p_c, k_c, total, total, -1)
            scores = decayed_scores(q_c, k_c, total, total, 0)
            end = total[:, :, -1:]
            whole = end.exp().mT * S
            q_c, p_c, k_c = q_c * total.exp(), p_c * total.exp(), k_c * (end - total).exp()
        one = torch.eye(overlap.shape[-1], dtype=S.dtype, device=S.device)
        u = torch.linalg.solve_triangular(
            one + beta_c * overlap, beta_c * (v_c - p_c @ S), upper=False, unitriangular=True
        )
        outputs.append((scores @ u + q_c @ S).transpose(1, 2))
        S = whole + k_c.mT @ u
    if state is not None:
        state["memory"] = S
    y = torch.cat(outputs, dim=1)
    if scale != 1.0:
        y = scale * y
    return y.to(v.dtype)


def delta_product(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    decay: Tensor | None = None,
    *,
    scale: float = 1.0,
    chunk: int | None = None,
    state: State | None = None,
) -> Tensor:
    """n steps a token: the decay comes before the first, q (B, T, G, K) reads after the last; y (B, T, H, V).

    k (B, T, n, G, K), v (B, T, n, H, V), beta (B, T, n, H), decay (B, T, H) or (B, T, H, K).
    """
    n = k.shape[2]
    late = F.pad(q.unsqueeze(2), (0, 0, 0, 0, n - 1, 0)).flatten(1, 2)
    if decay is not None:
        decay = F.pad(decay.unsqueeze(2), (0, 0) * (decay.dim() - 2) + (0, n - 1)).flatten(1, 2)
    k, v, beta = k.flatten(1, 2), v.flatten(1, 2), beta.flatten(1, 2)
    return delta_rule(late, k, v, beta, decay, scale=scale, chunk=chunk, state=state)[:, n - 1 :: n]
