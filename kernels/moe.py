"""Mixture of experts: routing, capacity, auxiliary losses, and the experts themselves.

A token is a row of x (N, d_model). Routing gives each token k experts (N, k), integers below n_experts, and their
weights (N, k). The expert -1 means nobody: that slot is not computed and adds nothing. Expert weights are stacked as
n_experts Linear weights, (E, d_out, d_in). Tokens are sorted by expert so that each expert multiplies exactly the
rows it was given.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def reference(x: Tensor, weights: Tensor, experts: Tensor, expert: Callable[[int, Tensor], Tensor]) -> Tensor:
    """sum over the k slots of weight * expert(x), token by token, where expert(e, rows) is the network of expert e."""
    rows = [
        sum(w * expert(int(e), row.unsqueeze(0))[0] for w, e in zip(ws, es, strict=True) if e >= 0) + 0 * row
        for row, ws, es in zip(x, weights, experts, strict=True)
    ]
    return torch.stack(rows)


def top_k_routing(
    logits: Tensor,
    k: int,
    *,
    score: str = "softmax",
    order: str = "score_then_top_k",
    renormalise: bool = True,
    bias: Tensor | None = None,
    n_groups: int | None = None,
    top_k_groups: int | None = None,
    group_score: str = "max",
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """The k experts of each token and their weights, (N, k) float32 (or wider) and (N, k) integers, from logits (N, E).

    score: "softmax" or "sigmoid". order: "score_then_top_k" scores all experts (Mixtral, DeepSeek),
    "top_k_then_score" scores only the chosen ones (gpt-oss). renormalise: weights of a token sum to 1. bias (E,):
    added for the choice only (DeepSeek-V3). n_groups, top_k_groups: only the experts of the best top_k_groups groups
    can be chosen; a group is as good as its best expert ("max", DeepSeek-V2) or its best two ("top2_sum",
    DeepSeek-V3). scale multiplies the weights.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    values = logits if order == "top_k_then_score" else _score(logits, score)
    choice = values if bias is None else values + bias
    if n_groups is not None and top_k_groups is not None and top_k_groups < n_groups:
        choice = _limit_groups(choice, n_groups, top_k_groups, group_score)
    experts = choice.topk(k, dim=-1).indices
    weights = values.gather(-1, experts)
    if order == "top_k_then_score":
        weights = _score(weights, score)
    if renormalise:
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
    return weights * scale, experts


def _score(logits: Tensor, score: str) -> Tensor:
    """Softmax or sigmoid over the last axis."""
    return logits.softmax(-1) if score == "softmax" else logits.sigmoid()


def _limit_groups(choice: Tensor, n_groups: int, top_k_groups: int, group_score: str) -> Tensor:
    """choice (N, E) with -inf outside the best top_k_groups groups of E / n_groups neighbouring experts."""
    grouped = choice.unflatten(-1, (n_groups, -1))  # (N, n_groups, E / n_groups)
    quality = grouped.amax(-1) if group_score == "max" else grouped.topk(2, dim=-1).values.sum(-1)
    best = quality.topk(top_k_groups, dim=-1).indices
    closed = torch.ones_like(quality, dtype=torch.bool).scatter(-1, best, False)
    return grouped.masked_fill(closed.unsqueeze(-1), -torch.inf).flatten(-2)


def expert_choice(logits: Tensor, capacity: int) -> tuple[Tensor, Tensor]:
    """Expert choice (Zhou et al. 2022): each expert takes the `capacity` tokens that want it most.

    logits (N, E) -> weights (N, E), the softmax over experts, and experts (N, E), -1 where the token was not taken.
    """
    probs = (logits if logits.dtype == torch.float64 else logits.float()).softmax(-1)
    taken = probs.topk(capacity, dim=0).indices
    chosen = torch.zeros_like(probs, dtype=torch.bool).scatter(0, taken, True)
    experts = torch.arange(logits.shape[1], device=logits.device).expand_as(probs)
    return probs * chosen, experts.where(chosen, -1)


def capacity_mask(experts: Tensor, n_experts: int, capacity: int, priority: Tensor | None = None) -> Tensor:
    """Which slots of experts (N, k) find room when an expert takes at most `capacity` tokens, (N, k) True = kept.

    Room goes to all first choices in the order of position, then to the second choices, and so on (GShard, Switch).
    With priority (N,), tokens of higher priority go first instead (batch-prioritised routing, Riquelme et al. 2021).
    """
    N, k = experts.shape
    line = torch.arange(N, device=experts.device)
    if priority is not None:
        line = priority.argsort(descending=True, stable=True)
    queue = experts[line].mT.flatten()  # (k * N,) in the order of service
    by_expert = queue.argsort(stable=True)
    before = (queue.unsqueeze(1) < torch.arange(n_experts, device=experts.device)).sum(0)  # (E,) first place of each
    place = torch.arange(N * k, device=experts.device) - before[queue[by_expert].clamp(min=0)]
    kept = torch.empty_like(queue, dtype=torch.bool).scatter(0, by_expert, place < capacity) & (queue >= 0)
    kept = kept.view(k, N).mT
    return torch.empty_like(kept).index_copy(0, line, kept)


