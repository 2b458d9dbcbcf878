"""Glorot's init: the variance of a linear layer is gain^2 * 2 / (fan_in + fan_out), every bias 0.

Tables start at N(0, embedding_std^2), 1 / d_model by default, so that rows scaled by sqrt(d_model) have unit variance.

Sources: Glorot & Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks"; Vaswani et
al. 2017, in the authors' code.
"""

from typing import Any, ClassVar, Literal

from archspec.layers.fields import Positive, derived, field
from archspec.layers.starting import InitComponent


class XavierInit(InitComponent):
    """Variance by the mean of both fans."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = ({}, {"distribution": "normal", "gain": 0.5})

    kind: Literal["xavier"] = "xavier"
    gain: Positive = field("factor of the standard deviation", 1.0)
    distribution: Literal["uniform", "normal"] = field("how the weights are drawn", "uniform")
    embedding_std: Positive = derived("standard deviation of the embedding tables", "d_model ** -0.5")
