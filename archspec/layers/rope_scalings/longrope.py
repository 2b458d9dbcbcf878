"""LongRoPE: each frequency is divided by its own searched factor; there is a set for short texts and one for long ones.

    w_i = theta^(-2i / dim) / short_factor_i    up to `original_max_seq_len` tokens
    w_i = theta^(-2i / dim) / long_factor_i     in longer texts

Cosines and sines are multiplied by sqrt(1 + ln(factor) / ln(original_max_seq_len)) unless `attention_factor` is given.
While decoding, the set follows the length of the text so far, and keys already stored stay turned as they were: a text
that crosses `original_max_seq_len` differs from running it at once. (Hugging Face's `generate` drops the cache there
and computes it anew with the long set, as running the whole text once more at the crossing does.)

Sources: Ding et al. 2024, "LongRoPE"; Abdin et al. 2024, "Phi-3 Technical Report" (the switch at the original length).
"""

from collections.abc import Callable, Iterator
from math import log, sqrt
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from archspec.layers.base import RopeScalingComponent
from archspec.layers.fields import LARGEST, PROVABLE, Positive, Size, derived, field, inherited

Switch = Annotated[int, Field(gt=1, le=LARGEST)]


class LongRopeScaling(RopeScalingComponent):
    """A factor for each frequency; a set for short texts and a set for long ones."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"original_max_seq_len": 8, "short_factor": (1.0, 1.5), "long_factor": (2.0, 4.0)},
        {"original_max_seq_len": 8, "short_factor": (1.0, 1.5), "long_factor": (2.0, 4.0), "attention_factor": 1.5},
    )

    kind: Literal["longrope"] = "longrope"
    max_seq_len: Size = inherited("tokens of the longest sequence")
    original_max_seq_len: Switch = field("tokens of a sequence in training, where the factors switch")
    short_factor: tuple[Positive, ...] = field("a divisor for each pair in short texts", strict=False)
    long_factor: tuple[Positive, ...] = field("a divisor for each pair in long texts", strict=False)
    factor: Positive = derived("how many times longer than in training", "max_seq_len / original_max_seq_len")
    attention_factor: Positive | None = field("factor of cosines and sines instead of the formula's", None)

    def check(self) -> None:
        """Refuse a factor that would have no effect."""
        if self.attention_factor is not None and self.factor != self.max_seq_len / self.original_max_seq_len:
            raise ValueError(f"factor = {self.factor:g} has no effect when attention_factor is given: leave one out")

    def check_width(self, dim: int) -> None:
        """Refuse factors for another number of pairs."""
        for name, factors in (("short_factor", self.short_factor), ("long_factor", self.long_factor)):
            if len(factors) != dim // 2:
                raise ValueError(
                    f"scaling.{name} has {len(factors)} numbers; it needs one for each pair of rotated channels,"
                    f" {dim // 2}"
                )

    def changes(self, dim: int, theta: float) -> bool:
        """Unless every divisor is 1."""
        return any(factor != 1 for factor in (*self.short_factor, *self.long_factor))

    def doubts(self, length: int | None) -> Iterator[str]:
        """Factors of texts for which the model is not made."""
        original = self.original_max_seq_len
        if length is not None and original >= length:
            yield (
                f"long_factor is that of texts of more than original_max_seq_len = {original} tokens, and max_seq_len"
                f" is {length}"
            )

    def for_pairs(self, pairs: int) -> dict[str, Any]:
        """The factors of the first pairs."""
        return {"short_factor": list(self.short_factor[:pairs]), "long_factor": list(self.long_factor[:pairs])}

    def smaller(self, cut: Callable[[int], int]) -> dict[str, Any]:
        """Factors that switch where a proof can still reach it."""
        return {"original_max_seq_len": min(self.original_max_seq_len, PROVABLE)}

    @property
    def exact_within(self) -> int:
        """Where the factors switch, keys already kept stay as they were."""
        return self.original_max_seq_len

    @property
    def table_factor(self) -> float:
        """What cosines and sines are multiplied with."""
        if self.attention_factor is not None:
            return self.attention_factor
        return 1.0 if self.factor <= 1 else sqrt(1 + log(self.factor) / log(self.original_max_seq_len))
