"""Dynamic NTK scaling: the base grows with the text once it is longer than in training.

    w_i = (theta * (factor * n / original - (factor - 1))^(dim / (dim - 2)))^(-2i / dim),   n = max(length, original)

The length is that of the text so far. While decoding beyond `original_max_seq_len` the frequencies of new tokens change
with every step, and keys already stored stay turned as they were, as in Hugging Face's implementation: there, decoding
differs from running the whole text at once.

Source: emozilla 2023, "Dynamically Scaled RoPE"; described in Peng et al. 2023, "YaRN", B.3.
"""

from typing import Any, ClassVar, Literal

from archspec.layers.base import Component, Positive, Size, derived, field
from archspec.layers.ops import Op


class DynamicScaling(Component):
    """A base that grows with the length of the text."""

    role: ClassVar[str] = "rope_scaling"
    table_factor: ClassVar[float] = 1.0
    score_factor: ClassVar[float] = 1.0
    examples: ClassVar[tuple[dict[str, Any], ...]] = ({"factor": 4.0}, {"factor": 2.0, "original_max_seq_len": 8})

    kind: Literal["dynamic"] = "dynamic"
    factor: Positive = field("how fast the base grows with the length")
    original_max_seq_len: Size = derived("tokens from which on the base grows", "max_seq_len")

    def check(self) -> None:
        """Refuse a factor that changes nothing."""
        if self.factor == 1:
            raise ValueError("factor = 1 changes nothing; remove the scaling, or say how much longer the text is")

    def ops(self) -> tuple[Op, ...]:
        """None."""
        return ()
