"""The sLSTM of xLSTM: a memory cell with exponential gates and heads that do not mix (Beck et al. 2024).

i, f, z, o = x[t] + U h[t-1] + b;  m = max(log sig(f) + m[t-1], i)
c = exp(log sig(f) + m[t-1] - m) c[t-1] + exp(i - m) tanh(z)
n = exp(log sig(f) + m[t-1] - m) n[t-1] + exp(i - m);  h[t] = sig(o) c / n
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.plain.precision import wide
from archspec.kernels.plain.state import State


def slstm(x: Tensor, weight: Tensor, bias: Tensor | None = None, state: State | None = None) -> Tensor:
    """h (B, T, H, D) of gate inputs x (B, T, 4, H, D), U (4, H, D, D) and b (4, H, D).

    The state keeps "h", "c", "n" and "m", (B, H, D); c and n are divided by exp(m), so that nothing overflows.
    """
    h = c = n = torch.zeros_like(wide(x[:, 0, 0]))
    m = torch.full_like(h, -torch.inf)  # the first token then takes m = i
    if state is not None and "h" in state:
        h, c, n, m = state["h"], state["c"], state["n"], state["m"]
    outputs = []
    for now in wide(x).unbind(1):
        gates = now + torch.einsum("bhe,ghde->bghd", h, wide(weight))  # (B, 4, H, D)
        if bias is not None:
            gates = gates + bias
        i, f, z, o = gates.unbind(1)
        kept = F.logsigmoid(f) + m
        m = torch.maximum(kept, i).detach()  # cancels in c / n
        c = torch.exp(kept - m) * c + torch.exp(i - m) * torch.tanh(z)
        n = torch.exp(kept - m) * n + torch.exp(i - m)
        h = torch.sigmoid(o) * c / n
        outputs.append(h)
    if state is not None:
        state["h"], state["c"], state["n"], state["m"] = h, c, n, m
    return torch.stack(outputs, dim=1).to(x.dtype)
