"""No head: the model returns its last hidden states, (B, T, d_model).

Source: an encoder used for its representations, as in Devlin et al. 2019, "BERT", section 5.3.
"""

from typing import ClassVar, Literal

from archspec.layers.base import Component, Size, inherited
from archspec.layers.ops import Op, elementwise


class NoHead(Component):
    """The hidden states themselves."""

    role: ClassVar[str] = "head"

    kind: Literal["none"] = "none"
    d_model: Size = inherited("width of the residual stream")

    def ops(self) -> tuple[Op, ...]:
        """The hidden states."""
        return (elementwise("hidden states", ("B", "T", self.d_model), ("x",), "hidden"),)
