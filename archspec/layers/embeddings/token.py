"""Token embedding: a row of a table for each token, plus its position, segment and further ids where there are such.

    y = project(norm(scale * token[id] + position[t] + token_type[segment] + sum_c channel_c[id_c]))

A factorised table (`d_factor`) is narrower than the stack and projected up to it. State while decoding: the number of
tokens seen, only when there are positions. O(d) a token, O(d_factor d) when factorised.

Sources: Vaswani et al. 2017 (scale sqrt(d_model)); Devlin et al. 2019, "BERT" (segments, norm); Lan et al. 2020,
"ALBERT" (factorised); Gemma Team 2024 (scale); BigScience 2022, "BLOOM" (norm); Lample & Conneau 2019, "XLM" (a channel
of languages).
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from archspec.layers.base import AbsolutePositionComponent, EmbeddingComponent, NormComponent
from archspec.layers.fields import Positive, Probability, Size, Sizes, Width, field, inherited, named, slot
from archspec.layers.ops import ADD, SCALE, Embedding, Op, Param, elementwise, linear


class TokenEmbedding(EmbeddingComponent):
    """A table of token vectors, with what is added to them before the first layer."""

    reads: ClassVar[str] = "tokens"
    table: ClassVar[str] = "token.weight"
    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {},
        {"position": {"kind": "learned"}, "token_types": 2, "norm": {"kind": "layernorm"}},
        {"d_factor": 6, "position": {"kind": "learned"}, "norm": {"kind": "rmsnorm"}},
        {"d_factor": 6, "factor_bias": False, "scale": 4.0},
        {"position": {"kind": "sinusoidal"}, "scale": 4.0},
        {"d_factor": 6, "token_types": 2, "channels": {"languages": 5, "speakers": 3}},
    )

    kind: Literal["token"] = "token"
    vocab_size: Size = inherited("number of token ids")
    d_model: Width = inherited("width of the residual stream")
    position: AbsolutePositionComponent | None = slot("absolute_position", "what is added for the position", None)
    token_types: Size | None = field("segments that have a row of their own (BERT: 2)", None)
    channels: Sizes = named("further ids of each token by name, with how many rows each has: {languages: 5}")
    d_factor: Width | None = field("width of the tables when factorised; a projection widens it to d_model", None)
    factor_bias: bool = field("bias of that projection", True, when=("d_factor",))
    scale: Positive = field("factor of the token's row", 1.0)
    norm: NormComponent | None = slot("norm", "norm of the sum", None)
    dropout: Probability = field("dropout of the embedding", 0.0, inherit="dropout")

    @classmethod
    def for_slots(cls, numbers: Mapping[str, Any]) -> Mapping[str, Any]:
        """Positions are as wide as the tables, which a factorised one narrows."""
        return {"d_model": numbers["d_factor"]} if "d_factor" in numbers else {}

    def check(self) -> None:
        """Refuse positions of another width than the tokens."""
        dim = self.table_width if self.position is None else self.position.dim
        if dim != self.table_width:
            raise ValueError(f"position.dim = {dim} must be the width of the token table, {self.table_width}")

    @property
    def arguments(self) -> tuple[str, ...]:
        """The state counts tokens where positions need it; segments are numbered by `token_types`."""
        state = ("state", "positions") if self.position is not None else ()
        types = () if self.token_types is None else ("token_types",)
        return (*state, *types, *(("channels",) if self.channels else ()))

    @property
    def ids(self) -> dict[str, int]:
        """The channels."""
        return dict(self.channels)

    @property
    def table_width(self) -> int:
        """Width of the token table, with which a tied head must agree."""
        return self.d_model if self.d_factor is None else self.d_factor

    @property
    def tells_order(self) -> bool:
        """Whether there are positions."""
        return self.position is not None

    @property
    def title(self) -> str:
        """The name in full."""
        return "Token embedding"

    @property
    def n_ids(self) -> int:
        """The vocabulary."""
        return self.vocab_size

    def ops(self) -> tuple[Op, ...]:
        """Look-ups, their sum, and an optional norm and projection."""
        width = self.table_width
        shape = ("B", "T", width)
        found: list[Op] = [self._table("token", self.vocab_size, "x")]
        if self.scale != 1:
            found.append(elementwise(SCALE, shape, ("token",), constant=self.scale))
        terms = [found[-1].name]
        if self.position is not None:
            found += [op.under("position") for op in self.position.ops()]
            terms.append(found[-1].name)
        if self.token_types is not None:
            found.append(self._table("token_type", self.token_types, "token_types"))
            terms.append("token_type")
        for name, rows in self.channels:
            found.append(self._table(f"channels.{name}", rows, "channels"))
            terms.append(f"channels.{name}")
        if len(terms) > 1:
            found.append(elementwise(ADD, shape, tuple(terms)))
        if self.norm is not None:
            found.append(self.norm.op("norm", width, (found[-1].name,), shape))
        if self.d_factor is not None:
            found.append(linear("project", width, self.d_model, self.factor_bias, inputs=(found[-1].name,)))
        return tuple(found)

    def _table(self, name: str, rows: int, source: str) -> Op:
        weight = Param(f"{name}.weight", (rows, self.table_width))
        shape = ("B", "T", self.table_width)
        return Embedding(name=name, shape=shape, inputs=(source,), params=(weight,), rows=rows, dim=self.table_width)
