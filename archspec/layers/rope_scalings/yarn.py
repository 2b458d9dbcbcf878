"""YaRN: high frequencies stay, low ones are divided by the factor, those between are blended; scores rise a little.

    w_i = (1 - r_i) * theta^(-2i / dim) + r_i * theta^(-2i / dim) / factor

r_i runs linearly from 0 at the pair that turns `beta_fast` times within `original_max_seq_len` tokens to 1 at the pair
that turns `beta_slow` times. Cosines and sines are multiplied by 0.1 ln(factor) + 1 unless `attention_factor` is given,
or by

    m(mscale) / m(mscale_all_dim),   m(s) = 0.1 s ln(factor) + 1

when DeepSeek's pair is; MLA then also multiplies the scale of its softmax by m(mscale_all_dim)^2.

Sources: Peng et al. 2023, "YaRN: Efficient Context Window Extension of Large Language Models"; DeepSeek-AI 2024,
"DeepSeek-V2" (mscale); OpenAI 2025, "gpt-oss" (without truncation).
"""

from math import ceil, floor, log, pi
from typing import Any, ClassVar, Literal

from archspec.layers.base import RopeScalingComponent
from archspec.layers.fields import Positive, Size, derived, field


class YarnScaling(RopeScalingComponent):
    """Frequencies blended between kept and divided."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"original_max_seq_len": 8},
        {"factor": 4.0, "original_max_seq_len": 512},
        {"factor": 8.0, "original_max_seq_len": 8, "beta_fast": 4.0, "beta_slow": 0.5, "truncate": False},
        {"factor": 8.0, "original_max_seq_len": 8, "attention_factor": 1.5},
        {"factor": 8.0, "original_max_seq_len": 8, "mscale": 1.0, "mscale_all_dim": 0.5},
    )

    kind: Literal["yarn"] = "yarn"
    original_max_seq_len: Size = field("tokens of a sequence in training")
    factor: Positive = derived("how many times longer than in training", "max_seq_len / original_max_seq_len")
    beta_fast: Positive = field("pairs that turn more often than this within training's length stay", 32.0)
    beta_slow: Positive = field("pairs that turn less often than this are divided by the factor", 1.0)
    truncate: bool = field("the ends of the blend are whole pairs", True)
    attention_factor: Positive | None = field("factor of cosines and sines instead of 0.1 ln(factor) + 1", None)
    mscale: Positive | None = field("s of the factor of cosines and sines (DeepSeek)", None)
    mscale_all_dim: Positive | None = field("s of the factor that moves to the softmax's scale (DeepSeek)", None)

    def check(self) -> None:
        """Refuse what would contradict or have no effect."""
        if self.beta_fast <= self.beta_slow:
            raise ValueError(f"beta_fast = {self.beta_fast:g} must be above beta_slow = {self.beta_slow:g}")
        if self.original_max_seq_len <= 2 * pi * self.beta_slow:
            raise ValueError(
                f"original_max_seq_len = {self.original_max_seq_len} must be above 2 pi beta_slow ="
                f" {2 * pi * self.beta_slow:.1f}: in fewer tokens no pair turns beta_slow times"
            )
        if (self.mscale is None) != (self.mscale_all_dim is None):
            raise ValueError("mscale and mscale_all_dim go together: give both or neither")
        if self.mscale is not None and self.attention_factor is not None:
            raise ValueError("attention_factor replaces mscale and mscale_all_dim: give one or the other")

    def changes(self, dim: int, theta: float) -> bool:
        """Unless the factor is 1, or every pair turns so often that it stays."""
        low, high = (
            dim * log(self.original_max_seq_len / (turns * 2 * pi)) / (2 * log(theta))
            for turns in (self.beta_fast, self.beta_slow)
        )
        if self.truncate:
            low, high = floor(low), ceil(high)
        low, high = max(low, 0), min(high, dim - 1)
        return self.factor != 1 and any((i - low) / (high - low or 0.001) > 0 for i in range(dim // 2))

    @property
    def table_factor(self) -> float:
        """What cosines and sines are multiplied with."""
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale is not None and self.mscale_all_dim is not None:
            return self._magnitude(self.mscale) / self._magnitude(self.mscale_all_dim)
        return self._magnitude(1.0)

    @property
    def score_factor(self) -> float:
        """What MLA multiplies the scale of its softmax with."""
        return 1.0 if self.mscale_all_dim is None else self._magnitude(self.mscale_all_dim) ** 2

    def _magnitude(self, mscale: float) -> float:
        return 1.0 if self.factor <= 1 else 0.1 * mscale * log(self.factor) + 1.0
