"""Position interpolation: positions are divided by a factor, so that a longer text spans the angles of training.

    w_i = theta^(-2i / dim) / factor

Source: Chen et al. 2023, "Extending Context Window of Large Language Models via Positional Interpolation".
"""

from typing import Any, ClassVar, Literal

from archspec.layers.base import RopeScalingComponent
from archspec.layers.fields import Positive, field


class LinearScaling(RopeScalingComponent):
    """Every frequency divided by one factor."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = ({"factor": 4.0},)

    kind: Literal["linear"] = "linear"
    factor: Positive = field("how many times longer than in training")

    def changes(self, dim: int, theta: float) -> bool:
        """Unless the factor is 1."""
        return self.factor != 1
