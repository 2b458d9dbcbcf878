"""What keeps the experts of a mixture evenly used: fractions of tokens, mean probabilities, the losses made of them."""

from typing import Any

import torch
from torch import Tensor, nn

from archspec.kernels.plain.collect import n_ranks, sum_over_ranks


def expert_load(experts: Tensor, n_experts: int) -> Tensor:
    """How often each expert was chosen, (E,), from experts (B, T, k), where -1 is nobody."""
    return (experts.unsqueeze(-1) == torch.arange(n_experts, device=experts.device)).sum((0, 1, 2))


def balance_terms(
    probs: Tensor, experts: Tensor, mask: Tensor | None = None, *, per_sequence: bool = False, share: bool = False
) -> tuple[Tensor, Tensor]:
    """The fraction of tokens that chose each expert, and its mean probability, from probs (B, T, E)."""
    chosen = (experts.unsqueeze(-1) == torch.arange(probs.shape[-1], device=probs.device)).sum(2).to(probs.dtype)
    if share:
        # Fractions sum to 1 and not to the number of choices.
        chosen = chosen / experts.shape[-1]
    dims = (1,) if per_sequence else (0, 1)
    if mask is None:
        return chosen.mean(dims), probs.mean(dims)
    # Padding takes no part, and has chosen nobody.
    n = mask.sum(dims).clamp(min=1).unsqueeze(-1)
    return chosen.sum(dims) / n, probs.masked_fill(~mask.unsqueeze(-1), 0).sum(dims) / n


def router_z_loss(logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of logsumexp(logits)^2 over the real tokens, which keeps router logits small (ST-MoE, Zoph et al. 2022)."""
    squares = logits.logsumexp(-1).square()
    return squares.mean() if mask is None else squares.masked_fill(~mask, 0).sum() / mask.sum().clamp(min=1)


def router_loss(aux: dict[str, Tensor], group: Any = None) -> Tensor:
    """The sum of the losses of all routers, from what one forward pass collected."""
    if not aux:
        raise ValueError("aux is empty: call the model with aux={} in training, and give that dict")
    losses = [value for name, value in aux.items() if name.endswith("z_loss")]
    terms: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for name in (name for name in aux if name.endswith("_weight")):
        fraction = aux[f"{name.removesuffix('weight')}fraction"]
        if fraction.dim() == 1:
            # All processes have one batch together.
            fraction = sum_over_ranks([fraction], group)[0] / n_ranks(group)
        # What a stack pools is averaged over its layers before it is multiplied.
        together = f"{name.partition('blocks.')[0]} {fraction.shape}" if name.endswith("pooled_weight") else name
        terms.setdefault(together, []).append((fraction, aux[name]))
    for pairs in terms.values():
        fractions, weights = (torch.stack(values).mean(0) for values in zip(*pairs, strict=True))
        losses.append((fractions * weights).sum(-1).mean())
    return torch.stack(losses).sum()


def move_biases(model: nn.Module, collected: tuple[dict[str, Tensor], ...], group: Any = None) -> None:
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
