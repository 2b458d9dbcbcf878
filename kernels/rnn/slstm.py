"""The sLSTM of xLSTM: a memory cell with exponential gates and heads that do not mix.

    i, f, z, o = x[t] + U h[t-1] + b;  m = max(log sig(f) + m[t-1], i)
    c = exp(log sig(f) + m[t-1] - m) c[t-1] + exp(i - m) tanh(z)
    n = exp(log sig(f) + m[t-1] - m) n[t-1] + exp(i - m);  h[t] = sig(o) c / n

Shapes: x (B, T, 4, H, D), the inputs of the gates already projected (and convolved) by the block; U (4, H, D, D) from
the D channels of a head to each of its gates; b (4, H, D) -> (B, T, H, D). Exponential gates overflow, so c and n are
kept divided by exp(m), which cancels in h. A first step has n = 0 and takes m = i.

Steps are vectorised over batch, heads and channels; each token waits for the one before it. It is PyTorch with
autograd's backward on every device, in float32 or wider. Its state holds "h", "c", "n" and "m", each (B, H, D).

Source: Beck et al. 2024 (xLSTM, equations 8 to 17 and appendix A).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.contract import require
from archspec.kernels.precision import wide_type
from archspec.kernels.state import State, recall

EXAMPLES = (
    {"B": 2, "T": 5, "H": 2, "D": 3},
    {"B": 1, "T": 1, "H": 1, "D": 1},
    {"B": 2, "T": 63, "H": 3, "D": 5},
    {"B": 0, "T": 3, "H": 2, "D": 4},
)


def example(B: int = 2, T: int = 5, H: int = 2, D: int = 3) -> dict[str, Tensor]:
    """Example arguments of `slstm`."""
    x, weight, bias = (torch.randn(*s, dtype=torch.float64) for s in ((B, T, 4, H, D), (4, H, D, D), (4, H, D)))
    return {"x": 2 * x, "weight": weight / D**0.5, "bias": bias}


def reference(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`slstm` in float64 without a stabiliser: exponentials as they stand in the equations."""
    x, weight, bias = x.double(), weight.double(), bias.double()
    h = c = n = x.new_zeros(x.shape[0], *x.shape[3:])
    outputs = []
    for t in range(x.shape[1]):
        i, f, z, o = (x[:, t] + torch.einsum("bhe,ghde->bghd", h, weight) + bias).unbind(1)
        c = f.sigmoid() * c + i.exp() * z.tanh()
        n = f.sigmoid() * n + i.exp()
        h = o.sigmoid() * c / n
        outputs.append(h)
    return torch.stack(outputs, 1)


def slstm(x: Tensor, weight: Tensor, bias: Tensor | None = None, state: State | None = None) -> Tensor:
    """sLSTM of gate inputs x (B, T, 4, H, D), weight U (4, H, D, D) and bias (4, H, D) -> (B, T, H, D) in x's type.

    Gates stand in the order i, f, z, o. weight[g, h, d, e] leads from channel e of head h to channel d of its gate g.
    Raises ValueError or TypeError for arguments of wrong shapes or types.
    """
    require("slstm", x=(x, "B T 4 H D"), weight=(weight, "4 H D D"), bias=(bias, "4 H D"))
    wide = wide_type(x)
    gates = x.to(wide) if bias is None else x.to(wide) + bias.to(wide)
    mixing = weight.to(wide).transpose(0, 1).flatten(1, 2).mT  # (H, D, 4 D)
    empty = gates.new_zeros(x.shape[0], *x.shape[3:])
    nothing = torch.full_like(empty, -torch.inf)  # the first step then takes m = i
    past = ((recall(state, name), start) for name, start in zip("hcnm", (empty, empty, empty, nothing), strict=True))
    h, c, n, m = (start if held is None else held.to(wide) for held, start in past)
    outputs = []
    for now in gates.unbind(1):
        h, c, n, m = _step(now, mixing, h, c, n, m)
        outputs.append(h)
    if state is not None:
        state["h"], state["c"], state["n"], state["m"] = h, c, n, m
    return torch.stack(outputs, 1).to(x.dtype)


def _step(
    now: Tensor, mixing: Tensor, h: Tensor, c: Tensor, n: Tensor, m: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One token: now (B, 4, H, D), mixing (H, D, 4 D), and h, c, n, m (B, H, D) before and after."""
    past = (h.transpose(0, 1) @ mixing).transpose(0, 1).unflatten(-1, (4, -1))  # (B, H, 4, D)
    i, f, z, o = (now + past.transpose(1, 2)).unbind(1)
    kept = F.logsigmoid(f) + m
    m = torch.maximum(kept, i).detach()  # cancels in c / n, so a gradient has nothing to find in it
    forget, enter = torch.exp(kept - m), torch.exp(i - m)
    c = forget * c + enter * torch.tanh(z)
    n = forget * n + enter
    return torch.sigmoid(o) * c / n, c, n, m
