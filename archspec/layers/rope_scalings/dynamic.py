"""Dynamic NTK scaling: the base grows with the text once it is longer than in training.

    w_i = (theta * (factor * n / original - (factor - 1))^(dim / (dim - 2)))^(-2i / dim),   n = max(length, original)

The length is that of the text so far. While decoding beyond `original_max_seq_len` the frequencies of new tokens change
with every step, and keys already stored stay turned as they were, as in Hugging Face's implementation: there, decoding
differs from running the whole text at once.

Source: emozilla 2023, "Dynamically Scaled RoPE"; described in Peng et al. 2023, "YaRN", B.3.
"""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Literal

from archspec.layers.base import RopeScalingComponent
from archspec.layers.fields import PROVABLE, Positive, Size, derived, field


class DynamicScaling(RopeScalingComponent):
    """A base that grows with the length of the text."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = ({"factor": 4.0}, {"factor": 2.0, "original_max_seq_len": 8})

    kind: Literal["dynamic"] = "dynamic"
    factor: Positive = field("how fast the base grows with the length")
    original_max_seq_len: Size = derived("tokens from which on the base grows", "max_seq_len")

    def doubts(self, length: int | None) -> Iterator[str]:
        """A base that grows only in texts for which the model is not made."""
        original = self.original_max_seq_len
        if length is not None and original >= length:
            yield (
                f"the base grows in texts of more than original_max_seq_len = {original} tokens, and max_seq_len is"
                f" {length}; set original_max_seq_len to the length of training"
            )

    def check_width(self, dim: int) -> None:
        """Refuse fewer than two pairs: the exponent divides by dim - 2."""
        if dim < 4:
            raise ValueError(f"scaling.kind = '{self.kind}' needs at least 4 rotated channels, found {dim}")

    def smaller(self, cut: Callable[[int], int]) -> dict[str, Any]:
        """A base that begins to grow where a proof can still reach it."""
        return {"original_max_seq_len": min(self.original_max_seq_len, PROVABLE)}

    @property
    def exact_within(self) -> int:
        """Where the base begins to grow, keys already kept stay as they were."""
        return self.original_max_seq_len
