"""The matrix memory of xLSTM with exponential input gates (Beck et al. 2024).

C[t] = sigmoid(f[t]) C[t-1] + exp(i[t]) k[t] v[t]^T         n[t] = sigmoid(f[t]) n[t-1] + exp(i[t]) k[t]
y[t] = scale q[t] C[t] / max(|scale q[t] . n[t]|, 1)
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.plain.matrix_memory import recurrence
from archspec.kernels.plain.precision import wide
from archspec.kernels.plain.state import State


def mlstm(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    input_gate: Tensor,
    forget_gate: Tensor,
    state: State | None = None,
    *,
    scale: float | None = None,
    eps: float = 0.0,
    chunk: int = 64,
) -> Tensor:
    """y (B, T, H, V) of q, k (B, T, G, K), v (B, T, H, V) and the gates i, f (B, T, H).

    What is held is C exp(-m) and n exp(-m) for the running maximum m[t] = max(log sigmoid(f[t]) + m[t-1], i[t]), so
    that no exponential overflows: "memory" (B, H, K, V), "normaliser" (B, H, K) and "maximum" (B, H).
    """
    memory = wide(v).new_zeros(len(v), v.shape[2], k.shape[3], v.shape[3])
    total, start = memory[..., :1], memory[..., 0, 0]
    if state is not None and "memory" in state:
        memory, total, start = state["memory"], state["normaliser"].unsqueeze(-1), state["maximum"]
    keep, write = F.logsigmoid(wide(forget_gate)), wide(input_gate)
    sums = keep.cumsum(1)
    # m cancels in y: a gradient has nothing to find in it.
    highest = (sums + torch.maximum((write - sums).cummax(1).values, start.unsqueeze(1))).detach()
    decay = keep + torch.cat((start.unsqueeze(1), highest[:, :-1]), dim=1) - highest
    gate = (write - highest).exp().unsqueeze(-1)  # (B, T, H, 1)
    y, memory = recurrence(q, k, gate * v, decay, None, memory, chunk)
    n, total = recurrence(q, k, gate, decay, None, total, chunk)
    if state is not None:
        state["memory"], state["normaliser"], state["maximum"] = memory, total.squeeze(-1), highest[:, -1]
    if scale is not None:
        y, n = scale * y, scale * n
    return (y / (torch.maximum(n.abs(), (-highest).exp().unsqueeze(-1)) + eps)).to(v.dtype)
