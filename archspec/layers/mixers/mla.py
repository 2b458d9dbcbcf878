"""Multi-head latent attention: keys and values of all heads are read from one small latent a token.

    q = q_b_proj(norm(q_a_proj(x)))  or  q_proj(x)                            (nope and rope channels a head)
    [latent, k_rope] = kv_a_proj(x);  latent = norm(latent)                   (k_rope is one head, for all)
    [k_nope, v] = kv_b_proj(latent)                                           (a head each)
    y = o_proj(softmax(scale * [q_nope, rope(q_rope)] [k_nope, rope(k_rope)]^T) v)

State while decoding: the normalised latent and the rotated rope slice of every token seen, kv_lora_rank +
qk_rope_head_dim numbers a token for all heads together. A continuation never expands it: with W_k and W_v the key and
value rows of kv_b_proj, q_nope k_nope^T = (q_nope W_k) latent^T, and the output is (probabilities latent) W_v^T
("absorbed"). Cost O(T^2 n_heads (qk_nope_head_dim + qk_rope_head_dim + v_head_dim)) to train; a decoded token reads
O(T (kv_lora_rank + qk_rope_head_dim)) numbers.

Source: DeepSeek-AI 2024 (DeepSeek-V2, section 2.1, appendix C); DeepSeek-AI 2024 (DeepSeek-V3).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, Literal

from archspec.layers.base import MixerComponent, NormComponent, PositionComponent
from archspec.layers.fields import Positive, Probability, Size, Width, derived, field, inherited, slot
from archspec.layers.ops import Kept, LatentAttend, Op, linear, rotations, split


class MLA(MixerComponent):
    """Multi-head latent attention."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"n_heads": 4, "kv_lora_rank": 8, "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 5,
         "position": {"kind": "rope"}},
        {"n_heads": 2, "kv_lora_rank": 8, "q_lora_rank": 12, "qk_nope_head_dim": 6, "qk_rope_head_dim": 4,
         "v_head_dim": 6, "bias": True, "position": {"kind": "rope"}},
        {"n_heads": 2, "kv_lora_rank": 8, "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "dropout": 0.1},
    )  # fmt: skip

    kind: Literal["mla"] = "mla"
    d_model: Width = inherited("width of the residual stream")
    n_heads: Size = field("heads")
    q_lora_rank: Width | None = field("width of the queries' own latent", None)
    kv_lora_rank: Width = field("width of the latent from which keys and values are read")
    qk_nope_head_dim: Width = field("channels of a query or key head that know no position")
    qk_rope_head_dim: Width = field("channels of a query head, and of one key for all heads, that are rotated")
    v_head_dim: Width = derived("channels of a value head", "qk_nope_head_dim")
    head_dim: Width = derived("channels that the position rotates: always qk_rope_head_dim", "qk_rope_head_dim")
    position: PositionComponent | None = slot("position", "what rotates the rope channels", None)
    bias: bool = field("biases of q_a_proj, kv_a_proj and o_proj", False)
    norm: NormComponent = slot("norm", "the norm of the latents", inherit="norm")
    scale: Positive = derived(
        "factor of the scores, before the position's own correction", "(qk_nope_head_dim + qk_rope_head_dim) ** -0.5"
    )
    dropout: Probability = field("dropout of the attention probabilities", 0.0, inherit="dropout")

    def check(self) -> None:
        """Refuse a position that does not rotate, or rotates other than the rope channels."""
        if self.head_dim != self.qk_rope_head_dim:
            raise ValueError(f"head_dim = {self.head_dim} must be qk_rope_head_dim = {self.qk_rope_head_dim}")
        if self.position is not None and not self.position.rotates:
            kind = self.position.kind
            raise ValueError(f"position.kind = {kind!r} does not rotate queries and keys; use a rope, or none")

    @property
    def arguments(self) -> tuple[str, ...]:
        """The decoding state, masks, and what the rotation goes by."""
        documents = () if self.counts else ("documents",)  # a row each where frequencies follow the length of each
        return ("state", "mask", "key_mask", *(("positions",) if self.position is not None else ()), *documents)

    @property
    def shards(self) -> dict[str, tuple[str, ...]]:
        """Heads; every device has all latents."""
        return {"heads": ("n_heads",)}

    def smaller(self, cut: Callable[[int], int]) -> dict[str, Any]:
        """A few heads."""
        return {"n_heads": 4} if self.n_heads > 4 else {}

    @property
    def qk_head_dim(self) -> int:
        """Channels of a query or key head."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def softmax_scale(self) -> float:
        """The factor of the scores, with the correction that a stretched rope asks for (YaRN's mscale, squared)."""
        return self.scale * (1.0 if self.position is None else self.position.score_factor)

    @property
    def title(self) -> str:
        """The name in full."""
        return "Multi-head latent attention"

    @property
    def short(self) -> str:
        """The abbreviation."""
        return "MLA"

    def ops(self) -> tuple[Op, ...]:
        """Queries, the latent, its expansion, rotations, attention, output projection."""
        query = self._query()
        kv_width = self.qk_nope_head_dim + self.v_head_dim
        latent = (("latent", self.kv_lora_rank), ("k rope", self.qk_rope_head_dim))
        expand = linear(
            "kv_b_proj", self.kv_lora_rank, self.n_heads * kv_width, inputs=("kv_a_norm",), rows=("B", 1, "T"),
            heads=self.n_heads,
        )  # fmt: skip
        rows = ("B", 1, "T", self.kv_lora_rank)
        keys: list[Op] = [
            linear("kv_a_proj", self.d_model, sum(w for _, w in latent), self.bias, outputs=latent),
            replace(self.norm.op("kv_a_norm", self.kv_lora_rank, ("kv_a_proj",), rows), takes=("latent",)),
            split(expand, "heads"),
        ]
        q_last, k_rope = query[-1].name, "kv_a_proj"
        if self.position is not None:
            q_shape, k_shape = (("B", n, "T", self.qk_rope_head_dim) for n in (self.n_heads, 1))
            keys += rotations((q_shape, q_last), (k_shape, k_rope), self.position.pairs, ("k rope",))
            q_last, k_rope = "q_rope", "k_rope"
        out = linear("o_proj", self.n_heads * self.v_head_dim, self.d_model, self.bias, inputs=("attention",),
                     residual=True)  # fmt: skip
        return (*query, *keys, self._attend((q_last, k_rope, "kv_b_proj")), split(out, "heads", 1))

    def _query(self) -> list[Op]:
        width = self.n_heads * self.qk_head_dim
        if self.q_lora_rank is None:
            return [split(linear("q_proj", self.d_model, width, heads=self.n_heads), "heads")]
        up = linear("q_b_proj", self.q_lora_rank, width, inputs=("q_a_norm",), heads=self.n_heads)
        return [
            linear("q_a_proj", self.d_model, self.q_lora_rank, self.bias),
            self.norm.op("q_a_norm", self.q_lora_rank, ("q_a_proj",), ("B", "T", self.q_lora_rank)),
            split(up, "heads"),
        ]

    def _attend(self, inputs: tuple[str, ...]) -> LatentAttend:
        kept = (
            Kept("latent", ("B", 1, "S", self.kv_lora_rank)),
            Kept("k_rope", ("B", 1, "S", self.qk_rope_head_dim)),
        )
        return LatentAttend(
            name="attention",
            shape=("B", self.n_heads, "T", self.v_head_dim),
            inputs=inputs,
            takes=() if self.position is not None else ("k rope",),
            label="causal softmax attention",
            note="decodes from the latent",
            kernel="attention",
            kept=kept,
            n_heads=self.n_heads,
            n_kv_heads=self.n_heads,
            qk_dim=self.qk_head_dim,
            v_dim=self.v_head_dim,
            mask="causal",
            latent=self.kv_lora_rank,
            rope=self.qk_rope_head_dim,
            latents=("kv_a_norm", inputs[1]),
        )
