"""Routers of a mixture of experts: which experts a token runs, with which weights, and who finds room.

    s = softmax(l) or sigmoid(l);  chosen: the k largest of s (+ bias);  w = s of the chosen (/ their sum) * scale

Logits are (..., E) over E experts. Token choice gives each token k experts, integers below E, and their weights; expert
choice gives each expert the tokens that score highest. The expert -1 means nobody. Scores are float32 or wider. All of
it is sorting and reading small tensors in PyTorch on every device, with gradients by autograd: a choice has none.

Sources: Shazeer et al. 2017 (top-k gating), Lepikhin et al. 2020 (GShard: capacity), Fedus et al. 2021 (Switch:
capacity, float32), Riquelme et al. 2021 (priority), Zhou et al. 2022 (expert choice), DeepSeek-AI 2024 (V2: groups; V3:
sigmoid, bias).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.contract import require, require_choice, require_integers
from archspec.kernels.precision import wide, wide_type
from archspec.kernels.state import State, recall


def reference_routing(
    logits: Tensor,
    k: int,
    *,
    sigmoid: bool = False,
    renormalise: bool = True,
    bias: Tensor | None = None,
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """`top_k_routing` without groups, token by token in float64; logits (N, E)."""
    weights, experts = [], []
    for row in logits.double():
        score = 1 / (1 + torch.exp(-row)) if sigmoid else torch.exp(row) / torch.exp(row).sum()
        asked = (score if bias is None else score + bias.double()).tolist()
        best = sorted(range(len(asked)), key=lambda e: -asked[e])[:k]
        chosen = score[best]
        weights.append(scale * (chosen / chosen.sum() if renormalise else chosen))
        experts.append(torch.tensor(best))
    return torch.stack(weights), torch.stack(experts)


def router_logits(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight^T + bias in float32 or wider, whatever their types are and autocast says: x (..., d_model) -> (..., E).

    Logits of experts differ by less than 16 bits can tell, and a rounded one is another choice.
    """
    require("router_logits", x=(x, "... d_model"), weight=(weight, "E d_model"), bias=(bias, "E"))
    device = "cpu" if x.is_meta else x.device.type
    with torch.autocast(device, enabled=False):
        dtype = wide_type(x)
        return F.linear(x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))


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
    """The k experts of each token and their weights, (..., k) float32 (or wider) and integers, from logits (..., E).

    score: "softmax" or "sigmoid". order: "score_then_top_k" scores all experts (Mixtral, DeepSeek),
    "top_k_then_score" scores only the chosen ones (gpt-oss). renormalise: weights of a token sum to 1. bias (E,):
    added for the choice only (DeepSeek-V3). n_groups, top_k_groups: only the experts of the best top_k_groups groups
    can be chosen; a group is as good as its best expert ("max", DeepSeek-V2) or its best two ("top2_sum",
    DeepSeek-V3). scale multiplies the weights. Raises ValueError for settings that are none of these.
    """
    sizes = require("top_k_routing", logits=(logits, "... E"), bias=(bias, "E"))
    require_choice("top_k_routing", "score", score, ("softmax", "sigmoid"))
    require_choice("top_k_routing", "order", order, ("score_then_top_k", "top_k_then_score"))
    if not 0 < k <= sizes["E"]:
        raise ValueError(f"top_k_routing: k is {k}, expected 1 to {sizes['E']}, the number of experts")
    logits = wide(logits)
    values = logits if order == "top_k_then_score" else _score(logits, score)
    choice = values if bias is None else values + bias
    if n_groups is not None and top_k_groups is not None and top_k_groups < n_groups:
        choice = _limit_groups(choice, k, n_groups, top_k_groups, group_score)
    experts = choice.topk(k, dim=-1).indices
    weights = values.gather(-1, experts)
    if order == "top_k_then_score":
        weights = _score(weights, score)
    if renormalise:
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
    if scale != 1.0:
        weights = weights * scale
    return weights, experts


def _score(logits: Tensor, score: str) -> Tensor:
    """Softmax or sigmoid over the last axis."""
    return logits.softmax(-1) if score == "softmax" else logits.sigmoid()


