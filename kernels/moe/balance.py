"""What keeps the experts of a mixture evenly used: fractions of tokens, mean probabilities, the losses made of them.

    balance loss = coefficient * E * sum_i f_i P_i;    z-loss = coefficient * mean(logsumexp(logits)^2)

f_i is the fraction of tokens that chose expert i, P_i its mean probability, both over a batch or over each sequence,
whose losses are then averaged. Fractions sum to the k choices of a token, or to 1. Padding takes no part. Where several
processes share a batch, each takes the fractions of all of them: with the mean of its own gradients, as data-parallel
training takes it, that is the gradient of the loss of the whole batch, for f has none.

A router collects "load" (E,), how often each expert was chosen; "balance_fraction", f; "balance_weight", coefficient
* E * P; "z_loss", times its coefficient. `router_loss` and `move_biases` read them.

Sources: Lepikhin et al. 2020 (GShard: f of first choices), Fedus et al. 2021 (Switch, eq. 4 to 6), Zoph et al. 2022
(ST-MoE: z-loss), DeepSeek-AI 2024 (V2, eq. 23 to 25, and V3, eq. 17 to 20: for each sequence, f over k), Wang et al.
2024 (a bias moved against the load); transformers takes f and P over the tokens of all layers at once.
"""

from typing import Any

import torch
from torch import Tensor, nn

from archspec.kernels.collect import Collected, n_ranks, sum_over_ranks
from archspec.kernels.contract import require, require_integers

LOAD, FRACTION, WEIGHT, Z_LOSS = "load", "balance_fraction", "balance_weight", "z_loss"


def expert_counts(experts: Tensor, n_experts: int) -> Tensor:
    """How often the tokens of each sequence chose each expert, (B, E), from experts (B, T, k), where -1 is nobody."""
    require_integers("expert_counts", experts=experts)
    slots = experts.flatten(1)
    return slots.new_zeros(len(slots), n_experts + 1).scatter_add(1, slots + 1, torch.ones_like(slots))[:, 1:]


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
    return counts / (tokens * experts.shape[-1] if share else tokens), total / tokens


def router_z_loss(logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of logsumexp(logits)^2 over real tokens, which keeps router logits small; logits (..., E), mask (...)."""
    squares = logits.logsumexp(-1).square()
    return squares.mean() if mask is None else squares.masked_fill(~mask, 0).sum() / mask.sum().clamp(min=1)


def router_loss(aux: Collected, *, pooled: bool = False, group: Any = None) -> Tensor:
    """The sum of the losses of all routers, from what one forward pass collected.

    pooled: fractions and mean probabilities are averaged over the layers of a stack before they are multiplied, as in
    transformers. group: the processes that share the batch; all of them must call this. Raises ValueError where aux is
    empty.
    """
    if not aux:
        raise ValueError("aux is empty: call the model with aux={} in training, and give that dict")
    routers = [name.removesuffix(FRACTION) for name in aux if name.endswith(FRACTION)]
    fractions = _of_all_ranks({path: aux[path + FRACTION] for path in routers}, group)
    groups: dict[str, list[str]] = {}
    for path in routers:
        stack = f"{path.partition('blocks.')[0]}{tuple(fractions[path].shape)}"
        groups.setdefault(stack if pooled else path, []).append(path)
    losses = [value for name, value in aux.items() if name.endswith(Z_LOSS)]
    for paths in groups.values():
        fraction = torch.stack([fractions[path] for path in paths]).mean(0)
        weight = torch.stack([aux[path + WEIGHT] for path in paths]).mean(0)
        losses.append((fraction * weight).sum(-1).mean())
    return torch.stack(losses).sum()


def _of_all_ranks(fractions: Collected, group: Any) -> Collected:
    """Those of whole batches averaged over ranks; those of sequences as they are."""
    shared = [path for path, fraction in fractions.items() if fraction.dim() == 1]
    sums = sum_over_ranks([fractions[path] for path in shared], group)
    return fractions | {path: total / n_ranks(group) for path, total in zip(shared, sums, strict=True)}


def move_biases(model: nn.Module, collected: tuple[Collected, ...], group: Any = None) -> None:
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
