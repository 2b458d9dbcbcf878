"""ALiBi, attention with linear biases: a score falls in proportion to the distance, by a fixed slope for each head.

    score_h(t, s) = q_t . k_s * scale - slope_h * |t - s|,    slope_h = 2^(-8 h / n_heads),  h = 1 .. n_heads

for n_heads a power of two; otherwise the slopes of the next lower power, then every other slope of the next higher
one. No parameters, no state.

Source: Press, Smith & Lewis 2022, "Train Short, Test Long: Attention with Linear Biases".
"""

from typing import Any, ClassVar, Literal

from archspec.layers.base import PositionComponent
from archspec.layers.fields import Size, inherited
from archspec.layers.ops import Op


class Alibi(PositionComponent):
    """Attention with linear biases."""

    slopes: ClassVar[bool] = True
    examples: ClassVar[tuple[dict[str, Any], ...]] = ({},)

    kind: Literal["alibi"] = "alibi"
    n_heads: Size = inherited("query heads, each with its own slope")

    @property
    def constants(self) -> int:
        """Its slopes."""
        return self.n_heads

    def ops(self) -> tuple[Op, ...]:
        """None of its own: the slopes go into the mixer's attention."""
        return ()
