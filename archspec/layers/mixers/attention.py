"""Softmax attention: multi-head, grouped-query and multi-query; causal, bidirectional, prefix or cross.

    y = o_proj(concat_h softmax(scale * q_h k_h^T + bias + mask) v_h)

State while decoding: keys and values of every token seen, or of the last `window`. Cost O(T^2 d) to train, O(T d) a
decoded token; with a window O(T w d) and O(w d).

A `window` counts the token itself, on either side: a causal one sees the last `window` tokens, a bidirectional one
`window - 1` on each side, `2 * window - 1` in all. Of published models: a causal `sliding_window` (Mistral, Gemma) is
`window` as it is; a bidirectional one is half of it and one more, `local_attention: 128` of ModernBERT `window: 65`,
`attention_window: 512` of Longformer `window: 257`. With `global_tokens`, forward takes a `global_mask` (B, T): those
tokens see all and are seen by all, with the same projections. How many there are is not in the spec, and what they add
is not counted.

Sources: Vaswani et al. 2017 (multi-head), Shazeer 2019 (multi-query), Ainslie et al. 2023 (grouped-query), Beltagy et
al. 2020 (sliding window), Henry et al. 2020 (QK-norm), Gemma Team 2024 (soft-cap), Agarwal et al. 2025 (sinks), Qiu et
al. 2025 (output gate).
"""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Literal

from archspec.layers.base import MixerComponent, NormComponent, Port, PositionComponent
from archspec.layers.fields import Positive, Probability, Size, Tokens, Width, derived, field, inherited, slot, wired
from archspec.layers.ops import Attend, Kept, Linear, Op, Param, gate, linear, rotations, split


