"""Masked-language-model head: a small transform of each hidden state, then a score for each token of the vocabulary.

    logits = proj(norm(activation(transform(x))))

`proj` is the token table itself when `tied`; `d_embed` is then the table's width. No state. O(d^2 + d V) a token.

Sources: Devlin et al. 2019, "BERT"; Lan et al. 2020, "ALBERT" (transform to the narrower table).
"""

from dataclasses import replace
from typing import Any, ClassVar, Literal

from archspec.layers.base import HeadComponent, NormComponent
from archspec.layers.fields import Size, Width, derived, field, inherited, slot
from archspec.layers.ops import Op, elementwise, linear


class MaskedLMHead(HeadComponent):
    """BERT's head: dense layer, activation and norm, then the logits."""

    fills_gaps: ClassVar[bool] = True
    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {},
        {"tied": False, "bias": False, "activation": "gelu_tanh", "d_embed": 6},
        {"activation": "relu"},
        {"activation": "silu"},
    )

    kind: Literal["masked_lm"] = "masked_lm"
    d_model: Width = inherited("width of the residual stream")
    vocab_size: Size = inherited("number of token ids")
    tied: bool = field("the weight is the token embedding's", True)
    d_embed: Width = derived("width of the transform; by default that of the token table", "d_embedding")
    activation: Literal["gelu", "gelu_tanh", "relu", "silu"] = field("activation of the transform", "gelu")
    norm: NormComponent = slot("norm", "norm of the transform", inherit="norm")
    bias: bool = field("bias of the logits", True)

    def gives(self, ahead: int) -> str:
        """A score for each token of the vocabulary, at every token."""
        return "logits of every token"

    @property
    def title(self) -> str:
        """The name in full."""
        return "Masked-LM head"

    @property
    def tied_shape(self) -> tuple[int, int] | None:
        """The shape of the logits' weight where it is the token table."""
        return (self.vocab_size, self.d_embed) if self.tied else None

    def ops(self) -> tuple[Op, ...]:
        """Transform, activation, norm, logits."""
        shape = ("B", "T", self.d_embed)
        proj = linear("proj", self.d_embed, self.vocab_size, self.bias, inputs=("norm",))
        return (
            linear("transform", self.d_model, self.d_embed, True),
            elementwise(self.activation, shape, ("transform",), "activation"),
            self.norm.op("norm", self.d_embed, ("activation",), shape),
            replace(proj, params=proj.params[1:], note="tied to the token embedding") if self.tied else proj,
        )
