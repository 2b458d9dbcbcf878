"""Learned absolute positions: a row of a table for each position, added to the token's.

    y_t = table[t + offset]

No state of its own (the embedding counts the tokens it has seen); a sequence longer than `n_positions` is an error.

Sources: Gehring et al. 2017, "Convolutional Sequence to Sequence Learning"; Devlin et al. 2019, "BERT"; Zhang et al.
2022, "OPT" (rows 0 and 1 of the table are never used: offset 2).
"""

from typing import Any, ClassVar, Literal

from archspec.layers.base import AbsolutePositionComponent
from archspec.layers.fields import Count, Size, Width, derived, field
from archspec.layers.ops import Embedding, Op, Param


class Learned(AbsolutePositionComponent):
    """A learned row for each position."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = ({}, {"offset": 2, "n_positions": 40})

    kind: Literal["learned"] = "learned"
    n_positions: Size = derived("positions that there are: the longest sequence, in tokens", "max_seq_len")
    offset: Count = field("rows before that of the first position, which are never used (OPT, BART, RoBERTa: 2)", 0)
    dim: Width = derived("width of a row: that of the embedding", "d_model")

    @property
    def longest(self) -> int:
        """The positions that there are."""
        return self.n_positions

    def ops(self) -> tuple[Op, ...]:
        """The table."""
        rows = self.n_positions + self.offset
        table = Param("table.weight", (rows, self.dim))
        return (Embedding(name="table", shape=("T", self.dim), inputs=(), params=(table,), rows=rows, dim=self.dim),)
