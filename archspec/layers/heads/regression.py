"""Regression head: numbers for the sequence, or for each token.

    y = proj(pool(x))

`pool: none` gives `n_outputs` numbers for each token (tracks along a sequence); else as for classification. No state.
O(d) a token.

Source: linear regression on the representation, as for STS-B in Devlin et al. 2019, "BERT", and for tracks in Avsec et
al. 2021, "Enformer".
"""

from typing import Any, ClassVar, Literal

from archspec.layers.base import HeadComponent
from archspec.layers.fields import Probability, Size, Width, field, inherited
from archspec.layers.ops import Op, elementwise, linear


class RegressionHead(HeadComponent):
    """Pooling and a linear layer to one or more numbers."""

    learns: ClassVar[Literal["classes", "numbers"]] = "numbers"
    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {},
        {"n_outputs": 3, "pool": "none", "bias": False},
        {"pool": "last"},
        {"pool": "first"},
    )

    kind: Literal["regression"] = "regression"
    d_model: Width = inherited("width of the residual stream")
    n_outputs: Size = field("numbers to predict", 1)
    pool: Literal["none", "first", "last", "mean"] = field(
        "which token stands for the sequence; none: each token", "mean"
    )
    bias: bool = field("bias of the numbers", True)
    dropout: Probability = field("dropout before the last layer", 0.0, inherit="dropout")

    @property
    def arguments(self) -> tuple[str, ...]:
        """The mask of real tokens, where pooling needs it."""
        return ("mask",) if self.pools else ()

    @property
    def pools(self) -> bool:
        """Whether the numbers are of the sequence."""
        return self.pool != "none"

    @property
    def causal(self) -> bool:
        """Whether the output at a token depends on no later one."""
        return self.pool == "none"

    @property
    def reads_token(self) -> str:
        """The token that is read, where it is one."""
        return self.pool if self.pool not in ("none", "mean") else ""

    def gives(self, ahead: int) -> str:
        """Numbers for the sequence, or for each token."""
        return "predictions for every token" if self.pool == "none" else "predictions"

    @property
    def title(self) -> str:
        """The name in full."""
        return "Regression head"

    def ops(self) -> tuple[Op, ...]:
        """Pooling and the linear layer."""
        if self.pool == "none":
            return (linear("proj", self.d_model, self.n_outputs, self.bias),)
        name = "mean" if self.pool == "mean" else f"{self.pool} token"
        pool = elementwise(name, ("B", self.d_model), ("x",), "pool")
        return (pool, linear("proj", self.d_model, self.n_outputs, self.bias, inputs=("pool",), rows=("B",)))
