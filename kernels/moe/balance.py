"""What keeps the experts of a mixture evenly used: fractions of tokens, mean probabilities, the losses made of them.

    balance loss = coefficient * E * sum_i f_i P_i;    z-loss = coefficient * mean(logsumexp(logits)^2)

f_i is the fraction of tokens that chose expert i, P_i its mean probability, both over a batch or over each sequence,
whose losses are then averaged. Fractions sum to the k choices of a token, or to 1. Padding takes no part. Where several
processes share a batch, each takes the fractions of all of them: with the mean of its own gradients, as data-parallel
training takes it, that is the gradient of the loss of the whole batch, for f has none.

A router collects "load" (E,), how often each expert was chosen; "balance_fraction", f; "balance_weight", coefficient
* E * P; "z_loss", times its coefficient. With "pooled_" in place of "balance_", f and P are averaged over the layers of
a stack before they are multiplied. `router_loss` and `move_biases` read them.

Sources: Lepikhin et al. 2020 (GShard: f of first choices), Fedus et al. 2021 (Switch, eq. 4 to 6), Zoph et al. 2022
(ST-MoE: z-loss), DeepSeek-AI 2024 (V2, eq. 23 to 25, and V3, eq. 17 to 20: for each sequence, f over k), Wang et al.
2024 (a bias moved against the load); transformers takes f and P over the tokens of all layers at once.
"""

from typing import Any

import torch
from torch import Tensor, nn

from archspec.kernels.collect import n_ranks, sum_over_ranks
from archspec.kernels.contract import require, require_integers

LOAD, FRACTION, WEIGHT, Z_LOSS = "load", "fraction", "weight", "z_loss"  # what names of what is collected end in


def expert_counts(experts: Tensor, n_experts: int) -> Tensor:
    """How often the tokens of each sequence chose each expert, (B, E), from experts (B, T, k), where -1 is nobody."""
    require_integers("expert_counts", experts=experts)
    slots = experts.flatten(1)
    return slots.new_zeros(len(slots), n_experts + 1).scatter_add(1, slots + 1, torch.ones_like(slots))[:, 1:]


def expert_load(experts: Tensor, n_experts: int) -> Tensor:
    """How often each expert was chosen, (E,), from experts (B, T, k), where -1 is nobody."""
    return expert_counts(experts, n_experts).sum(0)


def balance_terms(
    probs: Tensor, experts: Tensor, mask: Tensor | None = None, *, per_sequence: bool = False, share: bool = False
) -> tuple[Tensor, Tensor]:
    """The fraction of tokens that chose each expert, and its mean probability: (E,), or (B, E) with per_sequence.

    probs (B, T, E), experts (B, T, k) with -1 for nobody, mask (B, T) true for real tokens. Fractions sum to k where
    every real token has k experts, or to 1 with share.
    """
    sizes = require("balance_terms", probs=(probs, "B T E"))
    require_integers("balance_terms", probs, experts=experts, mask=mask)
    counts = expert_counts(experts, sizes["E"]).to(probs.dtype)
    real = torch.ones_like(experts[..., 0], dtype=torch.bool) if mask is None else mask
    tokens, total = real.sum(1, keepdim=True), probs.masked_fill(~real.unsqueeze(-1), 0).sum(1)
    if not per_sequence:
        counts, tokens, total = counts.sum(0), tokens.sum(), total.sum(0)
    tokens = tokens.clamp(min=1)
    if per_sequence and mask is not None:
        # Rows of padding alone are no sequences, over which losses are averaged.
        total = total * (len(mask) / mask.any(1).sum().clamp(min=1))
    return counts / (tokens * experts.shape[-1] if share else tokens), total / tokens


def router_z_loss(logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of logsumexp(logits)^2 over real tokens, which keeps router logits small; logits (..., E), mask (...)."""
    squares = logits.logsumexp(-1).square()
    return _mean(squares) if mask is None else squares.masked_fill(~mask, 0).sum() / mask.sum().clamp(min=1)


def _mean(x: Tensor) -> Tensor:
    """The mean of all; 0 where there is nothing, so that a batch without tokens has a loss of 0."""
    return x.sum() / max(x.numel(), 1)


def router_loss(aux: dict[str, Tensor], group: Any = None) -> Tensor:
    """The sum of the losses of all routers, from what one forward pass collected.

    group: the processes that share the batch; all of them must call this. Raises TypeError for what is no dict,
    ValueError where aux is empty.
    """
    if not isinstance(aux, dict):
        raise TypeError(f"aux: expected the dict that the model was given, found a {type(aux).__name__}")
    if not aux:
        raise ValueError("aux is empty: call the model with aux={} in training, and give that dict")
    losses = [value for name, value in aux.items() if name.endswith(Z_LOSS)]
    fractions = _of_whole_batches({n: value for n, value in aux.items() if n.endswith(FRACTION)}, group)
    together: dict[str, list[str]] = {}
    for name, fraction in fractions.items():
        stack = f"{name.partition('blocks.')[0]} {tuple(fraction.shape)}"
        together.setdefault(stack if name.endswith(f"pooled_{FRACTION}") else name, []).append(name)
    for names in together.values():
        fraction = torch.stack([fractions[name] for name in names]).mean(0)
        weight = torch.stack([aux[name.removesuffix(FRACTION) + WEIGHT] for name in names]).mean(0)
        losses.append(_mean((fraction * weight).sum(-1)))
    return torch.stack(losses).sum()


def _of_whole_batches(fractions: dict[str, Tensor], group: Any) -> dict[str, Tensor]:
    """Fractions averaged over the processes; those of sequences (B, E) as they are."""
    shared = [name for name, fraction in fractions.items() if fraction.dim() == 1]
    sums = sum_over_ranks([fractions[name] for name in shared], group)
    return fractions | {name: total / n_ranks(group) for name, total in zip(shared, sums, strict=True)}


def move_biases(model: nn.Module, collected: tuple[dict[str, Tensor], ...], group: Any = None) -> None:
    """Move the correction bias of every router of a model against its load over some forward passes.

    Loads are added over the places in which a router stands, the passes, and the processes of the group, all of which
    must call this and then have the same biases. Raises ValueError where nothing was collected.
    """
    loads: dict[nn.Module, Tensor] = {}
    for aux in collected:
        for name, load in aux.items():
            router = model.get_submodule(name.rpartition(".")[0])
            if name.endswith(f".{LOAD}") and hasattr(router, "correction_bias"):
                loads[router] = loads[router] + load if router in loads else load
    if not loads:
        raise ValueError("no load was collected: give update_bias the aux of each forward pass since the last update")
    for router, load in zip(loads, sum_over_ranks(list(loads.values()), group), strict=True):
        router.update_bias(load)  # type: ignore[operator]
