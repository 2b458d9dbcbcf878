"""Token shift: every token replaced by the one before it in its sequence, the first by zeros (RWKV)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.plain.state import State


def token_shift(x: Tensor, state: State | None = None, mask: Tensor | None = None) -> Tensor:
    """x (B, T, D) one place later, (B, T, D); the state keeps the last token under "shift" (B, D)."""
    if state is not None and "shift" in state:
        first = state["shift"].unsqueeze(1)
    else:
        first = x.new_zeros(x.shape[0], 1, x.shape[2])
    seen = torch.cat((first, x), dim=1)  # (B, T + 1, D)
    if mask is not None:
        # A row begins, or goes on from its state, at its first real token.
        seen = torch.where(F.pad(mask, (1, 0)).unsqueeze(-1), seen, first)
    if state is not None:
        state["shift"] = seen[:, -1].clone()
    return seen[:, :-1]
