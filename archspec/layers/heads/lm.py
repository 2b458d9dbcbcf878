"""Language-model head: a score for each token of the vocabulary.

    logits = softcap * tanh(scale * proj(x) / softcap)

`proj` may be the token table itself (`tied`). With `d_embed` below d_model, x is first projected to that width, so that
the head can be tied to a factorised table. No state. O(d V) a token.

Sources: Press & Wolf 2017, "Using the Output Embedding to Improve Language Models" (tied); Raffel et al. 2020 (scale
d_model^-0.5); Gemma Team 2024, "Gemma 2" (soft-cap); Zhang et al. 2022, "OPT" (narrower table).
"""

from dataclasses import replace
from typing import Any, ClassVar, Literal

from archspec.layers.base import HeadComponent
from archspec.layers.fields import Positive, Size, Width, derived, field, inherited
from archspec.layers.ops import SCALE, SOFTCAP, Op, elementwise, linear


class LMHead(HeadComponent):
    """A linear layer from the last hidden state to the logits."""

    names_next: ClassVar[bool] = True
    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {},
        {"tied": True, "scale": 0.25},
        {"bias": True, "softcap": 2.0},
        {"d_embed": 6},
    )

    kind: Literal["lm"] = "lm"
    d_model: Width = inherited("width of the residual stream")
    vocab_size: Size = inherited("number of token ids")
    tied: bool = field("the weight is the token embedding's", False)
    d_embed: Width = derived("width that the logits are read from; by default that of the token table", "d_embedding")
    bias: bool = field("bias of the logits", False)
    scale: Positive = field("factor of the logits", 1.0)
    softcap: Positive | None = field("bound c on the logits: c tanh(logit / c)", None)

    def gives(self, ahead: int) -> str:
        """Of the next token or one further, unless that is seen; of every token where later ones are."""
        if not ahead:
            return "logits of every token"
        return "logits of the next token" if ahead == 1 else f"logits of the token {ahead} places further"

    @property
    def title(self) -> str:
        """The name in full."""
        return "LM head"

    @property
    def tied_shape(self) -> tuple[int, int] | None:
        """The shape of the logits' weight where it is the token table."""
        return (self.vocab_size, self.d_embed) if self.tied else None

    def ops(self) -> tuple[Op, ...]:
        """The projections, then scale and soft-cap."""
        shape = ("B", "T", self.vocab_size)
        found: list[Op] = []
        source = "x"
        if self.d_embed != self.d_model:
            found, source = [linear("project", self.d_model, self.d_embed)], "project"
        proj = linear("proj", self.d_embed, self.vocab_size, self.bias, inputs=(source,))
        found.append(replace(proj, params=proj.params[1:], note="tied to the token embedding") if self.tied else proj)
        if self.scale != 1:
            found.append(elementwise(SCALE, shape, ("proj",), constant=self.scale))
        if self.softcap is not None:
            found.append(elementwise(SOFTCAP, shape, (found[-1].name,), "softcap", constant=self.softcap))
        return tuple(found)
