"""Mixture of experts: many feed-forward networks, of which each token runs a few.

    s = score(router(x) / temperature)
    y = routed_scale * sum over the chosen experts i of w_i expert_i(x)  +  shared(x)

A token chooses its top_k experts (w is s of the chosen, or its share among them with `renormalise`), or each expert
chooses its tokens (`assignment: expert`). Mixtral is `renormalise: true`; Switch is top_k 1 with `gated: false` and a
capacity; DeepSeek-V3 is sigmoid scores with groups, a correction bias, renormalise, routed_scale and a shared expert.

Capacity is counted for each sequence alone, and places go to tokens in order of position (at one position to its
better choices first), so that a token never takes a place from an earlier one and the layer stays causal. A capacity
in evaluation is a fixed number of tokens, since the length of a sequence is not known while it is decoded. Expert
choice compares a token with later ones and is not causal.

State while decoding: none; with `eval_capacity`, how many places of each expert are taken. Cost O(top_k d_model d_ff)
a token, and parameters for all n_experts.

Sources: Shazeer et al. 2017 (top-k gating), Lepikhin et al. 2020 (GShard, capacity), Fedus et al. 2021 (Switch: top-1,
balance loss, jitter, expert dropout), Zoph et al. 2022 (ST-MoE: z-loss), Zhou et al. 2022 (expert choice), Jiang et
al. 2024 (Mixtral), Yang et al. 2024 (Qwen2-MoE: gated shared expert), Dai et al. 2024 (DeepSeekMoE), DeepSeek-AI 2024
(V2: groups; V3: sigmoid scores, correction bias), Wang et al. 2024 (balance without a loss).
"""

from collections.abc import Callable, Iterator
from typing import Annotated, Any, ClassVar, Literal

from archspec.layers.base import FFNComponent
from archspec.layers.fields import (
    WIDTH,
    Count,
    NotNegative,
    Positive,
    Probability,
    Size,
    Width,
    derived,
    field,
    inherited,
)
from archspec.layers.ops import ADD, MULTIPLY, Experts, Kept, Op, Param, Route, elementwise, gate, linear, split


