"""Classification head: one vector for the sequence, then a score for each class.

    logits = proj(tanh(pooler(pool(x))))         (without `hidden`: proj(pool(x)))

`pool` takes the first token (BERT's [CLS], ViT's class token), the one in the middle (Vision Mamba's class token), the
last real one (GPT) or the mean of the real ones; a mask says which are real. No state. O(d) a token.

Sources: Devlin et al. 2019, "BERT" (pooler); Radford et al. 2018, "GPT" (last token); Zhu et al. 2024 (middle).
"""

from typing import Any, ClassVar, Literal

from archspec.layers.base import HeadComponent
from archspec.layers.fields import Probability, Size, Width, field, inherited
from archspec.layers.ops import Op, elementwise, linear


class ClassificationHead(HeadComponent):
    """Pooling and a linear layer to the classes."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"n_classes": 3},
        {"n_classes": 3, "pool": "last", "bias": False},
        {"n_classes": 3, "pool": "mean", "hidden": 12},
        {"n_classes": 3, "pool": "middle"},
    )

    kind: Literal["classification"] = "classification"
    d_model: Width = inherited("width of the residual stream")
    n_classes: Size = field("number of classes")
    pool: Literal["first", "middle", "last", "mean"] = field(
        "which token stands for the sequence, or their mean", "first"
    )
    hidden: Width | None = field("width of a dense layer and tanh before the scores (BERT's pooler: d_model)", None)
    bias: bool = field("bias of the scores", True)
    dropout: Probability = field("dropout before the scores", 0.0, inherit="dropout")

    @property
    def arguments(self) -> tuple[str, ...]:
        """The mask of real tokens."""
        return ("mask",)

    @property
    def pools(self) -> bool:
        """Always."""
        return True

    @property
    def reads_token(self) -> str:
        """The token that is read, where it is one."""
        return self.pool if self.pool not in ("none", "mean") else ""

    def gives(self, ahead: int) -> str:
        """One score a class."""
        return "class scores"

    @property
    def title(self) -> str:
        """The name in full."""
        return "Classification head"

    @property
    def causal(self) -> bool:
        """Whether the output at a token depends on no later one: there is one output for all."""
        return False

    def ops(self) -> tuple[Op, ...]:
        """Pooling, the optional dense layer, the scores."""
        pool = elementwise(f"{self.pool} token" if self.pool != "mean" else "mean", ("B", self.d_model), ("x",), "pool")
        if self.hidden is not None:
            dense: Op = linear("pooler", self.d_model, self.hidden, True, inputs=("pool",), rows=("B",))
            tanh = elementwise("tanh", ("B", self.hidden), ("pooler",))
            return (pool, dense, tanh, self._scores(self.hidden, "tanh"))
        return (pool, self._scores(self.d_model, "pool"))

    def _scores(self, width: int, source: str) -> Op:
        return linear("proj", width, self.n_classes, self.bias, inputs=(source,), rows=("B",))
