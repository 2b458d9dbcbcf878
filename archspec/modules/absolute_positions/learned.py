"""Learned absolute positions, as a module. What it computes is said in `archspec.layers.absolute_positions.learned`."""

import torch
from torch import Tensor, nn

from archspec.layers.absolute_positions.learned import Learned as Config


class Learned(nn.Module):
    """A learned row for each position."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        self.table = nn.Embedding(c.n_positions + c.offset if c.offset else c.n_positions, c.dim)

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """The rows (T, dim) of the tokens x (B, T, dim), which stand at positions start .. start + T - 1."""
        c = self.c
        T = x.shape[1]
        if not c.plain:
            check_length(start + T, c.n_positions)
        positions = torch.arange(start, start + T, device=x.device)  # (T,)
        if c.offset:
            positions = positions + c.offset
        return self.table(positions)  # (T, dim)


def check_length(length: int, longest: int) -> None:
    """Raise IndexError for more tokens than the table has rows for."""
    if length > longest:
        raise IndexError(
            f"{length} tokens, but there are learned positions for {longest}:"
            f" cut the sequence to {longest}, or build the model with a larger max_seq_len"
        )