class MoE(FFNComponent):
    """Routed experts, with or without shared ones."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"n_experts": 4, "top_k": 2, "d_ff": 8, "renormalise": True, "balance_loss": 0.01, "z_loss": 0.001},
        {"n_experts": 4, "top_k": 1, "d_ff": 8, "gated": False, "activation": "relu", "bias": True, "jitter": 0.01,
         "capacity_factor": 0.5, "eval_capacity": 2, "expert_dropout": 0.1, "balance_loss": 0.01},
        {"n_experts": 4, "top_k": 2, "d_ff": 8, "order": "top_k_then_score", "router_bias": True, "activation": "gelu"},
        {"n_experts": 4, "top_k": 2, "d_ff": 8, "n_shared": 1, "d_ff_shared": 12, "shared_gate": True,
         "temperature": 2.0, "activation": "gelu_tanh"},
        {"n_experts": 16, "top_k": 3, "d_ff": 8, "n_groups": 4, "top_k_groups": 2, "group_score": "max",
         "n_shared": 2, "routed_scale": 16.0, "activation": "relu2"},
        {"n_experts": 8, "top_k": 3, "d_ff": 8, "score": "sigmoid", "correction_bias": True, "renormalise": True,
         "n_groups": 4, "top_k_groups": 2, "group_score": "top2_sum", "n_shared": 1, "routed_scale": 2.5,
         "balance_loss": 0.0001},
        {"n_experts": 4, "top_k": 2, "d_ff": 8, "assignment": "expert", "z_loss": 0.001, "activation": "identity"},
        {"n_experts": 4, "top_k": 2, "d_ff": 8, "gated": False, "activation": "tanh", "n_shared": 1},
        {"n_experts": 4, "top_k": 2, "d_ff": 8, "activation": "sigmoid"},
    )  # fmt: skip

    kind: Literal["moe"] = "moe"
    d_model: Width = inherited("width of the residual stream")
    n_experts: Size = field("routed experts")
    top_k: Size = field("experts that a token runs")
    d_ff: Width = field("hidden units of one expert")
    gated: bool = field("whether an expert is a gated MLP (three matrices) or a plain one (two)", True)
    activation: Literal["silu", "gelu", "gelu_tanh", "relu", "relu2", "tanh", "sigmoid", "identity"] = field(
        "the non-linearity of the experts (of their gate, where gated)", "silu"
    )
    bias: bool = field("biases of plain experts", False, when=("gated", False))
    expert_dropout: Probability = field("dropout of the hidden units of all experts, after the activation", 0.0)
    assignment: Literal["token", "expert"] = field(
        "who chooses: a token its top_k experts, or an expert its top_k * T / n_experts tokens (top_k is then a mean)",
        "token",
    )
    router_bias: bool = field("bias of the router", False)
    score: Literal["softmax", "sigmoid"] = field("how the router's logits become scores", "softmax")
    temperature: Positive = field("what the router's logits are divided by", 1.0)
    jitter: Probability = field(
        "in training the router's input is multiplied by noise between 1 - jitter and 1 + jitter", 0.0
    )
    order: Literal["score_then_top_k", "top_k_then_score"] = field(
        "whether all experts are scored, or only the chosen ones", "score_then_top_k", when=("assignment", "token")
    )
    renormalise: bool = field(
        "whether the weights of a token's experts are made to sum to 1", False, when=("order", "score_then_top_k")
    )
    routed_scale: Positive = field("factor of the routed experts' weights", 1.0)
    n_groups: Size | None = field(
        "groups of neighbouring experts, of which a token may use only some", None, when=("assignment", "token")
    )
    top_k_groups: Size | None = field("groups that a token may use", None, when=("n_groups",))
    group_score: Literal["max", "top2_sum"] | None = field(
        "what a group is worth: its best score, or its best two together", None, when=("n_groups",)
    )
    correction_bias: bool = field(
        "a number an expert, added to its score for the choice only, moved against its load by `update_bias`",
        False,
        when=("order", "score_then_top_k"),
    )
    bias_update_rate: Positive = field("how far one update moves the correction bias", 0.001, when=("correction_bias",))
    balance_loss: NotNegative = field(
        "coefficient of n_experts * sum of (share of tokens) * (mean score), the loss of uneven load",
        0.0,
        when=("assignment", "token"),
    )
    z_loss: NotNegative = field("coefficient of the mean square of logsumexp(logits)", 0.0)
    capacity_factor: Positive | None = field(
        "in training an expert takes capacity_factor * top_k * T / n_experts tokens of a sequence, and drops the rest",
        None,
        when=("assignment", "token"),
    )
    eval_capacity: Size | None = field(
        "tokens of a sequence that an expert takes in evaluation; none: all",
        None,
        when=("assignment", "token"),
    )
    n_shared: Count = field("shared experts, which every token runs, as one network of their total width", 0)
    d_ff_shared: Annotated[Count, WIDTH] = derived(
        "hidden units of all shared experts together", "n_shared * d_ff", when=("n_shared",)
    )
    shared_gate: bool = field("a sigmoid gate on the shared experts' output, from x", False, when=("n_shared",))

    def check(self) -> None:
        """Refuse choices that cannot be made and settings that could not matter."""
        if self.top_k > self.n_experts:
            raise ValueError(f"top_k = {self.top_k} must be at most n_experts = {self.n_experts}")
        if self.n_experts == 1:
            raise ValueError("n_experts = 1 leaves nothing to choose; use gated_mlp or mlp, or more experts")
        if self.n_shared and not self.d_ff_shared:
            raise ValueError("d_ff_shared = 0 leaves no shared expert; set n_shared = 0, or a width")
        if self.n_shared > 1 and self.d_ff_shared != self.n_shared * self.d_ff:
            raise ValueError(
                f"n_shared = {self.n_shared} has no effect when d_ff_shared = {self.d_ff_shared} is the width of all of"
                " them together; set n_shared to 1, or remove d_ff_shared"
            )
        if not self.gated and self.activation == "identity":
            raise ValueError("activation = 'identity' makes plain experts linear; set gated: true, or an activation")
        if self.assignment == "expert" and (self.renormalise or self.correction_bias):
            name = "renormalise" if self.renormalise else "correction_bias"
            raise ValueError(f"{name} has no effect when assignment is expert; remove it, or set assignment to 'token'")
        self._check_groups()

    def _check_groups(self) -> None:
        """Refuse groups that experts or choices do not fit."""
        if self.n_groups is None:
            return
        if self.n_experts % self.n_groups:
            raise ValueError(f"n_experts = {self.n_experts} must be a multiple of n_groups = {self.n_groups}")
        if self.n_groups > 1 and None in (self.top_k_groups, self.group_score):
            missing = "top_k_groups" if self.top_k_groups is None else "group_score"
            raise ValueError(f"n_groups = {self.n_groups} needs {missing}")
        groups, size = self.top_k_groups or 1, self.n_experts // self.n_groups
        if groups > self.n_groups:
            raise ValueError(f"top_k_groups = {groups} must be at most n_groups = {self.n_groups}")
        if self.top_k > groups * size:
            most = groups * size
            raise ValueError(f"top_k = {self.top_k} must be at most {most}, the experts of top_k_groups groups")
        if self.group_score == "top2_sum" and size < 2:
            raise ValueError("group_score = 'top2_sum' needs groups of at least two experts; use max")

    def doubts(self, length: int | None) -> Iterator[str]:
        """Choices that are no choice at these numbers of experts, and a router that could learn nothing."""
        yield from self._doubts_of_one()
        if self.order == "top_k_then_score" and self.score == "sigmoid":
            yield "score = 'sigmoid' is the same in either order; remove order"
        yield from self._doubts_of_all()
        if self.capacity_factor is not None and self.capacity_factor * self.top_k >= self.n_experts:
            yield (
                f"capacity_factor = {self.capacity_factor:g} drops nothing: an expert has room for the whole sequence"
                f" from n_experts / top_k = {self.n_experts / self.top_k:g} on"
            )
        if self.eval_capacity is not None and length is not None and self.eval_capacity >= length:
            yield f"eval_capacity = {self.eval_capacity} drops nothing in texts of up to max_seq_len = {length} tokens"
        yield from self._doubts_of_groups()

    def _doubts_of_one(self) -> Iterator[str]:
        """A single chosen expert whose weight is always 1."""
        if self.top_k > 1 or self.assignment == "expert":
            return
        if self.renormalise:
            yield (
                "renormalise makes the weight of the only chosen expert 1, so the router learns nothing from the loss;"
                " set it to false, or raise top_k"
            )
        if self.order == "top_k_then_score" and self.score == "softmax":
            yield (
                "order = 'top_k_then_score' makes the weight of the only chosen expert 1, so the router learns nothing"
                " from the loss; remove it, or raise top_k"
            )

    def _doubts_of_all(self) -> Iterator[str]:
        """Nothing to choose or to balance where every token runs every expert."""
        if self.top_k < self.n_experts:
            return
        idle = {
            "correction_bias": self.correction_bias,
            "balance_loss": self.balance_loss,
            "renormalise": self.renormalise and self.score == "softmax",
            "assignment": self.assignment == "expert",
            "order": self.order == "top_k_then_score" and self.score == "softmax",
        }
        for name in [name for name, given in idle.items() if given]:
            yield f"{name} has no effect when top_k = n_experts = {self.n_experts}: every token runs every expert"

    def _doubts_of_groups(self) -> Iterator[str]:
        """Groups that exclude nobody."""
        if self.n_groups is None:
            return
        groups = self.top_k_groups or 1
        if groups == self.n_groups:
            yield f"n_groups = {self.n_groups} has no effect: a token may use every group (top_k_groups = {groups})"
        elif self.group_score == "max" and self.top_k <= groups:
            yield (
                f"n_groups has no effect: the groups of the best top_k = {self.top_k} experts are always among the best"
                f" top_k_groups = {groups}"
            )

    @property
    def arguments(self) -> tuple[str, ...]:
        """The decoding state, where places are counted."""
        return () if self.eval_capacity is None else ("state",)

    @property
    def causal(self) -> bool:
        """Whether tokens choose; an expert that chooses compares them with later ones."""
        return self.assignment == "token"

    @property
    def aux_loss(self) -> bool:
        """Whether the router has a loss."""
        return bool(self.balance_loss or self.z_loss)

    @property
    def moves_bias(self) -> bool:
        """Whether the router is balanced by a bias."""
        return self.correction_bias

    @property
    def shards(self) -> dict[str, tuple[str, ...]]:
        """Hidden units of every expert; experts themselves stay whole, since tokens then go to devices."""
        return {"channels": ("d_ff", "d_ff_shared") if self.n_shared else ("d_ff",)}

    def smaller(self, cut: Callable[[int], int]) -> dict[str, Any]:
        """A few experts: two a group where they stand in groups."""
        if self.n_experts <= 8:
            return {}
        experts = max(8, 2 * self.n_groups) if self.n_groups else 8
        return {"n_experts": experts, "top_k": min(self.top_k, 4)}

    @property
    def title(self) -> str:
        """The name with its numbers."""
        shared = f" and {self.n_shared} shared" if self.n_shared else ""
        return f"Mixture of experts, {self.choice}{shared}"

    @property
    def short(self) -> str:
        """The abbreviation."""
        return "MoE"

    @property
    def choice(self) -> str:
        """Who chooses how many, in words."""
        if self.assignment == "expert":
            return f"expert choice, {self.top_k} of {self.n_experts} on average"
        return f"top-{self.top_k} of {self.n_experts}"

    def ops(self) -> tuple[Op, ...]:
        """Router, choice, routed experts, shared experts, sum."""
        router = linear("router", self.d_model, self.n_experts, self.router_bias)
        experts = [self._experts()] if self.assignment == "token" else [self._experts(), self._gathered()]
        return (router, self._route(), *experts, *self._shared(experts[-1].name))

    def _route(self) -> Route:
        bias = Param("correction_bias", (self.n_experts,), buffer=True)
        rules = ["renormalised"] if self.renormalise else []
        rules += [f"within {self.top_k_groups} of {self.n_groups} groups"] if self.n_groups else []
        rules += ["balanced by a bias"] if self.correction_bias else []
        rules += [f"capacity factor {self.capacity_factor:g}"] if self.capacity_factor else []
        rules += [f"at most {self.eval_capacity} in evaluation"] if self.eval_capacity else []
        return Route(
            name="route",
            shape=("B", "T", self.top_k),
            inputs=("router",),
            params=(bias,) if self.correction_bias else (),
            note=", ".join((self.choice, self.score, *rules)),
            kernel="tokens_by_expert" if self.assignment == "expert" else "top_k_routing",
            kept=() if self.eval_capacity is None else (Kept("asked", ("B", 1, self.n_experts), dtype="int64"),),
            n_experts=self.n_experts,
            top_k=self.top_k,
            score=self.score,
            by_expert=self.assignment == "expert",
            rules=tuple(rules),
        )

    def _experts(self) -> Experts:
        up, down = (self.n_experts, self.d_ff, self.d_model), (self.n_experts, self.d_model, self.d_ff)
        shapes = {"gate_proj": up} if self.gated else {}
        shapes |= {"up_proj": up, "down_proj": down}
        biases = {"up_bias": up[:2], "down_bias": down[:2]} if self.bias else {}
        active = (self.top_k, self.n_experts)
        cut: dict[str, tuple[str, int]] = dict.fromkeys(("gate_proj", "up_proj", "up_bias"), ("channels", 1))
        cut["down_proj"] = ("channels", 2)
        return Experts(
            name="experts",
            shape=("B", "T", self.d_model) if self.assignment == "token" else ("B", "T", self.top_k, self.d_model),
            inputs=("x", "route"),
            params=tuple(
                Param(f"experts.{n}", s, active=active, split=cut.get(n), residual=n.startswith("down"))
                for n, s in (shapes | biases).items()
            ),
            note=f"{self.activation}, d_ff {self.d_ff}",
            kernel="experts_gated" if self.gated else "experts_plain",
            n_experts=self.n_experts,
            top_k=self.top_k,
            d_model=self.d_model,
            d_ff=self.d_ff,
            matrices=3 if self.gated else 2,
            activation=self.activation,
            scale=self.routed_scale,
        )

    def _gathered(self) -> Op:
        """What the experts that chose a token give, added up."""
        return elementwise(ADD, ("B", "T", self.d_model), ("experts", "route"), "gathered")

    def _shared(self, routed: str) -> list[Op]:
        if not self.n_shared:
            return []
        hidden, out = ("B", "T", self.d_ff_shared), ("B", "T", self.d_model)
        ops: list[Op] = []
        if self.gated:
            ops.append(split(linear("shared_gate_proj", self.d_model, self.d_ff_shared), "channels"))
        ops.append(split(linear("shared_up_proj", self.d_model, self.d_ff_shared, self.bias), "channels"))
        ops.append(elementwise(self.activation, hidden, (ops[0].name,), "shared_act"))
        last = "shared_act"
        if self.gated:
            ops.append(elementwise(MULTIPLY, hidden, (last, "shared_up_proj"), "shared_product"))
            last = "shared_product"
        down = linear("shared_down_proj", self.d_ff_shared, self.d_model, self.bias, inputs=(last,), residual=True)
        ops.append(split(down, "channels", 1))
        last = "shared_down_proj"
        if self.shared_gate:
            ops.append(linear("shared_gate", self.d_model, 1))
            ops.append(gate("shared_gated", out, (last, "shared_gate"), "sigmoid"))
            last = "shared_gated"
        return [*ops, elementwise(ADD, out, (routed, last), "combine")]