class Attention(MixerComponent):
    """Softmax attention with any number of key/value heads."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"n_heads": 4},
        {"n_heads": 4, "n_kv_heads": 2, "position": {"kind": "rope"}, "window": 5},
        {
            "n_heads": 4,
            "n_kv_heads": 1,
            "head_dim": 6,
            "qkv_bias": True,
            "out_bias": True,
            "position": {"kind": "alibi"},
        },
        {"n_heads": 2, "qk_norm": "head", "softcap": 20.0, "position": {"kind": "rope", "fraction": 0.5}},
        {"n_heads": 4, "qk_norm": "whole", "sinks": True, "gate": "elementwise", "v_head_dim": 4},
        {"n_heads": 4, "position": {"kind": "t5", "n_buckets": 8, "max_distance": 16}, "scale": 1.0},
        {"n_heads": 4, "position": {"kind": "t5", "n_buckets": 8, "max_distance": 16}, "window": 14},
        {"n_heads": 2, "mask": "bidirectional", "window": 3, "gate": "head"},
        {"n_heads": 2, "mask": "bidirectional", "window": 3, "global_tokens": True},
        {"n_heads": 2, "mask": "prefix"},
        {"n_heads": 2, "mask": "cross"},
    )

    kind: Literal["attention"] = "attention"
    d_model: Width = inherited("width of the residual stream")
    d_memory: Width = inherited("width of the memory that cross-attention reads")
    n_heads: Size = field("query heads")
    n_kv_heads: Size = derived("key/value heads; each serves n_heads / n_kv_heads query heads", "n_heads")
    head_dim: Width = derived("channels of a query or key head", "d_model / n_heads")
    v_head_dim: Width = derived("channels of a value head", "head_dim")
    mask: Literal["causal", "bidirectional", "prefix", "cross"] = field(
        "what a query sees: earlier tokens, all tokens, a prefix and earlier tokens, or the memory",
        "causal",
        inherit="mask",
    )
    window: Tokens | None = field(
        "keys that a query sees, itself included (on each side when bidirectional, so 2 * window - 1 in all)",
        None,
        when=("mask", "causal", "bidirectional"),
    )
    global_tokens: bool = field(
        "whether forward takes global_mask, True for tokens that see all and are seen by all (Longformer)",
        False,
        when=("window",),
        later=True,
    )
    position: PositionComponent | None = slot(
        "position", "how scores know positions", None, when=("mask", "causal", "bidirectional", "prefix")
    )
    qkv_bias: bool = field("bias of the query, key and value projections", False)
    out_bias: bool = field("bias of the output projection", False)
    qk_norm: Literal["none", "head", "whole"] = field("norm of queries and keys: per head or over all heads", "none")
    norm: NormComponent = slot(
        "norm", "the norm of queries and keys", inherit="norm", when=("qk_norm", "head", "whole")
    )
    scale: Positive = derived("factor of the scores", "head_dim ** -0.5")
    softcap: Positive | None = field("bound c on the scores: c tanh(score / c)", None)
    sinks: bool = field("a learned logit a head that takes attention away from all keys", False)
    gate: Literal["none", "head", "elementwise"] = field("sigmoid gate on the heads' outputs, from x", "none")
    dropout: Probability = field("dropout of the attention probabilities", 0.0, inherit="dropout")
    gives: tuple[str, ...] = wired("what later layers read of it")
    reads: tuple[str, ...] = wired("what it reads of an earlier layer")

    def check(self) -> None:
        """Refuse heads that do not divide, and a window in which there is nothing to choose."""
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_heads = {self.n_heads} must be a multiple of n_kv_heads = {self.n_kv_heads}")
        if self.window == 1 and self.mask == "causal" and not self.sinks:
            raise ValueError(
                "window = 1 lets a token see only itself, so queries and keys have no effect; widen it, or remove the"
                " attention"
            )
        if self.global_tokens and self.mask != "bidirectional":
            raise ValueError(f"global_tokens are for mask: bidirectional, found {self.mask}; remove them")
        if self.reads and len(self.reads) < len(self.accepts):
            lacks = next(name for name in self.accepts if name not in self.reads)
            raise ValueError(f"reads {self.reads[0]} of an earlier layer and no {lacks}; read both")
        if self.reads and self.gives:
            raise ValueError("gives what it reads itself; let later layers read it where it comes from")
        both_ways = None if self.position is None else self.position.tells_sides
        if both_ways is not None and self.mask != "prefix" and both_ways != (self.mask == "bidirectional"):
            wanted = str(not both_ways).lower()
            raise ValueError(f"position.bidirectional must be {wanted} where mask is {self.mask}")

    def doubts(self, length: int | None) -> Iterator[str]:
        """A window in which there is room for the longest sequence."""
        if self.window is not None and length is not None and self.window >= length:
            yield f"window = {self.window} has no effect in texts of up to max_seq_len = {length} tokens"

    @property
    def tells_order(self) -> bool:
        """Whether scores know positions, or what a query sees depends on where it stands."""
        seen_by_place = self.mask in ("causal", "prefix") or self.window is not None
        return self.mask != "cross" and (seen_by_place or self.position is not None)

    @property
    def arguments(self) -> tuple[str, ...]:
        """Decoding state, masks, memory and the shared bias, as the mask and position need them."""
        if self.mask == "cross":
            return ("state", "document_ids", "memory_documents", "memory", "memory_mask")
        by_place = self.slopes or self.own_bias
        appends = by_place or not self.reads
        counts = ("state",) if appends or self.rotates or self.mask == "prefix" else ()
        state = ("mask",) if self.mask == "bidirectional" else (*counts, *(("mask",) if appends else ()), "key_mask")
        where = ("positions",) if self.rotates else ("places",) if by_place else ()
        by_rows = self.mask == "prefix" or self.counts  # where frequencies follow the length of each document
        documents = () if by_rows else ("documents",)
        prefix = ("prefix_len",) if self.mask == "prefix" else ()
        flags = ("global_mask",) if self.global_tokens else ()
        bias = ("bias",) if self.shared_bias is not None else ()
        return (*state, *where, *documents, *self.reads, *bias, *prefix, *flags)

    @property
    def aligned(self) -> bool:
        """Whether queries go by the order of the keys, and keys are kept."""
        return self.mask in ("causal", "prefix")

    @property
    def contiguous(self) -> bool:
        """Whether it looks at distances, and has no other reason to have rows moved."""
        by_distance = self.window is not None or (self.position is not None and not self.rotates)
        return self.mask == "bidirectional" and by_distance

    @property
    def causal(self) -> bool:
        """Whether queries see no later token."""
        return self.mask in ("causal", "cross")

    @property
    def shards(self) -> dict[str, tuple[str, ...]]:
        """Query heads with the key/value heads that serve them."""
        by_head = self.position is None or self.rotates  # slopes and biases differ from head to head
        return {"heads": ("n_heads", "n_kv_heads")} if by_head and self.qk_norm != "whole" else {}

    def smaller(self, cut: Callable[[int], int]) -> dict[str, Any]:
        """A few heads, as many of them for each key/value head where that can be."""
        ways = (self.n_heads // 4, self.n_heads // 8, self.n_heads // 2)
        by = next((d for d in ways if d and self.n_heads % d == 0 and self.n_kv_heads % d == 0), 1)
        return {"n_heads": self.n_heads // by, "n_kv_heads": self.n_kv_heads // by} if self.n_heads > 4 else {}

    @property
    def shared_bias(self) -> PositionComponent | None:
        """The position whose bias one table of the whole stack holds (T5)."""
        return self.position if self.position is not None and self.position.for_stack else None

    @property
    def linked(self) -> dict[str, tuple[str, ...]]:
        """As the block says."""
        return {"gives": self.gives, "reads": self.reads}

    @property
    def offers(self) -> dict[str, Port]:
        """Keys, turned and normalised, and values: those of all tokens that are kept."""
        if self.mask == "cross" or self.reads:
            return {}
        keys, values = self.accepts.values()
        return {"keys": keys._replace(op=self._normed()[2]), "values": values._replace(op="v_proj")}

    @property
    def accepts(self) -> dict[str, Port]:
        """The same of an earlier layer, in place of its own: there are no projections for them then."""
        if self.mask == "cross":
            return {}
        like = {"n_kv_heads": self.n_kv_heads, "mask": self.mask, "window": self.window}
        return {
            "keys": Port(
                "",
                ("B", self.n_kv_heads, "S", self.head_dim),
                {**like, "head_dim": self.head_dim, "position": self.position},
            ),
            "values": Port("", ("B", self.n_kv_heads, "S", self.v_head_dim), {**like, "v_head_dim": self.v_head_dim}),
        }

    @property
    def score_scale(self) -> float | None:
        """Factor of the scores.

        None where it is head_dim ** -0.5, which is what they get anyway.
        """
        return None if self.scale == self.head_dim**-0.5 else self.scale

    @property
    def keep(self) -> int | None:
        """Keys that later queries can still see."""
        return None if self.window is None else self.window - 1

    @property
    def rotates(self) -> bool:
        """Whether the position rotates queries and keys."""
        return self.position is not None and self.position.rotates

    @property
    def slopes(self) -> bool:
        """Whether the position is a slope a head (ALiBi)."""
        return self.position is not None and self.position.slopes

    @property
    def own_bias(self) -> bool:
        """Whether this layer holds its own table of biases (T5, not shared)."""
        return self.position is not None and not (self.rotates or self.slopes or self.shared_bias is not None)

    @property
    def title(self) -> str:
        """The name by the number of key/value heads."""
        kinds = {1: "Multi-query attention", self.n_heads: "Multi-head attention"}
        name = kinds.get(self.n_kv_heads, "Grouped-query attention")
        return (
            "Cross-attention"
            if self.mask == "cross"
            else name
            if self.window is None
            else f"{name}, window {self.window}{' and global tokens' if self.global_tokens else ''}"
        )

    @property
    def short(self) -> str:
        """MHA, GQA or MQA."""
        if self.mask == "cross":
            return "cross-attn"
        return {1: "MQA", self.n_heads: "MHA"}.get(self.n_kv_heads, "GQA")

    def ops(self) -> tuple[Op, ...]:
        """Projections, optional norms and rotations, attention, optional gate, output projection."""
        projections = self._projections()
        norms, q_last, k_last = self._normed()
        tables = [op.under("position") for op in self.position.ops()] if self.position and self.own_bias else []
        bias = ("bias",) if self.shared_bias is not None else tuple(op.name for op in tables)
        attend = self._attend((q_last, k_last, "values" if self.reads else "v_proj", *bias))
        gated = self._gated()
        last = gated[-1].name if gated else attend.name
        width = self.n_heads * self.v_head_dim
        out = linear("o_proj", width, self.d_model, self.out_bias, inputs=(last,), residual=True)
        return (*self._split(*projections), *norms, *tables, attend, *gated, *self._split(out, axis=1))

    def _projections(self) -> tuple[Linear, ...]:
        source, tokens, d_source = ("memory", "M", self.d_memory) if self.mask == "cross" else ("x", "T", self.d_model)

        def read(name: str, width: int) -> Linear:
            inputs, rows, heads = (source,), ("B", tokens), self.n_kv_heads
            return linear(name, d_source, heads * width, self.qkv_bias, inputs=inputs, rows=rows, heads=heads)

        query = linear("q_proj", self.d_model, self.n_heads * self.head_dim, self.qkv_bias, heads=self.n_heads)
        if self.reads:
            return (query,)
        return query, read("k_proj", self.head_dim), read("v_proj", self.v_head_dim)

    def _split(self, *ops: Linear, axis: int = 0) -> list[Op]:
        """The projections, with how their weights are shared among devices."""
        return [split(op, "heads", axis) if self.shards else op for op in ops]

    def _normed(self) -> tuple[list[Op], str, str]:
        found: list[Op] = []
        q_last, k_last = "q_proj", "keys" if self.reads else "k_proj"
        q_shape = ("B", self.n_heads, "T", self.head_dim)
        k_shape = ("B", self.n_kv_heads, "M" if self.mask == "cross" else "T", self.head_dim)
        if self.qk_norm == "whole":
            q_dim, k_dim = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
            found += [
                self.norm.op("q_norm", q_dim, ("q_proj",)),
                self.norm.op("k_norm", k_dim, ("k_proj",), ("B", k_shape[2], k_dim)),
            ]
        elif self.qk_norm == "head":
            found += [
                self.norm.op("q_norm", self.head_dim, ("q_proj",), q_shape),
                self.norm.op("k_norm", self.head_dim, ("k_proj",), k_shape),
            ]
        if self.reads:
            return self._queries(found, q_shape)
        if found:
            q_last, k_last = "q_norm", "k_norm"
        if self.rotates:
            assert self.position is not None
            found += rotations((q_shape, q_last), (k_shape, k_last), self.position.pairs)
            q_last, k_last = "q_rope", "k_rope"
        return found, q_last, k_last

    def _queries(self, norms: list[Op], shape: tuple[Any, ...]) -> tuple[list[Op], str, str]:
        """What becomes of queries alone, where keys come from an earlier layer and are ready."""
        found, last = norms[:1], norms[0].name if norms else "q_proj"
        if self.position is not None and self.rotates:
            found.append(rotations((shape, last), (shape, last), self.position.pairs)[0])
            last = "q_rope"
        return found, last, "keys"

    def _attend(self, inputs: tuple[str, ...]) -> Attend:
        params = [Param("sinks", (self.n_heads,), split=("heads", 0) if self.shards else None)] if self.sinks else []
        bias = "" if self.position is None or self.rotates else self.position.kind
        return Attend(
            name="attention",
            shape=("B", self.n_heads, "T", self.v_head_dim),
            inputs=inputs,
            params=tuple(params),
            label=f"{self.mask} softmax attention",
            kernel="attention",
            kept=() if self.reads else self._kept(),
            shared=self._kept() if self.reads else (),
            n_heads=self.n_heads,
            n_kv_heads=self.n_kv_heads,
            qk_dim=self.head_dim,
            v_dim=self.v_head_dim,
            mask=self.mask,
            keys="M" if self.mask == "cross" else "S",
            window=self.window,
            bias=bias,
            softcap=self.softcap,
            sinks=self.sinks,
            joined=self.gate != "head",
            global_tokens=self.global_tokens,
        )

    def _kept(self) -> tuple[Kept, ...]:
        """Keys and values: of the memory, or of the tokens that later queries can still see."""
        if self.mask == "bidirectional":
            return ()
        if self.mask == "cross":
            return (
                Kept("memory.0", ("B", self.n_kv_heads, "M", self.head_dim)),
                Kept("memory.1", ("B", self.n_kv_heads, "M", self.v_head_dim)),
            )
        return (
            Kept("k", ("B", self.n_kv_heads, "S", self.head_dim), limit=self.keep),
            Kept("v", ("B", self.n_kv_heads, "S", self.v_head_dim), limit=self.keep),
        )

    def _gated(self) -> list[Op]:
        heads = ("B", self.n_heads, "T", self.v_head_dim)
        if self.gate == "none":
            return []
        width = self.n_heads * (self.v_head_dim if self.gate == "elementwise" else 1)
        proj = linear("gate_proj", self.d_model, width)
        return [*self._split(proj), gate("gate", heads, ("attention", "gate_proj"), "sigmoid", gates=("B", "T", width))]
