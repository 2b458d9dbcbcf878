"""A feed-forward network whose hidden units are gated by a second projection of the input.

    y = down_proj(act(gate_proj(x)) * up_proj(x))

The activation names the variant: sigmoid GLU, silu SwiGLU, gelu GEGLU, relu ReGLU, identity bilinear. No state while
decoding. Cost O(d_model d_ff) a token.

Sources: Dauphin et al. 2017 (GLU), Shazeer 2020 (the variants, and 2/3 of the width for equal parameters).
"""

from typing import Any, ClassVar, Literal

from archspec.layers.base import FFNComponent
from archspec.layers.fields import Probability, Width, derived, field, inherited
from archspec.layers.ops import MULTIPLY, Op, elementwise, linear, split

NAMES = {"sigmoid": "GLU", "silu": "SwiGLU", "gelu": "GEGLU", "gelu_tanh": "GEGLU", "relu": "ReGLU"}


class GatedMLP(FFNComponent):
    """Gate and up-projection, their product, down-projection."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {},
        {"d_ff": 24, "activation": "sigmoid", "bias": True},
        {"d_ff": 24, "activation": "gelu", "dropout": 0.1},
        {"d_ff": 24, "activation": "gelu_tanh"},
        {"d_ff": 24, "activation": "relu"},
        {"d_ff": 24, "activation": "relu2"},
        {"d_ff": 24, "activation": "identity"},
    )

    kind: Literal["gated_mlp"] = "gated_mlp"
    d_model: Width = inherited("width of the residual stream")
    d_ff: Width = derived("hidden units", "round_up(8/3 * d_model, 256)")
    activation: Literal["silu", "gelu", "gelu_tanh", "relu", "relu2", "sigmoid", "identity"] = field(
        "the non-linearity of the gate: silu is SwiGLU, gelu GEGLU, relu ReGLU, sigmoid GLU, identity bilinear", "silu"
    )
    bias: bool = field("biases of the three projections", False)
    dropout: Probability = field("dropout of the hidden units, after the gate", 0.0)

    @property
    def title(self) -> str:
        """The name of the variant."""
        return NAMES.get(self.activation, f"Gated MLP, {self.activation}")

    @property
    def shards(self) -> dict[str, tuple[str, ...]]:
        """Hidden units."""
        return {"channels": ("d_ff",)}

    def ops(self) -> tuple[Op, ...]:
        """Two projections, activation of one, product, projection."""
        hidden = ("B", "T", self.d_ff)
        down = linear("down_proj", self.d_ff, self.d_model, self.bias, inputs=("gate",), residual=True)
        return (
            split(linear("gate_proj", self.d_model, self.d_ff, self.bias), "channels"),
            split(linear("up_proj", self.d_model, self.d_ff, self.bias), "channels"),
            elementwise(self.activation, hidden, ("gate_proj",), "act"),
            elementwise(MULTIPLY, hidden, ("act", "up_proj"), "gate"),
            split(down, "channels", 1),
        )
