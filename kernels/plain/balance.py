"""What keeps the experts of a mixture evenly used: fractions of tokens, mean probabilities, the losses made of them."""

from typing import Any

import torch
from torch import Tensor, nn

from archspec.kernels.plain.collect import Collected, n_ranks, sum_over_ranks


def expert_counts(experts: Tensor, n_experts: int) -> Tensor:
    """How often the tokens of each sequence chose each expert, (B, E), from experts (B, T, k), where -1 is nobody."""
    return (experts.flatten(1).unsqueeze(-1) == torch.arange(n_experts, device=experts.device)).sum(1)


def balance_terms(
    probs: Tensor, experts: Tensor, mask: Tensor | None = None, *, per_sequence: bool = False, share: bool = False
) -> tuple[Tensor, Tensor]:
    """The fraction of tokens that chose each expert, and its mean probability, from probs (B, T, E)."""
    counts = expert_counts(experts, probs.shape[-1]).to(probs.dtype)  # (B, E)
    if mask is None:
        real = torch.ones_like(probs[..., 0], dtype=torch.bool)
    else:
        # Padding takes no part.
        real = mask
    tokens, total = real.sum(1, keepdim=True), probs.masked_fill(~real.unsqueeze(-1), 0).sum(1)
    if not per_sequence:
        counts, tokens, total = counts.sum(0), tokens.sum(), total.sum(0)
    tokens = tokens.clamp(min=1)
    if share:
        # Fractions sum to 1 and not to the number of choices.
        counts = counts / experts.shape[-1]
    return counts / tokens, total / tokens


def router_z_loss(logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of logsumexp(logits)^2 over the real tokens, which keeps router logits small (ST-MoE, Zoph et al. 2022)."""
    squares = logits.logsumexp(-1).square()
    return squares.mean() if mask is None else squares.masked_fill(~mask, 0).sum() / mask.sum().clamp(min=1)


def router_loss(aux: Collected, *, pooled: bool = False, group: Any = None) -> Tensor:
    """The sum of the losses of all routers, from what one forward pass collected."""
    if not aux:
        raise ValueError("aux is empty: call the model with aux={} in training, and give that dict")
    losses = [value for name, value in aux.items() if name.endswith("z_loss")]
    terms: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for name, fraction in aux.items():
        path = name.removesuffix("balance_fraction")
        if path == name:
            continue
        if fraction.dim() == 1:
            # One batch is shared by all processes.
            fraction = sum_over_ranks([fraction], group)[0] / n_ranks(group)
        if pooled:
            # Fractions and probabilities are averaged over the layers of a stack before they are multiplied.
            together = f"{path.partition('blocks.')[0]}{tuple(fraction.shape)}"
        else:
            together = path
        terms.setdefault(together, []).append((fraction, aux[f"{path}balance_weight"]))
    for pairs in terms.values():
        fractions, weights = (torch.stack(values).mean(0) for values in zip(*pairs, strict=True))
        losses.append((fractions * weights).sum(-1).mean())
    return torch.stack(losses).sum()


def move_biases(model: nn.Module, collected: tuple[Collected, ...], group: Any = None) -> None:
    """Move the correction bias of every router against its load over some forward passes and all processes."""
    loads: dict[nn.Module, Tensor] = {}
    for aux in collected:
        for name, load in aux.items():
            router = model.get_submodule(name.rpartition(".")[0])
            if name.endswith(".load") and hasattr(router, "correction_bias"):
                loads[router] = loads[router] + load if router in loads else load
    if not loads:
        raise ValueError("no load was collected: give update_bias the aux of each forward pass since the last update")
    for router, load in zip(loads, sum_over_ranks(list(loads.values()), group), strict=True):
        router.update_bias(load)
