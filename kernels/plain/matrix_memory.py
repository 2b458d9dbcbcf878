"""Matrix memory: linear attention with a decay, one matrix a head that tokens are written into and read from.

S[t] = diag(exp(g[t])) S[t-1] + k[t] v[t]^T        y[t] = scale q[t] S[t]
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.plain.decay import decayed_scores, log_decay_sums
from archspec.kernels.plain.precision import wide
from archspec.kernels.plain.state import State


def matrix_memory(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor | None = None,
    *,
    bonus: Tensor | None = None,
    normalise: bool = False,
    scale: float | None = None,
    chunk: int = 64,
    state: State | None = None,
) -> Tensor:
    """y (B, T, H, V) of q, k (B, T, G, K), each of the G for H / G heads, and v (B, T, H, V).

    decay: log decays (H,), (H, K), (B, T, H) or (B, T, H, K). bonus (H, K): the memory is read before the token is
    written, and the token itself weighs as much. normalise: y is divided by what the same memory makes of the value 1.
    The state keeps "memory" (B, H, K, V) and "normaliser" (B, H, K).
    """
    memory = wide(v).new_zeros(len(v), v.shape[2], k.shape[3], v.shape[3])
    if state is not None and "memory" in state:
        memory = state["memory"]
    y, memory = recurrence(q, k, v, decay, bonus, memory, chunk)
    if state is not None:
        state["memory"] = memory
    if normalise:
        total = torch.zeros_like(memory[..., :1])
        if state is not None and "normaliser" in state:
            total = state["normaliser"].unsqueeze(-1)
        weight, total = recurrence(q, k, torch.ones_like(v[..., :1]), decay, bonus, total, chunk)
        if state is not None:
            state["normaliser"] = total.squeeze(-1)
        return (y / weight).to(v.dtype)
    if scale is not None:
        y = scale * y
    return y.to(v.dtype)


def recurrence(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor | None, bonus: Tensor | None, S: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """What is read, (B, T, H, V), and the memory S (B, H, K, V) after the last token."""
    B, T, H, _ = v.shape
    if decay is not None:
        decay = wide(decay.unsqueeze(-1) if decay.dim() in (1, 3) else decay).expand(B, T, H, -1)
        chunk = chunk if decay.shape[-1] == 1 else min(chunk, 16)  # tokens with a decay for each pair and channel
    own = 0 if bonus is None else -1
    outputs = []
    for now in (slice(start, start + chunk) for start in range(0, T, chunk)):
        q_c, k_c = (wide(x[:, now]).repeat_interleave(H // x.shape[2], dim=2).transpose(1, 2) for x in (q, k))
        v_c = wide(v[:, now]).transpose(1, 2)  # (B, H, L, V)
        if decay is None:
            y = (q_c @ k_c.mT).tril(own) @ v_c + q_c @ S
            S = S + k_c.mT @ v_c
        else:
            at_key = log_decay_sums(decay[:, now])  # (B, H, L, K or 1)
            at_read = at_key if bonus is None else F.pad(at_key[:, :, :-1], (0, 0, 1, 0))
            y = decayed_scores(q_c, k_c, at_read, at_key, own) @ v_c + (q_c * at_read.exp()) @ S
            end = at_key[:, :, -1:]
            S = end.exp().mT * S + (k_c * (end - at_key).exp()).mT @ v_c
        if bonus is not None:
            y = y + (q_c * bonus.unsqueeze(1) * k_c).sum(-1, keepdim=True) * v_c
        outputs.append(y.transpose(1, 2))
    return torch.cat(outputs, dim=1), S
