"""The matrix memory of xLSTM with exponential input gates (Beck et al. 2024, eq. 19 to 27).

    C[t] = sigmoid(f[t]) C[t-1] + exp(i[t]) k[t] v[t]^T         n[t] = sigmoid(f[t]) n[t-1] + exp(i[t]) k[t]
    y[t] = scale q[t] C[t] / max(|scale q[t] . n[t]|, 1)

Shapes: q and k (B, T, G, K), v (B, T, H, V), i and f (B, T, H) -> y (B, T, H, V), as in
`memory.matrix_memory`, which computes it. The exponential gates would overflow, so what is held is C exp(-m)
and n exp(-m) for the running maximum m[t] = max(logsigmoid(f[t]) + m[t-1], i[t]), which starts at 0 (eq. 15, appendix):
both decays then are at most 1. y does not depend on m, which therefore is computed without a gradient, from cumulative
sums in float64.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.contract import require
from archspec.kernels.memory.matrix_memory import remember, sums_of
from archspec.kernels.precision import wide_type
from archspec.kernels.state import State, recall

FLOOR = -1e6  # of the log of the forget gate: its exponential is zero, and sums of it are numbers
EXAMPLES = ({"T": 1}, {"T": 63}, {"T": 100, "H": 3, "G": 1, "V": 7}, {"T": 257}, {"B": 0, "T": 63})


def example(B: int = 2, T: int = 63, H: int = 4, G: int = 4, K: int = 6, V: int = 5) -> dict[str, Tensor]:
    """Arguments of `mlstm` in float64."""
    shapes = {
        "q": (B, T, G, K),
        "k": (B, T, G, K),
        "v": (B, T, H, V),
        "input_gate": (B, T, H),
        "forget_gate": (B, T, H),
    }
    return {name: torch.randn(*shape, dtype=torch.float64) for name, shape in shapes.items()}


def reference(q: Tensor, k: Tensor, v: Tensor, input_gate: Tensor, forget_gate: Tensor, scale: float = 1.0) -> Tensor:
    """The equations above in float64, token by token, without a maximum."""
    q, k, v, i, f = (x.double() for x in (q, k, v, input_gate, forget_gate))
    q, k = (x.repeat_interleave(v.shape[2] // x.shape[2], dim=2) for x in (q, k))
    C, n, outputs = v.new_zeros(*k[:, 0].shape, v.shape[-1]), torch.zeros_like(k[:, 0]), []
    for t in range(q.shape[1]):
        keep, write = torch.sigmoid(f[:, t, :, None]), torch.exp(i[:, t, :, None]) * k[:, t]
        C = keep.unsqueeze(-1) * C + write.unsqueeze(-1) * v[:, t].unsqueeze(-2)
        n = keep * n + write
        bound = (scale * (q[:, t] * n).sum(-1, keepdim=True)).abs().clamp(min=1.0)
        outputs.append(scale * torch.einsum("bhk,bhkv->bhv", q[:, t], C) / bound)
    return torch.stack(outputs, dim=1)


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
    """y of the equations above, (B, T, H, V) in the type of v.

    input_gate is the log of the gate, forget_gate is before its sigmoid; scale is 1 by default; eps is added to the
    denominator exp(-m) max(|q . n|, 1), as some published code does. The state is kept under "memory" (B, H, K, V),
    "normaliser" (B, H, K), both times exp(-m), and "maximum" (B, H), m. Raises ValueError or TypeError where shapes,
    types or devices do not fit.
    """
    sizes = require(
        "mlstm",
        q=(q, "B T G K"),
        k=(k, "B T G K"),
        v=(v, "B T H V"),
        input_gate=(input_gate, "B T H"),
        forget_gate=(forget_gate, "B T H"),
    )
    if sizes["H"] % max(sizes["G"], 1):
        raise ValueError(f"mlstm: v has {sizes['H']} heads, expected a multiple of the {sizes['G']} of q")
    wide = wide_type(v)
    keep, write = F.logsigmoid(forget_gate.double()).clamp(min=FLOOR), input_gate.double()
    start = recall(state, "maximum")
    start = torch.zeros_like(keep[:, 0]) if start is None else start.double()
    highest = running_maximum(keep.detach(), write.detach(), start.detach())
    maxima = torch.cat((start.detach().unsqueeze(1), highest), dim=1)
    decay = (keep + (maxima[:, :-1] - highest)).to(wide)
    gate = (write - highest).exp().to(wide).unsqueeze(-1)
    factor = 1.0 if scale is None else float(scale)
    y = remember(q, k, sums_of((gate * v).to(v.dtype)), decay, None, factor, chunk, state, "memory").to(wide)
    n = remember(q, k, gate, decay, None, factor, chunk, state, "normaliser").to(wide)
    if state is not None:
        state["maximum"] = maxima[:, -1].to(wide)
    return (y / (torch.maximum(n.abs(), (-highest).exp().to(wide).unsqueeze(-1)) + eps)).to(v.dtype)


def running_maximum(keep: Tensor, write: Tensor, start: Tensor) -> Tensor:
    """m[t] = max(keep[t] + m[t-1], write[t]) along the second of (B, T, H) from m = start (B, H), all in float64."""
    total = keep.cumsum(1)
    return total + torch.maximum((write - total).cummax(1).values, start.unsqueeze(1))
