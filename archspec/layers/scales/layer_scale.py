"""LayerScale: a learned factor for each channel of a residual branch, y = gamma * x.

No state; O(T d). Source: Touvron et al. 2021, "Going deeper with Image Transformers", equation 4.
"""

from typing import Literal

from archspec.layers.base import ScaleComponent
from archspec.layers.fields import Number, Size, field, inherited
from archspec.layers.ops import Elementwise, Op, Param


class LayerScale(ScaleComponent):
    """A learned factor a channel."""

    kind: Literal["layer_scale"] = "layer_scale"
    d_model: Size = inherited("width of the residual stream")
    initial: Number = field("value of every factor at the start", 1e-5)

    def ops(self) -> tuple[Op, ...]:
        """One product."""
        gamma = Param("gamma", (self.d_model,))
        return (Elementwise(name="scale", fn="scale", shape=("B", "T", self.d_model), params=(gamma,)),)
