"""Rotary position embedding: channel pairs of queries and keys turn by an angle that grows with the position.

    (a, b) -> (a cos(t w_i) - b sin(t w_i), a sin(t w_i) + b cos(t w_i)),   w_i = theta^(-2i / dim),  i < dim / 2

so that the score of two tokens depends on their distance alone. The first `dim = fraction * head_dim` channels of a
head turn, the others pass. A pair is (x_i, x_{i + dim/2}), or (x_2i, x_2i+1) when `interleaved`. `scaling` changes the
w_i to reach beyond the length of training. No state of its own (the mixer counts the tokens seen); O(dim) a token.

Sources: Su et al. 2021, "RoFormer"; Black et al. 2022, "GPT-NeoX-20B" (a fraction of the channels).
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from archspec.layers.base import Component, PositionComponent
from archspec.layers.fields import Number, Width, field, inherited, slot
from archspec.layers.ops import Op

if TYPE_CHECKING:
    Scaling = Any  # each kind has numbers of its own, which the module reads after asking for the kind
else:
    Scaling = Component | None

_SHORT, _LONG = (1.0, 1.0, 1.1, 1.5, 2.0, 2.5, 3.0, 4.0), (1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 7.0, 8.0)


class Rope(PositionComponent):
    """Rotary position embedding, whole or partial, with or without scaled frequencies."""

    rotates: ClassVar[bool] = True
    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {},
        {"interleaved": True, "theta": 500.0},
        {"fraction": 0.5, "scaling": {"kind": "linear", "factor": 4.0}},
        {"scaling": {"kind": "ntk", "factor": 4.0}},
        {"scaling": {"kind": "dynamic", "factor": 4.0, "original_max_seq_len": 8}},
        {"scaling": {"kind": "yarn", "factor": 4.0, "original_max_seq_len": 8, "mscale": 1.0, "mscale_all_dim": 0.5}},
        {"scaling": {"kind": "llama3", "factor": 8.0, "original_max_seq_len": 16}},
        {"scaling": {"kind": "proportional", "fraction": 0.5}},
        {"scaling": {"kind": "longrope", "original_max_seq_len": 8, "short_factor": _SHORT, "long_factor": _LONG}},
    )

    kind: Literal["rope"] = "rope"
    head_dim: Width = inherited("channels of a query or key head")
    theta: Number = field("base of the wavelengths, which run from 2 pi to about 2 pi theta tokens", 10000.0, gt=1)
    fraction: Annotated[float, Field(gt=0, le=1)] = field("share of the channels of a head that turn", 1.0)
    interleaved: bool = field("a pair is two neighbours, not two channels dim / 2 apart", False)
    scaling: Scaling = slot("rope_scaling", "how the frequencies change to reach further", None)

    def check(self) -> None:
        """Refuse an odd number of rotated channels, and a scaling that cannot scale them."""
        if self.dim % 2 or not self.dim:
            raise ValueError(
                f"fraction = {self.fraction:g} of head_dim = {self.head_dim} is {self.dim} rotated channels;"
                " they turn in pairs, so it must be an even number above 0"
            )
        if self.scaling is not None:
            self.scaling.check_width(self.dim)

    def doubts(self, length: int | None) -> Iterator[str]:
        """What makes no difference to a single pair, and a scaling that leaves every frequency as it is."""
        if self.dim == 2 and self.theta != 10000:
            yield "theta has no effect on two rotated channels, whose one frequency is 1"
        if self.dim == 2 and self.interleaved:
            yield "interleaved has no effect on two rotated channels, which are neighbours and dim / 2 apart"
        if self.scaling is not None and not self.scaling.changes(self.dim, self.theta):
            factor = self.attention_factor != 1 or self.score_factor != 1
            yield f"scaling changes no frequency{', only the size of the scores' if factor else '; remove it'}"

    @property
    def dim(self) -> int:
        """Channels of a head that turn."""
        return round(self.fraction * self.head_dim)

    @property
    def constants(self) -> int:
        """Its frequencies: of a scaling with two sets of them, both."""
        return (2 if self.scaling_kind == "longrope" else 1) * self.pairs

    @property
    def pairs(self) -> int:
        """Pairs of channels that turn."""
        return self.dim // 2

    @property
    def scaling_kind(self) -> str:
        """The kind of the scaling, or "none"."""
        return "none" if self.scaling is None else str(self.scaling.kind)

    @property
    def counts(self) -> bool:
        """Whether frequencies follow the length of the text, which padding is no part of."""
        return self.exact_within is not None

    @property
    def attention_factor(self) -> float:
        """What cosines and sines are multiplied with."""
        return 1.0 if self.scaling is None else float(self.scaling.table_factor)

    @property
    def score_factor(self) -> float:
        """What MLA multiplies the scale of its softmax with (DeepSeek's YaRN)."""
        return 1.0 if self.scaling is None else float(self.scaling.score_factor)

    def smaller(self, cut: Callable[[int], int]) -> dict[str, Any]:
        """A scaling with a number for each pair of channels loses those of the pairs that go."""
        if self.scaling is None:
            return {}
        pairs = round(self.fraction * cut(self.head_dim)) // 2
        return {"scaling": self.scaling.for_pairs(pairs)}

    def ops(self) -> tuple[Op, ...]:
        """None of its own: the mixer says where it rotates."""
        return ()
