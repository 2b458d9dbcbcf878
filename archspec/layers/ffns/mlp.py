"""The feed-forward network of the first transformers: two projections with an activation between them.

    y = down_proj(act(up_proj(x)))

No state while decoding. Cost O(d_model d_ff) a token.

Sources: Vaswani et al. 2017 (ReLU), Hendrycks and Gimpel 2016 (GELU), Ramachandran et al. 2017 (Swish, here SiLU), So
et al. 2021 (squared ReLU).
"""

from typing import Any, ClassVar, Literal

from archspec.layers.base import FFNComponent
from archspec.layers.fields import Probability, Width, derived, field, inherited
from archspec.layers.ops import Op, elementwise, linear, split


class MLP(FFNComponent):
    """Up-projection, activation, down-projection."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {},
        {"d_ff": 24, "activation": "relu", "bias": True},
        {"d_ff": 24, "activation": "gelu_tanh", "dropout": 0.1},
        {"d_ff": 24, "activation": "silu"},
        {"d_ff": 24, "activation": "relu2"},
        {"d_ff": 24, "activation": "tanh"},
    )

    kind: Literal["mlp"] = "mlp"
    d_model: Width = inherited("width of the residual stream")
    d_ff: Width = derived("hidden units", "4 * d_model")
    activation: Literal["relu", "gelu", "gelu_tanh", "silu", "relu2", "tanh"] = field(
        "the non-linearity: gelu is exact, gelu_tanh its approximation, relu2 the square of relu", "gelu"
    )
    bias: bool = field("biases of both projections", False)
    dropout: Probability = field("dropout of the hidden units, after the activation", 0.0)

    @property
    def title(self) -> str:
        """The name with its activation."""
        return f"MLP, {self.activation}"

    @property
    def shards(self) -> dict[str, tuple[str, ...]]:
        """Hidden units."""
        return {"channels": ("d_ff",)}

    def ops(self) -> tuple[Op, ...]:
        """Projection, activation, projection."""
        down = linear("down_proj", self.d_ff, self.d_model, self.bias, inputs=("act",), residual=True)
        return (
            split(linear("up_proj", self.d_model, self.d_ff, self.bias), "channels"),
            elementwise(self.activation, ("B", "T", self.d_ff), ("up_proj",), "act"),
            split(down, "channels", 1),
        )
