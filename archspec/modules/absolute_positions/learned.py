"""Learned absolute positions, as a module. What it computes is said in `archspec.layers.absolute_positions.learned`."""

import torch
from torch import Tensor, nn

from archspec.kernels.inputs import is_known
from archspec.layers.absolute_positions.learned import Learned as Config


class Learned(nn.Module):
    """A learned row for each position."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        self.table = nn.Embedding(c.n_positions + c.offset if c.offset else c.n_positions, c.dim)

    def forward(self, x: Tensor, start: int = 0, positions: Tensor | None = None) -> Tensor:
        """The rows (T, dim) of the positions at which the tokens x (B, T, dim) stand."""
        c = self.c
        T = x.shape[1]
        if c.placed and not c.plain and positions is not None:
            check_positions(positions, c.n_positions)
        elif not c.plain:
            check_length(start + T, c.n_positions)
        if c.counted and positions is not None:
            places = positions  # (B, T)
        else:
            places = torch.arange(start, start + T, device=x.device)  # (T,)
        if c.offset:
            places = places + c.offset
        return self.table(places)  # (T, dim)


def check_positions(positions: Tensor, longest: int) -> None:
    """Refuse positions that are no whole numbers (TypeError), or for which the table has no row (IndexError)."""
    if positions.is_floating_point() or positions.dtype == torch.bool:
        raise TypeError(f"positions are {positions.dtype}; learned positions are whole numbers")
    if not is_known(positions) or not positions.numel():
        return
    if int(positions.min()) < 0 or int(positions.max()) >= longest:
        found = f"{int(positions.min())} to {int(positions.max())}"
        raise IndexError(f"positions {found}, but there are learned positions for 0 to {longest - 1}")


def check_length(length: int, longest: int) -> None:
    """Raise IndexError for more tokens than the table has rows for."""
    if length > longest:
        raise IndexError(
            f"{length} tokens, but there are learned positions for {longest}:"
            f" cut the sequence to {longest}, or build the model with a larger max_seq_len"
        )
