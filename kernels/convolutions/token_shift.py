"""Token shift: every token replaced by the one before it in its sequence, the first by zeros (RWKV, Peng et al. 2023).

    y[t] = x[t-1],    y[0] = 0, or the last token of the calls before

A convolution with the two taps (1, 0), which needs no products. Shapes: x (B, T, D) -> (B, T, D); the state of decoding
is the last token, (B, D). Nothing is computed, so autograd through the copy is the backward pass, and a compiler
makes one kernel of it and of what mixes both tokens.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.contract import require
from archspec.kernels.state import State, recall


def reference(x: Tensor, last: Tensor | None = None) -> Tensor:
    """The equation in float64, one token after another; last (B, D) is the token before the first."""
    x = x.double()
    before = torch.zeros_like(x[:, 0]) if last is None else last.double()
    outputs = []
    for t in range(x.shape[1]):
        outputs.append(before)
        before = x[:, t]
    return torch.stack(outputs, dim=1)


def token_shift(x: Tensor, state: State | None = None, mask: Tensor | None = None) -> Tensor:
    """x (B, T, D) one place later, (B, T, D); the state keeps the last token under "shift" (B, D).

    mask (B, T) is True for real tokens, before which padding stands: a row begins, or goes on from its state, at its
    first real token.

    Raises ValueError for shapes that do not fit together.
    """
    last = recall(state, "shift")
    require("token_shift", x=(x, "B T D"), shift=(last, "B D"))
    first = x.new_zeros(x.shape[0], 1, x.shape[2]) if last is None else last.unsqueeze(1)
    seen = torch.cat((first, x), dim=1)  # (B, T + 1, D)
    if mask is not None:
        seen = torch.where(F.pad(mask, (1, 0)).unsqueeze(-1), seen, first)
    if state is not None:
        state["shift"] = seen[:, -1].clone()  # a view would keep all tokens alive
    return seen[:, :-1]


def example(B: int = 2, T: int = 63, D: int = 6) -> dict[str, Tensor]:
    """Arguments of `token_shift` for tests and measurements."""
    return {"x": torch.randn(B, T, D, dtype=torch.float64)}


EXAMPLES: tuple[dict[str, int], ...] = ({}, {"T": 1}, {"B": 1, "T": 100, "D": 3}, {"B": 0, "T": 5})
