"""Layer normalisation: every token is centred and scaled by its own mean and variance.

    y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias        (var is the biased one)

With `one_plus` the factor is 1 + weight and weight starts at 0, so that weight decay pulls the factor to 1. No
state; O(d) a token.

What a norm does not say is as in the nearest `norm:` around it: every setting of one of the same kind, and those that
are written down there of one of another kind.

Sources: Ba, Kiros & Hinton 2016, "Layer Normalization"; Groeneveld et al. 2024, "OLMo" (without affine);
Parmar et al. 2024, "Nemotron-4" (1 + weight).
"""

from typing import Any, ClassVar, Literal

from archspec.layers.base import NormComponent
from archspec.layers.fields import Positive, field
from archspec.layers.ops import Norm, Param


class LayerNorm(NormComponent):
    """Layer normalisation, with or without weight and bias."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {},
        {"bias": False, "eps": 1e-6},
        {"affine": False},
        {"one_plus": True},
        {"one_plus": True, "bias": False},
    )

    kind: Literal["layernorm"] = "layernorm"
    eps: Positive = field("added to the variance", 1e-5)
    affine: bool = field("a learned factor for each channel (and, with `bias`, a learned shift)", True)
    bias: bool = field("a learned shift for each channel", True, when=("affine", True))
    one_plus: bool = field("the factor is 1 + weight", False, when=("affine", True))

    @property
    def shifted(self) -> bool:
        """Whether there is a bias tensor."""
        return self.affine and self.bias

    def op(
        self, name: str, dim: int, inputs: tuple[str, ...] = ("x",), shape: tuple[int | str, ...] | None = None
    ) -> Norm:
        """The op of this norm over `dim` channels, as a sub-module called `name`."""
        tensors = [t for t, there in (("weight", self.affine), ("bias", self.shifted)) if there]
        params = tuple(Param(f"{name}.{t}", (dim,)) for t in tensors)
        return Norm(name=name, shape=shape or ("B", "T", dim), inputs=inputs, params=params, label=self.title, dim=dim,
                    kind=self.kind, weighted=self.affine,
                    one_plus=self.affine and self.one_plus)  # fmt: skip
