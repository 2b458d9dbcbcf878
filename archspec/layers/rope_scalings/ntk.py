"""NTK-aware scaling: a larger base stretches the low frequencies by the factor and leaves the highest alone.

    w_i = (theta * factor^(dim / (dim - 2)))^(-2i / dim)

Source: bloc97 2023, "NTK-Aware Scaled RoPE"; the equation is (13) of Peng et al. 2023, "YaRN". Hunyuan calls the
factor alpha.
"""

from typing import Any, ClassVar, Literal

from archspec.layers.base import RopeScalingComponent
from archspec.layers.fields import Positive, field


class NTKScaling(RopeScalingComponent):
    """A larger base, whatever the length of the text."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = ({"factor": 4.0},)

    kind: Literal["ntk"] = "ntk"
    factor: Positive = field("how many times longer the longest wavelength gets")

    def changes(self, dim: int, theta: float) -> bool:
        """Unless the factor is 1."""
        return self.factor != 1

    def check_width(self, dim: int) -> None:
        """Refuse fewer than two pairs: the exponent divides by dim - 2."""
        if dim < 4:
            raise ValueError(f"scaling.kind = '{self.kind}' needs at least 4 rotated channels, found {dim}")
