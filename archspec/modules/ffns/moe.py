"""Mixture of experts, as a module. What it computes is said in `archspec.layers.ffns.moe`."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kernels.collect import Scope, record
from archspec.kernels.moe.balance import balance_terms, expert_load, router_z_loss
from archspec.kernels.moe.experts import experts_gated, experts_plain
from archspec.kernels.moe.router import (
    admitted,
    places,
    places_by_length,
    router_logits,
    tokens_by_expert,
    top_k_routing,
)
from archspec.kernels.pointwise.activation import relu2
from archspec.kernels.precision import wide
from archspec.kernels.state import State
from archspec.layers.ffns.moe import MoE as Config
from archspec.modules.projection import linear


class MoE(nn.Module):
    """The weighted sum of the top_k experts that a router chooses of n_experts."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        self.router = linear(c, "router", c.d_model, c.n_experts, bias=c.router_bias)
        self.experts = nn.ParameterDict()
        if c.gated:
            self.experts["gate_proj"] = nn.Parameter(torch.empty(c.n_experts, c.d_ff, c.d_model))
        self.experts["up_proj"] = nn.Parameter(torch.empty(c.n_experts, c.d_ff, c.d_model))
        self.experts["down_proj"] = nn.Parameter(torch.empty(c.n_experts, c.d_model, c.d_ff))
        if c.bias:
            self.experts["up_bias"] = nn.Parameter(torch.empty(c.n_experts, c.d_ff))
            self.experts["down_bias"] = nn.Parameter(torch.empty(c.n_experts, c.d_model))
        if c.correction_bias:
            self.correction_bias = nn.Buffer(torch.zeros(c.n_experts, dtype=torch.float32))
        if c.n_shared:
            if c.gated:
                self.shared_gate_proj = linear(c, "shared_gate_proj", c.d_model, c.d_ff_shared, bias=False)
            self.shared_up_proj = linear(c, "shared_up_proj", c.d_model, c.d_ff_shared, bias=c.bias)
            self.shared_down_proj = linear(c, "shared_down_proj", c.d_ff_shared, c.d_model, bias=c.bias)
            if c.shared_gate:
                self.shared_gate = linear(c, "shared_gate", c.d_model, 1, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Stacked matrices start as `nn.Linear` does."""
        c = self.c
        for weight in self.experts.values():
            if c.bias and weight.dim() == 2:
                # Biases start at zero.
                nn.init.zeros_(weight)
            else:
                nn.init.uniform_(weight, -(weight.shape[-1] ** -0.5), weight.shape[-1] ** -0.5)
        if c.correction_bias:
            nn.init.zeros_(self.correction_bias)

    def forward(
        self, x: Tensor, state: State | None = None, mask: Tensor | None = None, aux: Scope | None = None
    ) -> Tensor:
        """x (B, T, d_model) -> (B, T, d_model)."""
        c = self.c
        if c.router_dtype == "float32":
            logits = router_logits(
                self.jittered(x) if c.jitter else x,
                self.router.weight,
                bias=self.router.bias if c.router_bias else None,
            )  # (B, T, n_experts)
        else:
            logits = wide(self.router(self.jittered(x) if c.jitter else x))  # (B, T, n_experts)
        if c.temperature != 1.0:
            logits = logits / c.temperature
        rows = x.flatten(0, 1)  # (B * T, d_model)
        if c.assignment == "expert":
            weights, experts, tokens = self.tokens_by_expert(logits, mask=mask)
            y = torch.zeros_like(rows).index_add(0, tokens, self.run_experts(rows[tokens], weights, experts))
        else:
            weights, experts = self.experts_by_token(logits, mask=mask)
            if c.has_capacity:
                room = self.admit(experts, state=state if c.eval_capacity is not None else None, mask=mask)
                y = self.run_experts(rows, weights.flatten(0, 1), room.flatten(0, 1))
            else:
                y = self.run_experts(rows, weights.flatten(0, 1), experts.flatten(0, 1))
        y = y.view_as(x)
        if c.n_shared:
            if c.gated:
                shared = self.activate(self.shared_gate_proj(x)) * self.shared_up_proj(x)  # (B, T, d_ff_shared)
            else:
                shared = self.activate(self.shared_up_proj(x))  # (B, T, d_ff_shared)
            shared = self.shared_down_proj(shared)  # (B, T, d_model)
            if c.shared_gate:
                shared = shared * torch.sigmoid(self.shared_gate(x))
            y = y + shared
        if c.collects and aux is not None:
            if c.assignment == "token":
                aux["load"] = expert_load(experts, c.n_experts)
            if c.balance_loss:
                fraction, weight = self.balance(logits, experts, mask=mask)
                if c.plain and not c.balance_pooled:
                    aux["balance_loss"] = (fraction * weight).sum(-1).mean()
                elif c.plain:
                    aux["pooled_fraction"], aux["pooled_weight"] = fraction, weight
                else:
                    aux["pooled_fraction" if c.balance_pooled else "balance_fraction"] = fraction
                    y = record(aux, "pooled_weight" if c.balance_pooled else "balance_weight", weight, y)
            if c.z_loss:
                loss = c.z_loss * router_z_loss(logits, mask=mask if c.padded else None)
                if c.plain:
                    aux["z_loss"] = loss
                else:
                    y = record(aux, "z_loss", loss, y)
        return y

    def jittered(self, x: Tensor) -> Tensor:
        """What the router sees of x: in training multiplied by noise."""
        c = self.c
        if c.router_dtype == "float32":
            x = wide(x)
        if self.training:
            x = x * torch.empty_like(x).uniform_(1 - c.jitter, 1 + c.jitter)
        return x

    def experts_by_token(self, logits: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The weights and numbers of the experts that logits (B, T, n_experts) choose, (B, T, top_k); -1 is nobody."""
        c = self.c
        weights, experts = top_k_routing(
            logits,
            c.top_k,
            score=c.score,
            order=c.order,
            renormalise=False,
            bias=self.correction_bias if c.correction_bias else None,
            n_groups=c.n_groups,
            top_k_groups=c.top_k_groups,
            group_score=c.group_score,
        )
        if c.renormalise:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        if c.routed_scale != 1.0:
            weights = weights * c.routed_scale
        if c.padded and mask is not None:
            # Padding is nobody's: it is not counted and takes no place.
            experts = experts.masked_fill(~mask.unsqueeze(-1), -1)
        return weights, experts

    def admit(self, experts: Tensor, state: State | None = None, mask: Tensor | None = None) -> Tensor:
        """experts (B, T, top_k) with -1 where an expert has no place left."""
        c = self.c
        if c.capacity_factor is not None and self.training:
            if c.padded and mask is not None:
                # Places go by the real tokens of each sequence, (B, 1, 1).
                capacity = places_by_length(mask, c.capacity_factor * c.top_k / c.n_experts)
                experts = admitted(experts, c.n_experts, capacity)
            else:
                capacity = places(c.capacity_factor * c.top_k * experts.shape[1] / c.n_experts)
                experts = admitted(experts, c.n_experts, capacity)
        if c.eval_capacity is not None and not self.training:
            experts = admitted(experts, c.n_experts, c.eval_capacity, state)
        return experts

    def tokens_by_expert(self, logits: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The tokens (N,) of B * T that the experts (N, 1) choose by logits (B, T, n_experts), and weights (N, 1)."""
        c = self.c
        if c.choice_over == "batch":
            logits = logits.flatten(0, 1).unsqueeze(0)  # (1, B * T, n_experts)
            if c.padded and mask is not None:
                # The whole batch is one sequence, padding between its parts.
                mask = mask.flatten().unsqueeze(0)
        scores = logits.softmax(-1) if c.score == "softmax" else logits.sigmoid()
        n_places = places(c.top_k * logits.shape[1] / c.n_experts)
        by = logits if c.choice_by == "logit" else scores
        if c.padded and mask is not None:
            # Each sequence has places by its real tokens, (B, 1, 1).
            taken = places_by_length(mask, c.top_k / c.n_experts)
            weights, experts, tokens = tokens_by_expert(scores, n_places, by=by, mask=mask, taken=taken)
        else:
            weights, experts, tokens = tokens_by_expert(scores, n_places, by=by)
        if c.routed_scale != 1.0:
            weights = weights * c.routed_scale
        return weights, experts, tokens

    def balance(self, logits: Tensor, experts: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The fraction of tokens that chose each expert, and what it weighs in the balance loss, their product."""
        c = self.c
        probs = logits.softmax(-1) if c.score == "softmax" else F.normalize(logits.sigmoid(), p=1, dim=-1)
        if c.balance_counts == "first":
            experts = experts[..., :1]
        elif c.balance_counts == "raw":
            experts = probs.topk(c.top_k).indices
            if c.padded and mask is not None:
                # Padding chooses nobody.
                experts = experts.masked_fill(~mask.unsqueeze(-1), -1)
        fraction, probability = balance_terms(
            probs,
            experts,
            mask=mask if c.padded else None,
            per_sequence=c.balance_over == "sequence",
            share=c.balance_sum == "one",
        )
        return fraction, c.balance_loss * c.n_experts * probability

    def run_experts(self, x: Tensor, weights: Tensor, experts: Tensor) -> Tensor:
        """Rows x (N, d_model) through the experts (N, k), summed by weights (N, k) -> (N, d_model)."""
        c = self.c
        w = self.experts
        if c.gated:
            y = experts_gated(x, weights, experts, w["gate_proj"], w["up_proj"], w["down_proj"], self.activate)
        else:
            y = experts_plain(
                x,
                weights,
                experts,
                w["up_proj"],
                w["down_proj"],
                self.activate,
                b_up=w["up_bias"] if c.bias else None,
                b_down=w["down_bias"] if c.bias else None,
            )
        return y

    def activate(self, h: Tensor) -> Tensor:
        """The experts' activation."""
        c = self.c
        if c.activation == "silu":
            h = F.silu(h)
        elif c.activation == "gelu":
            h = F.gelu(h)
        elif c.activation == "gelu_tanh":
            h = F.gelu(h, approximate="tanh")
        elif c.activation == "relu":
            h = F.relu(h)
        elif c.activation == "relu2":
            h = relu2(h)
        elif c.activation == "tanh":
            h = F.tanh(h)
        elif c.activation == "sigmoid":
            h = torch.sigmoid(h)
        if c.expert_dropout and c.gated:
            # Dropping the gate of a hidden unit drops the unit.
            h = F.dropout(h, c.expert_dropout, self.training)
        elif c.expert_dropout:
            h = F.dropout(h, c.expert_dropout, self.training)
        return h

    @torch.no_grad()
    def update_bias(self, load: Tensor) -> None:
        """Lower the bias of experts with more than the mean load (n_experts,), raise that of the others."""
        c = self.c
        if c.correction_bias:
            self.correction_bias.add_(torch.sign(load.sum() - c.n_experts * load), alpha=c.bias_update_rate)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        """Casts leave the correction bias in float32: those of experts differ by less than 16 bits can tell."""
        c = self.c
        if c.correction_bias:
            bias = self.correction_bias
            super()._apply(fn, recurse)
            if self.correction_bias.dtype != bias.dtype:
                self.correction_bias = nn.Buffer(bias.to(self.correction_bias.device))
            return self
        return super()._apply(fn, recurse)
