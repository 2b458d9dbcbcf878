"""T5's init: each tensor at N(0, factor^2 / fan_in), queries smaller still, because T5 does not scale its scores.

    tables factor; q_proj factor (d_model head_dim)^-0.5; every other linear layer factor fan_in^-0.5;
    the table of relative positions factor d_model^-0.5; an output layer of its own (`head.proj`) factor; biases 0

d_model is that of each stack, and head_dim that of each attention where it is not given.

Source: Raffel et al. 2020, "T5", in the authors' code (mesh-tensorflow).
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from archspec.layers.fields import Positive, Size, Width, field, inherited
from archspec.layers.starting import InitComponent


class T5Init(InitComponent):
    """Standard deviations by fan-in, with the scale of the scores in the queries."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = ({}, {"factor": 0.5, "head_dim": 4})

    kind: Literal["t5"] = "t5"
    d_model: Size = inherited("width of the residual stream")
    factor: Positive = field("factor of every standard deviation", 1.0)
    head_dim: Width | None = field("channels of a query or key head", None)

    @property
    def query_dim(self) -> int | None:
        """Channels of a query head.

        None where attentions differ, or where head_dim says it for all.
        """
        widths = {number for _, number in self.names.head_dims}
        return widths.pop() if self.head_dim is None and len(widths) == 1 else None

    def idle(self) -> Iterator[str]:
        """The width of heads that are not there."""
        if self.head_dim is not None and not self.names.queries:
            yield "head_dim has no effect: no attention has queries"
