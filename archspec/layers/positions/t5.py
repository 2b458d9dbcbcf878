"""T5's relative position bias: distances fall into buckets, and each bucket has a learned bias for each head.

    score_h(t, s) += table[bucket(s - t), h]

Half of the buckets hold one distance each, the other half widen logarithmically up to `max_distance`; beyond it all
share the last one. When bidirectional, half of the buckets are for keys ahead; otherwise keys ahead count as distance
0. No state; O(T S) biases, once for the stack when `shared`.

Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer".
"""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

from archspec.layers.base import PositionComponent
from archspec.layers.fields import Size, field, inherited
from archspec.layers.ops import Embedding, Op, Param


class T5Bias(PositionComponent):
    """A learned bias on the scores for each bucket of distances and each head."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {},
        {"n_buckets": 8, "max_distance": 16, "shared": False},
        {"n_buckets": 8, "max_distance": 16, "bidirectional": True},
    )

    kind: Literal["t5"] = "t5"
    n_heads: Size = inherited("query heads, each with its own biases")
    n_buckets: Size = field("buckets of distances, that is rows of the table", 32)
    max_distance: Size = field("distance in tokens from which all share the last bucket", 128)
    bidirectional: bool = field("keys ahead have buckets of their own (encoders)", False)
    shared: bool = field("one table for the whole stack, as T5 does; otherwise one in each layer", True)

    def check(self) -> None:
        """Refuse buckets that cannot be split, and a largest distance that the exact buckets already reach."""
        step = 4 if self.bidirectional else 2
        if self.n_buckets % step:
            why = " when bidirectional" if self.bidirectional else ""
            raise ValueError(f"n_buckets = {self.n_buckets} must be a multiple of {step}{why}")
        if self.max_distance <= self.n_buckets // step:
            raise ValueError(
                f"max_distance = {self.max_distance} must be above {self.n_buckets // step},"
                " the distances that have a bucket of their own"
            )

    @property
    def reach(self) -> int:
        """Where the last bucket begins."""
        return self.max_distance

    def smaller(self, cut: Callable[[int], int]) -> dict[str, Any]:
        """A last bucket that begins where a proof can still reach it."""
        exact = self.n_buckets // (4 if self.bidirectional else 2)
        return {"max_distance": min(self.max_distance, 2 * exact + 8)}

    @property
    def arguments(self) -> tuple[str, ...]:
        """The table of a stack counts tokens itself, and hears of places that are not theirs."""
        return ("state", "mask", "places") if self.shared else ()

    @property
    def for_stack(self) -> bool:
        """Whether the table is that of the stack."""
        return self.shared

    @property
    def tells_sides(self) -> bool:
        """Whether keys ahead have buckets of their own."""
        return self.bidirectional

    def ops(self) -> tuple[Op, ...]:
        """The table of biases."""
        table = Param("table.weight", (self.n_buckets, self.n_heads))
        bias = (1, self.n_heads, "T", "S")
        rows, heads = self.n_buckets, self.n_heads
        return (Embedding(name="table", shape=bias, inputs=(), params=(table,), rows=rows, dim=heads),)
