"""Root mean square normalisation: every token is divided by its own root mean square; nothing is centred.

    y = x / sqrt(mean(x^2) + eps) * weight

With `one_plus` the factor is 1 + weight and weight starts at 0 (Gemma). No state; O(d) a token.

What a norm does not say is as in the nearest `norm:` around it: every setting of one of the same kind, and those that
are written down there of one of another kind.

Sources: Zhang & Sennrich 2019, "Root Mean Square Layer Normalization"; Gemma Team 2024 (1 + weight).
"""

from typing import Any, ClassVar, Literal

from archspec.layers.base import NormComponent
from archspec.layers.fields import Positive, field
from archspec.layers.ops import Norm, Param


class RMSNorm(NormComponent):
    """Root mean square normalisation, with or without a weight."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = ({}, {"weight": False, "eps": 1e-5}, {"one_plus": True})

    kind: Literal["rmsnorm"] = "rmsnorm"
    eps: Positive = field("added to the mean square", 1e-6)
    weight: bool = field("a learned factor for each channel", True)
    one_plus: bool = field("the factor is 1 + weight", False, when=("weight", True))

    def op(
        self, name: str, dim: int, inputs: tuple[str, ...] = ("x",), shape: tuple[int | str, ...] | None = None
    ) -> Norm:
        """The op of this norm over `dim` channels, as a sub-module called `name`."""
        params = (Param(f"{name}.weight", (dim,)),) if self.weight else ()
        return Norm(name=name, shape=shape or ("B", "T", dim), inputs=inputs, params=params, label=self.title, dim=dim,
                    kind=self.kind, weighted=self.weight,
                    one_plus=self.weight and self.one_plus)  # fmt: skip