def load_balancing_loss(probs: Tensor, experts: Tensor, n_experts: int) -> Tensor:
    """E * sum_i f_i P_i: f_i the share of tokens with expert i among their k, P_i its mean probability (Switch, eq. 4).

    probs (N, E), experts (N, k); 1 for k = 1 and even routing, k in general.
    """
    counts = (experts.flatten().unsqueeze(1) == torch.arange(n_experts, device=experts.device)).sum(0)
    return n_experts * (counts / experts.shape[0] * probs.mean(0)).sum()


def router_z_loss(logits: Tensor) -> Tensor:
    """Mean of logsumexp(logits)^2 over tokens, which keeps router logits small (ST-MoE, Zoph et al. 2022)."""
    return logits.logsumexp(-1).square().mean()


def experts_gated(
    x: Tensor,
    weights: Tensor,
    experts: Tensor,
    w_gate: Tensor,
    w_up: Tensor,
    w_down: Tensor,
    activation: Callable[[Tensor], Tensor],
) -> Tensor:
    """sum_j weights[:, j] * W_down (activation(W_gate x) * W_up x) over each token's experts.

    x (N, d_model), weights and experts (N, k), w_gate and w_up (E, d_ff, d_model), w_down (E, d_model, d_ff) -> (N,
    d_model).
    """
    gates, ups, downs = w_gate.unbind(0), w_up.unbind(0), w_down.unbind(0)

    def expert(e: int, rows: Tensor) -> Tensor:
        return F.linear(activation(F.linear(rows, gates[e])) * F.linear(rows, ups[e]), downs[e])

    return _dispatch(x, weights, experts, len(gates), expert)


def experts_plain(
    x: Tensor,
    weights: Tensor,
    experts: Tensor,
    w_up: Tensor,
    w_down: Tensor,
    activation: Callable[[Tensor], Tensor],
    b_up: Tensor | None = None,
    b_down: Tensor | None = None,
) -> Tensor:
    """sum_j weights[:, j] * (W_down activation(W_up x + b_up) + b_down) over each token's experts.

    x (N, d_model), weights and experts (N, k), w_up (E, d_ff, d_model), w_down (E, d_model, d_ff), b_up (E, d_ff),
    b_down (E, d_model) -> (N, d_model).
    """
    ups, downs = w_up.unbind(0), w_down.unbind(0)
    up_biases = [None] * len(ups) if b_up is None else b_up.unbind(0)
    down_biases = [None] * len(ups) if b_down is None else b_down.unbind(0)

    def expert(e: int, rows: Tensor) -> Tensor:
        return F.linear(activation(F.linear(rows, ups[e], up_biases[e])), downs[e], down_biases[e])

    return _dispatch(x, weights, experts, len(ups), expert)


def _dispatch(
    x: Tensor, weights: Tensor, experts: Tensor, n_experts: int, expert: Callable[[int, Tensor], Tensor]
) -> Tensor:
    """Sort the slots by expert, run each expert on its rows, bring the rows back and add them up by weight.

    How many rows an expert gets depends on the data, which a traced graph cannot follow: see `_dispatch_dense`.
    """
    if torch.compiler.is_compiling():
        return _dispatch_dense(x, weights, experts, n_experts, expert)
    k = experts.shape[1]
    slots = experts.flatten()
    order = slots.argsort(stable=True)  # nobody's slots, -1, come first
    counts = _counts(slots, n_experts)
    rows = x[order // k].split(counts)
    done = [torch.zeros_like(rows[0])]
    done += [expert(e, rows[e + 1]) for e in range(n_experts) if counts[e + 1]]
    back = torch.empty_like(order).scatter(0, order, torch.arange(len(order), device=order.device))
    slots_out = torch.cat(done)[back].unflatten(0, experts.shape)  # (N, k, d_model)
    return (weights.to(x.dtype).unsqueeze(-1) * slots_out).sum(1)


def _counts(slots: Tensor, n_experts: int) -> list[int]:
    """Slots of nobody, then of each expert; without data (meta tensors) spread evenly over the experts."""
    if slots.is_meta:
        share, rest = divmod(len(slots), n_experts)
        return [0] + [share + (e < rest) for e in range(n_experts)]
    return torch.bincount(slots + 1, minlength=n_experts + 1).tolist()


def _dispatch_dense(
    x: Tensor, weights: Tensor, experts: Tensor, n_experts: int, expert: Callable[[int, Tensor], Tensor]
) -> Tensor:
    """The same sum with shapes that do not depend on the data: every expert sees every token, weighted by 0 mostly."""
    y = torch.zeros_like(x)
    for e in range(n_experts):
        weight = (weights * (experts == e)).sum(-1, keepdim=True).to(x.dtype)  # (N, 1)
        y = y + weight * expert(e, x)
    return y
