"""Llama 3's scaling: long wavelengths are divided by the factor, short ones stay, those between are blended smoothly.

    w_i' = (1 - s_i) * w_i / factor + s_i * w_i,
    s_i = clip((original * w_i / (2 pi) - low_freq_factor) / (high_freq_factor - low_freq_factor), 0, 1)

Source: Grattafiori et al. 2024, "The Llama 3 Herd of Models", and Meta's code for Llama 3.1.
"""

from math import pi
from typing import Any, ClassVar, Literal

from archspec.layers.base import RopeScalingComponent
from archspec.layers.fields import Positive, Size, field


class Llama3Scaling(RopeScalingComponent):
    """Frequencies blended between kept and divided, by wavelength."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = ({"factor": 8.0, "original_max_seq_len": 16},)

    kind: Literal["llama3"] = "llama3"
    factor: Positive = field("what long wavelengths are multiplied with")
    original_max_seq_len: Size = field("tokens of a sequence in training")
    low_freq_factor: Positive = field("pairs that turn less often than this within training's length are divided", 1.0)
    high_freq_factor: Positive = field("pairs that turn more often than this within training's length stay", 4.0)

    def check(self) -> None:
        """Refuse an empty blend."""
        if self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(
                f"high_freq_factor = {self.high_freq_factor:g} must be above low_freq_factor = {self.low_freq_factor:g}"
            )

    def changes(self, dim: int, theta: float) -> bool:
        """Unless the factor is 1, or even the slowest pair turns so often that it stays."""
        slowest = theta ** (2 / dim - 1)
        return self.factor != 1 and self.original_max_seq_len * slowest / (2 * pi) < self.high_freq_factor
