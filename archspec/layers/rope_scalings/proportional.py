"""Proportional RoPE: the slow pairs do not turn at all, the fast ones turn at the frequencies of a full rotation.

    w_i = theta^(-2i / dim) / factor  for the first `fraction` of the pairs, else 0

Unlike a partial rotation (`fraction` of the rope itself), the exponents are spread over all channels, and a pair that
turns is still two channels dim / 2 apart.

Source: Gemma Team 2026, "Gemma 4", in Hugging Face's implementation.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from archspec.layers.base import RopeScalingComponent
from archspec.layers.fields import Positive, field


class ProportionalScaling(RopeScalingComponent):
    """Only the fast pairs turn."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = ({"fraction": 0.25}, {"fraction": 0.5, "factor": 2.0})

    kind: Literal["proportional"] = "proportional"
    fraction: Annotated[float, Field(gt=0, le=1)] = field("share of the pairs that turn")
    factor: Positive = field("how many times slower they turn", 1.0)

    def changes(self, dim: int, theta: float) -> bool:
        """Unless all pairs turn, as fast as without it."""
        return self.factor != 1 or int(self.fraction * dim // 2) < dim // 2

    def check_width(self, dim: int) -> None:
        """Refuse a share of which no pair is left."""
        if int(self.fraction * dim // 2) == 0:
            raise ValueError(
                f"scaling.fraction = {self.fraction:g} of {dim // 2} pairs lets none of them turn;"
                " choose more of them, or no position"
            )
