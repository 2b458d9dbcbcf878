"""Feature embedding: a linear layer on continuous inputs (signals, tracks, frames of sound) in the place of a table.

    y = norm(project(x) + position)

State while decoding: the number of inputs seen, only when there are positions. O(d_input d) a token.

Sources: Dosovitskiy et al. 2021 (linear projection of raw inputs); Gu et al. 2022, "S4" (linear encoder of signals).
"""

from typing import Any, ClassVar, Literal

from archspec.layers.base import AbsolutePositionComponent, EmbeddingComponent, NormComponent
from archspec.layers.fields import Probability, Size, Width, field, inherited, slot
from archspec.layers.ops import ADD, Op, Shape, elementwise, linear


class FeatureEmbedding(EmbeddingComponent):
    """A linear layer on continuous inputs."""

    reads: ClassVar[str] = "features"
    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"d_input": 3},
        {"d_input": 3, "bias": False, "position": {"kind": "learned"}, "norm": {"kind": "layernorm"}},
    )

    kind: Literal["features"] = "features"
    d_model: Width = inherited("width of the residual stream")
    d_input: Size = field("numbers that an input has at each step")
    bias: bool = field("bias of the projection", True)
    position: AbsolutePositionComponent | None = slot("absolute_position", "what is added for the position", None)
    norm: NormComponent | None = slot("norm", "norm of the sum", None)
    dropout: Probability = field("dropout of the embedding", 0.0, inherit="dropout")

    def check(self) -> None:
        """Refuse positions of another width than the stack."""
        dim = self.d_model if self.position is None else self.position.dim
        if dim != self.d_model:
            raise ValueError(f"position.dim = {dim} must be d_model = {self.d_model}")

    @property
    def arguments(self) -> tuple[str, ...]:
        """The state counts steps where positions need it."""
        return ("state", "positions") if self.position is not None else ()

    @property
    def tells_order(self) -> bool:
        """Whether there are positions."""
        return self.position is not None

    @property
    def title(self) -> str:
        """The name in full."""
        return "Linear embedding"

    @property
    def input_shape(self) -> Shape:
        """Numbers at each step."""
        return ("B", "T", self.d_input)

    def ops(self) -> tuple[Op, ...]:
        """The projection and what is added."""
        shape = ("B", "T", self.d_model)
        found: list[Op] = [linear("project", self.d_input, self.d_model, self.bias)]
        if self.position is not None:
            found += [op.under("position") for op in self.position.ops()]
            found.append(elementwise(ADD, shape, ("project", found[-1].name), "sum"))
        if self.norm is not None:
            found.append(self.norm.op("norm", self.d_model, (found[-1].name,), shape))
        return tuple(found)
