"""No head: the model returns its last hidden states, (B, T, d_model).

Source: an encoder used for its representations, as in Devlin et al. 2019, "BERT", section 5.3.
"""

from typing import ClassVar, Literal

from archspec.layers.base import HeadComponent
from archspec.layers.fields import Width, inherited
from archspec.layers.ops import Op, elementwise


class NoHead(HeadComponent):
    """The hidden states themselves."""

    learns: ClassVar[Literal["classes", "numbers"]] = "numbers"
    kind: Literal["none"] = "none"
    d_model: Width = inherited("width of the residual stream")

    def gives(self, ahead: int) -> str:
        """The last hidden states."""
        return "hidden states"

    @property
    def title(self) -> str:
        """The name in full."""
        return "No head"

    def ops(self) -> tuple[Op, ...]:
        """The hidden states."""
        return (elementwise("hidden states", ("B", "T", self.d_model), ("x",), "hidden"),)
