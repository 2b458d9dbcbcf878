"""Mixture of experts: many feed-forward networks, of which each token runs a few.

    s = score(router(x) / temperature)
    y = routed_scale * sum over the chosen experts i of w_i expert_i(x)  +  shared(x)

How the router chooses and how load is kept even is said in `archspec.layers.routing`; w is s of the chosen, or its
share among them with `renormalise`. Mixtral is `renormalise: true`; Switch is top_k 1 with `gated: false` and a
capacity; DeepSeek-V3 is sigmoid scores with groups, a correction bias, renormalise, routed_scale and a shared expert.

State while decoding: none; with `eval_capacity`, how many places of each expert are taken. Cost O(top_k d_model d_ff)
a token, and parameters for all n_experts.

Sources: Shazeer et al. 2017 (top-k gating), Lepikhin et al. 2020 (GShard, capacity), Fedus et al. 2021 (Switch: top-1,
balance loss, jitter, expert dropout), Zoph et al. 2022 (ST-MoE: z-loss), Zhou et al. 2022 (expert choice), Jiang et
al. 2024 (Mixtral), Yang et al. 2024 (Qwen2-MoE: gated shared expert), Dai et al. 2024 (DeepSeekMoE), DeepSeek-AI 2024
(V2: groups; V3: sigmoid scores, correction bias), Wang et al. 2024 (balance without a loss).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from archspec.layers.fields import WIDTH, Count, Probability, Width, derived, field
from archspec.layers.ops import ADD, MULTIPLY, Experts, Kept, Op, Param, Route, elementwise, gate, linear, split
from archspec.layers.routing import Routed


class MoE(Routed):
    """Routed experts, with or without shared ones."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"n_experts": 4, "top_k": 2, "d_ff": 8, "renormalise": True, "balance_loss": 0.01, "z_loss": 0.001,
         "balance_pooled": True},
        {"n_experts": 4, "top_k": 1, "d_ff": 8, "gated": False, "activation": "relu", "bias": True, "jitter": 0.01,
         "capacity_factor": 0.5, "eval_capacity": 2, "expert_dropout": 0.1, "balance_loss": 0.01},
        {"n_experts": 4, "top_k": 2, "d_ff": 8, "order": "top_k_then_score", "router_bias": True, "activation": "gelu"},
        {"n_experts": 4, "top_k": 2, "d_ff": 8, "n_shared": 1, "d_ff_shared": 12, "shared_gate": True,
         "temperature": 2.0, "activation": "gelu_tanh"},
        {"n_experts": 16, "top_k": 3, "d_ff": 8, "n_groups": 4, "top_k_groups": 2, "group_score": "max",
         "n_shared": 2, "routed_scale": 16.0, "activation": "relu2"},
        {"n_experts": 8, "top_k": 3, "d_ff": 8, "score": "sigmoid", "correction_bias": True, "renormalise": True,
         "n_groups": 4, "top_k_groups": 2, "group_score": "top2_sum", "n_shared": 1, "routed_scale": 2.5,
         "balance_loss": 0.0001, "balance_over": "sequence", "balance_counts": "raw", "balance_sum": "one"},
        {"n_experts": 4, "top_k": 2, "d_ff": 8, "assignment": "expert", "z_loss": 0.001, "activation": "identity"},
        {"n_experts": 4, "top_k": 2, "d_ff": 8, "assignment": "expert", "choice_over": "batch", "choice_by": "logit",
         "routed_scale": 2.0},
        {"n_experts": 4, "top_k": 2, "d_ff": 8, "gated": False, "activation": "tanh", "n_shared": 1},
        {"n_experts": 4, "top_k": 2, "d_ff": 8, "activation": "sigmoid", "router_dtype": "model",
         "balance_loss": 0.01, "balance_counts": "first"},
    )  # fmt: skip

    kind: Literal["moe"] = "moe"
    d_ff: Width = field("hidden units of one expert")
    gated: bool = field("whether an expert is a gated MLP (three matrices) or a plain one (two)", True)
    activation: Literal["silu", "gelu", "gelu_tanh", "relu", "relu2", "tanh", "sigmoid", "identity"] = field(
        "the non-linearity of the experts (of their gate, where gated)", "silu"
    )
    bias: bool = field("biases of plain experts", False, when=("gated", False))
    expert_dropout: Probability = field("dropout of the hidden units of all experts, after the activation", 0.0)
    n_shared: Count = field("shared experts, which every token runs, as one network of their total width", 0)
    d_ff_shared: Annotated[Count, WIDTH] = derived(
        "hidden units of all shared experts together", "n_shared * d_ff", when=("n_shared",)
    )
    shared_gate: bool = field("a sigmoid gate on the shared experts' output, from x", False, when=("n_shared",))

    def check(self) -> None:
        """Refuse choices that cannot be made and settings that could not matter."""
        super().check()
        if self.n_shared and not self.d_ff_shared:
            raise ValueError("d_ff_shared = 0 leaves no shared expert; set n_shared = 0, or a width")
        if self.n_shared > 1 and self.d_ff_shared != self.n_shared * self.d_ff:
            raise ValueError(
                f"n_shared = {self.n_shared} has no effect when d_ff_shared = {self.d_ff_shared} is the width of all of"
                " them together; set n_shared to 1, or remove d_ff_shared"
            )
        if not self.gated and self.activation == "identity":
            raise ValueError("activation = 'identity' makes plain experts linear; set gated: true, or an activation")

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

    def ops(self) -> tuple[Op, ...]:
        """Router, choice, routed experts, shared experts, sum."""
        router = linear("router", self.d_model, self.n_experts, self.router_bias)
        if self.router_dtype == "float32":
            router = replace(router, kernel="router_logits", wide=True)
        experts = [self._experts()] if self.assignment == "token" else [self._experts(), self._gathered()]
        return (router, self._route(), *experts, *self._shared(experts[-1].name))

    def _route(self) -> Route:
        bias = Param("correction_bias", (self.n_experts,), buffer=True)
        return Route(
            name="route",
            shape=("B", "T", self.top_k),
            inputs=("router",),
            params=(bias,) if self.correction_bias else (),
            note=", ".join((self.choice, self.score, *self.rules)),
            kernel="tokens_by_expert" if self.assignment == "expert" else "top_k_routing",
            kept=() if self.eval_capacity is None else (Kept("asked", ("B", 1, self.n_experts), dtype="int64"),),
            n_experts=self.n_experts,
            top_k=self.top_k,
            score=self.score,
            by_expert=self.assignment == "expert",
            rules=self.rules,
            scores_last=self.order == "top_k_then_score",
            renormalise=self.renormalise,
            scale=self.routed_scale,
            over_batch=self.choice_over == "batch",
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
            by_expert=self.assignment == "expert",
            over_batch=self.choice_over == "batch",
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
            ops.append(gate("shared_gated", out, (last, "shared_gate"), "sigmoid", gates=("B", "T", 1)))
            last = "shared_gated"
        return [*ops, elementwise(ADD, out, (routed, last), "combine")]