def _limit_groups(choice: Tensor, k: int, n_groups: int, top_k_groups: int, group_score: str | None) -> Tensor:
    """choice (..., E) with -inf outside the best top_k_groups groups of E / n_groups neighbouring experts."""
    require_choice("top_k_routing", "group_score", group_score, ("max", "top2_sum"))
    if choice.shape[-1] % n_groups:
        raise ValueError(f"top_k_routing: n_groups is {n_groups}, expected a divisor of {choice.shape[-1]} experts")
    size = choice.shape[-1] // n_groups
    if top_k_groups * size < k:
        raise ValueError(
            f"top_k_routing: k is {k}, expected at most {top_k_groups * size}, the experts of top_k_groups"
        )
    grouped = choice.unflatten(-1, (n_groups, size))  # (..., n_groups, E / n_groups)
    quality = grouped.amax(-1) if group_score == "max" else grouped.topk(min(2, size), dim=-1).values.sum(-1)
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
    by: what tokens are compared by, where that is not scores. mask (B, T): false for padding, which no expert chooses
    before a real token. taken (B, 1, 1): how many places an expert fills in each sequence; the others are nobody's, -1.
    """
    sizes = require("tokens_by_expert", scores=(scores, "B T E"), by=(by, "B T E"))
    require_integers("tokens_by_expert", scores, mask=mask, taken=taken)
    B, T, E = scores.shape
    if not min(T, 1) <= n_places <= T:
        raise ValueError(f"tokens_by_expert: n_places is {n_places}, expected 1 to {sizes['T']}, the tokens")
    by = scores if by is None else by
    by = by if mask is None else by.masked_fill(~mask.unsqueeze(-1), -torch.inf)
    tokens = by.mT.topk(n_places).indices  # (B, E, n_places)
    weights = scores.mT.gather(-1, tokens)
    experts = torch.arange(E, device=scores.device).view(1, -1, 1).expand_as(tokens)
    if taken is not None:
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
    """experts (B, T, k) with -1 where all `capacity` places of that expert in the sequence went to others.

    capacity: one number, or one for each sequence, (B, 1, 1).

    Places go in order of position (at one position to the better choices first), so that no token takes one from an
    earlier token. With first_choices, the first choices of all tokens go before second choices (GShard); with priority
    (B, T), tokens of higher priority go first. Neither is causal, so neither takes a state. With a state, tokens of
    earlier calls count: it keeps "asked", how often each expert was asked for, (B, 1, E).
    """
    require("admitted", priority=(priority, "B T"))
    require_integers("admitted", priority, experts=experts)
    if experts.dim() != 3 or (priority is not None and experts.shape[:2] != priority.shape):
        right = "3 axes (B T k)" if priority is None else f"(B T k) with B, T = {tuple(priority.shape)}"
        raise ValueError(f"admitted: experts has shape {tuple(experts.shape)}, expected {right}")
    if state is not None and (priority is not None or first_choices):
        raise ValueError("admitted: a state needs places in order of position, without priority or first_choices")
    asked = experts
    if priority is not None:
        line = priority.argsort(dim=1, descending=True, stable=True).unsqueeze(-1).expand_as(experts)
        asked = asked.gather(1, line)
    asked = asked.mT if first_choices else asked
    place = _queue(asked.flatten(1), n_experts, state)
    place = place.view_as(asked)
    place = place.mT if first_choices else place
    if priority is not None:
        place = place.scatter(1, line, place)
    return experts.where(place < capacity, -1)


def _queue(asked: Tensor, n_experts: int, state: State | None) -> Tensor:
    """How many earlier entries of the same row ask for the same expert; asked (B, L) -> (B, L)."""
    by_expert, order = asked.sort(dim=1, stable=True)
    numbers = torch.arange(n_experts + 1, device=asked.device).expand(len(asked), -1).contiguous()
    firsts = torch.searchsorted(by_expert, numbers)  # (B, E + 1)
    past = firsts[:, :-1]
    if state is not None:
        before = recall(state, "asked")
        counts = firsts.diff(dim=1).unsqueeze(1)
        state["asked"] = counts if before is None else before + counts
        past = past if before is None else past - before.squeeze(1)
    place = torch.arange(asked.shape[1], device=asked.device) - past.gather(1, by_expert.clamp(min=0))
    return place.scatter(1, order, place)
