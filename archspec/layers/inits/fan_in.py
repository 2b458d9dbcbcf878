"""Fan-in init: a linear layer starts at N(0, scale / fan_in), truncated at two standard deviations; biases at 0.

Scale 1 is LeCun's; Switch's 0.1 keeps large sparse models stable.

Sources: LeCun et al. 1998, "Efficient BackProp"; Fedus, Zoph & Shazeer 2022, "Switch Transformers", section 2.4.
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from archspec.layers.fields import Positive, field
from archspec.layers.starting import InitComponent


class FanInInit(InitComponent):
    """Variance by the number of inputs."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = ({}, {"scale": 0.1, "truncated": False, "embedding_std": 0.5})

    kind: Literal["fan_in"] = "fan_in"
    scale: Positive = field("variance of a weight times fan_in", 1.0)
    truncated: bool = field("drawn again beyond two standard deviations", True)
    embedding_std: Positive = field("standard deviation of the embedding tables", 1.0)

    def idle(self) -> Iterator[str]:
        """A deviation of tables that are not there."""
        if self.embedding_std != 1 and not self.names.tables:
            yield "embedding_std has no effect: the model has no embedding table"
