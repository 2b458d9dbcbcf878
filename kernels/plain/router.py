"""Routers of a mixture of experts: which experts a token runs, with which weights, and who finds room."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.plain.precision import wide
from archspec.kernels.plain.state import State


def router_logits(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight^T + bias in float32: logits differ by less than 16 bits can tell."""
    if bias is None:
        return F.linear(wide(x), wide(weight))
    return F.linear(wide(x), wide(weight), wide(bias))


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
    group_score: str | None = "max",
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """The weights and numbers (..., k) of the k experts of each token, from logits (..., E)."""
    if order == "top_k_then_score":
        values = wide(logits)
    else:
        values = score_of(wide(logits), score)
    if n_groups is not None and top_k_groups is not None and top_k_groups < n_groups:
        choice = limit_groups(values if bias is None else values + bias, n_groups, top_k_groups, group_score)
        experts = choice.topk(k, dim=-1).indices
        weights = values.gather(-1, experts)
    elif bias is not None:
        # It takes part in the choice alone (DeepSeek-V3).
        experts = (values + bias).topk(k, dim=-1).indices
        weights = values.gather(-1, experts)
    else:
        weights, experts = values.topk(k, dim=-1)
    if order == "top_k_then_score":
        weights = score_of(weights, score)
    if renormalise:
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
    if scale != 1.0:
        weights = weights * scale
    return weights, experts


def score_of(logits: Tensor, score: str) -> Tensor:
    """Softmax or sigmoid over the last axis."""
    return logits.softmax(-1) if score == "softmax" else logits.sigmoid()


def limit_groups(choice: Tensor, n_groups: int, top_k_groups: int, group_score: str | None) -> Tensor:
    """choice (..., E) with -inf outside the best top_k_groups groups of E / n_groups neighbouring experts."""
    grouped = choice.unflatten(-1, (n_groups, -1))  # (..., n_groups, E / n_groups)
    if group_score == "max":
        quality = grouped.amax(-1)
    else:
        quality = grouped.topk(2, dim=-1).values.sum(-1)
    best = quality.topk(top_k_groups, dim=-1).indices
    closed = torch.ones_like(quality, dtype=torch.bool).scatter(-1, best, False)
    return grouped.masked_fill(closed.unsqueeze(-1), -torch.inf).flatten(-2)


def tokens_by_expert(
    scores: Tensor,
    n_places: int,
    *,
    by: Tensor | None = None,
    mask: Tensor | None = None,
    taken: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Expert choice: the n_places tokens of a sequence that each expert scores highest, scores being (B, T, E).

    With N = B * E * n_places: their weights (N, 1), the experts (N, 1), and the tokens (N,) counted over B * T.
    """
    B, T, E = scores.shape
    by = scores if by is None else by
    if mask is not None:
        # No expert chooses padding before a real token.
        by = by.masked_fill(~mask.unsqueeze(-1), -torch.inf)
    tokens = by.mT.topk(n_places).indices  # (B, E, n_places)
    weights = scores.mT.gather(-1, tokens)
    experts = torch.arange(E, device=scores.device).view(1, -1, 1).expand_as(tokens)
    if taken is not None:
        # A shorter sequence fills fewer places, (B, 1, 1).
        experts = experts.where(torch.arange(n_places, device=scores.device) < taken, -1)
    tokens = tokens + T * torch.arange(B, device=scores.device).view(-1, 1, 1)
    return weights.reshape(-1, 1), experts.reshape(-1, 1), tokens.flatten()


def places(tokens: float) -> int:
    """How many places an expert has for that many tokens: rounded up, but not for an error of rounding; 0 for none."""
    return max(int(tokens > 0), math.ceil(tokens - 1e-6))


def places_by_length(mask: Tensor, share: float) -> Tensor:
    """`places` of share * n for the n real tokens of each sequence: (B, 1, 1) from mask (B, T); 0 where n is 0."""
    n = mask.sum(1).view(-1, 1, 1)
    return torch.minimum((n.double() * share - 1e-6).ceil().long().clamp(min=1), n)


def admitted(
    experts: Tensor,
    n_experts: int,
    capacity: int | Tensor,
    state: State | None = None,
    *,
    priority: Tensor | None = None,
    first_choices: bool = False,
) -> Tensor:
    """experts (B, T, k) with -1 where the places of that expert in the sequence, int or (B, 1, 1), went to others."""
    if priority is not None:
        # Tokens of higher priority (B, T) go first.
        turn = priority.argsort(dim=1, descending=True, stable=True).unsqueeze(-1).expand_as(experts)
        line = experts.gather(1, turn)
        if first_choices:
            place = queue(line.mT, n_experts, state).mT
        else:
            place = queue(line, n_experts, state)
        place = place.scatter(1, turn, place)
    elif first_choices:
        # The first choices of all tokens go before second choices.
        place = queue(experts.mT, n_experts, state).mT
    else:
        place = queue(experts, n_experts, state)
    return experts.where(place < capacity, -1)


def queue(experts: Tensor, n_experts: int, state: State | None) -> Tensor:
    """How many earlier entries of the same sequence ask for the same expert; the state counts them over calls."""
    asked = (experts.flatten(1).unsqueeze(-1) == torch.arange(n_experts, device=experts.device)).long()  # (B, T k, E)
    before = asked.cumsum(1) - asked
    if state is not None:
        before = before + state.get("asked", 0)
        state["asked"] = state.get("asked", 0) + asked.sum(1, keepdim=True)
    return before.gather(-1, experts.flatten(1).clamp(min=0).unsqueeze(-1)).view(experts.shape)
