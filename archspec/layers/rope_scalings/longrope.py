"""LongRoPE: each frequency is divided by its own searched factor; there is a set for short texts and one for long ones.

    w_i = theta^(-2i / dim) / short_factor_i    up to `original_max_seq_len` tokens
    w_i = theta^(-2i / dim) / long_factor_i     in longer texts

Cosines and sines are multiplied by sqrt(1 + ln(factor) / ln(original_max_seq_len)) unless `attention_factor` is given.
While decoding, the set follows the length of the text so far, and keys already stored stay turned as they were, as in
Hugging Face's implementation: a text that crosses `original_max_seq_len` differs from running it at once.

Sources: Ding et al. 2024, "LongRoPE"; Abdin et al. 2024, "Phi-3 Technical Report" (the switch at the original length).
"""

from math import log, sqrt
from typing import Any, ClassVar, Literal

from archspec.layers.base import Component, Positive, Size, derived, field, inherited
from archspec.layers.ops import Op


class LongRopeScaling(Component):
    """A factor for each frequency; a set for short texts and a set for long ones."""

    role: ClassVar[str] = "rope_scaling"
    score_factor: ClassVar[float] = 1.0
    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"original_max_seq_len": 8, "short_factor": (1.0, 1.5), "long_factor": (2.0, 4.0)},
        {"original_max_seq_len": 8, "short_factor": (1.0, 1.5), "long_factor": (2.0, 4.0), "attention_factor": 1.5},
    )

    kind: Literal["longrope"] = "longrope"
    max_seq_len: Size = inherited("tokens of the longest sequence")
    original_max_seq_len: Size = field("tokens of a sequence in training, where the factors switch", gt=1)
    short_factor: tuple[Positive, ...] = field("a divisor for each pair in short texts", strict=False)
    long_factor: tuple[Positive, ...] = field("a divisor for each pair in long texts", strict=False)
    factor: Positive = derived("how many times longer than in training", "max_seq_len / original_max_seq_len")
    attention_factor: Positive | None = field("factor of cosines and sines instead of the formula's", None)

    def check(self) -> None:
        """Refuse a factor that would have no effect."""
        if self.attention_factor is not None and self.factor != self.max_seq_len / self.original_max_seq_len:
            raise ValueError(f"factor = {self.factor:g} has no effect when attention_factor is given: leave one out")

    @property
    def table_factor(self) -> float:
        """What cosines and sines are multiplied with."""
        if self.attention_factor is not None:
            return self.attention_factor
        return 1.0 if self.factor <= 1 else sqrt(1 + log(self.factor) / log(self.original_max_seq_len))

    def ops(self) -> tuple[Op, ...]:
        """None."""
        return ()
