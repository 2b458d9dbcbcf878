"""Sinusoidal absolute positions: fixed sines and cosines of geometrically falling frequencies.

    y_t[2i] = sin(t w_i),   y_t[2i + 1] = cos(t w_i),   w_i = base^(-2i / dim)

`layout: half` puts all sines first, then all cosines; there, with `endpoint`, the last frequency is exactly 1 / base:
w_i = base^(-i / (dim / 2 - 1)), as in tensor2tensor and fairseq. No parameters, no state, any length.

Source: Vaswani et al. 2017, "Attention Is All You Need", section 3.5.
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from archspec.layers.base import AbsolutePositionComponent
from archspec.layers.fields import Count, Positive, Width, derived, field
from archspec.layers.ops import Op, elementwise


class Sinusoidal(AbsolutePositionComponent):
    """Fixed sines and cosines of the position."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {},
        {"layout": "half", "base": 100.0},
        {"layout": "half", "endpoint": True, "offset": 2},
    )

    kind: Literal["sinusoidal"] = "sinusoidal"
    layout: Literal["interleaved", "half"] = field("sines and cosines in turn, or all sines first", "interleaved")
    base: Positive = field("ratio of the longest to the shortest wavelength", 10000.0)
    endpoint: bool = field("the last frequency is exactly 1 / base", False, when=("layout", "half"))
    offset: Count = field("number of the first position (fairseq: 2)", 0)
    dim: Width = derived("width: that of the embedding", "d_model")

    def check(self) -> None:
        """Refuse what does not come in pairs."""
        if self.dim % 2 or (self.endpoint and self.dim < 4):
            least = ", at least 4 with endpoint" if self.endpoint else ""
            raise ValueError(f"dim = {self.dim} must be even{least}: a sine and a cosine for each frequency")

    def doubts(self, length: int | None) -> Iterator[str]:
        """What makes no difference to a single frequency, which is 1."""
        if self.dim == 2 and self.base != 10000:
            yield "base has no effect on two channels, whose one frequency is 1"
        if self.dim == 2 and self.layout == "half":
            yield "layout has no effect on two channels, one sine and one cosine"

    @property
    def spacing(self) -> int:
        """How many steps fewer than dim / 2 the frequencies take from 1 to 1 / base."""
        return int(self.endpoint)

    def ops(self) -> tuple[Op, ...]:
        """The sines and cosines."""
        return (elementwise("sinusoid", ("T", self.dim), ()),)
