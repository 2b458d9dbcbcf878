"""NTK-aware scaling: a larger base stretches the low frequencies by the factor and leaves the highest alone.

    w_i = (theta * factor^(dim / (dim - 2)))^(-2i / dim)

Source: bloc97 2023, "NTK-Aware Scaled RoPE"; the equation is (13) of Peng et al. 2023, "YaRN". Hunyuan calls the
factor alpha.
"""

from typing import Any, ClassVar, Literal

from archspec.layers.base import Component, Positive, field
from archspec.layers.ops import Op


class NTKScaling(Component):
    """A larger base, whatever the length of the text."""

    role: ClassVar[str] = "rope_scaling"
    table_factor: ClassVar[float] = 1.0
    score_factor: ClassVar[float] = 1.0
    examples: ClassVar[tuple[dict[str, Any], ...]] = ({"factor": 4.0},)

    kind: Literal["ntk"] = "ntk"
    factor: Positive = field("how many times longer the longest wavelength gets")

    def check(self) -> None:
        """Refuse a factor that changes nothing."""
        if self.factor == 1:
            raise ValueError("factor = 1 changes nothing; remove the scaling, or say how much longer the text is")

    def ops(self) -> tuple[Op, ...]:
        """None."""
        return ()
