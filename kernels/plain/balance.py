"""What keeps the experts of a mixture evenly used: fractions of tokens, mean probabilities, the losses made of them."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


def expert_load(experts: Tensor, n_experts: int) -> Tensor:
    """How often each expert was chosen, (E,), from experts (B, T, k), where -1 is nobody."""
    return (experts.unsqueeze(-1) == torch.arange(n_experts, device=experts.device)).sum((0, 1, 2))


def balance_terms(
    probs: Tensor, experts: Tensor, mask: Tensor | None = None, *, per_sequence: bool = False, share: bool = False
) -> tuple[Tensor, Tensor]:
    """The fraction of tokens that chose each expert, and its mean probability, from probs (B, T, E)."""
    if share:
        # Fractions sum to 1 and not to the number of choices.
        chosen = (experts.unsqueeze(-1) == torch.arange(probs.shape[-1], device=probs.device)).to(probs.dtype).mean(2)
    else:
        chosen = (experts.unsqueeze(-1) == torch.arange(probs.shape[-1], device=probs.device)).sum(2).to(probs.dtype)
    if mask is None:
        return (chosen.mean(1), probs.mean(1)) if per_sequence else (chosen.mean((0, 1)), probs.mean((0, 1)))
    # Padding takes no part, and has chosen nobody.
    dims = (1,) if per_sequence else (0, 1)
    n = mask.sum(dims).clamp(min=1).unsqueeze(-1)
    total = probs.masked_fill(~mask.unsqueeze(-1), 0).sum(dims)
    if per_sequence:
        # Rows of padding alone are no sequences, over which losses are averaged.
        total = total * (len(mask) / mask.any(1).sum().clamp(min=1))
    return chosen.sum(dims) / n, total / n


def router_z_loss(logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of logsumexp(logits)^2 over the real tokens, which keeps router logits small (ST-MoE, Zoph et al. 2022)."""
    squares = logits.logsumexp(-1).square()
    return squares.mean() if mask is None else squares.masked_fill(~mask, 0).sum() / mask.sum().clamp(min=1)


def entries(aux: dict[str, Any], path: str = "") -> Iterator[tuple[str, Tensor]]:
    """What the layers of a pass have put into its aux, by names such as "blocks.0.ffn.load"."""
    for name, value in aux.items():
        if isinstance(value, dict):
            yield from entries(value, f"{path}{name}.")
        else:
            yield path + name, value


def sum_of_losses(model: nn.Module, aux: dict[str, Any]) -> Tensor:
    """The sum of the routers' losses in a forward pass that was given `aux`."""
    return torch.stack([value for name, value in entries(aux) if name.endswith("loss")]).sum()


def pooled_loss(model: nn.Module, aux: dict[str, Any]) -> Tensor:
    """The routers' loss in a forward pass that was given `aux`: averages over the layers, multiplied."""
    fraction = torch.stack([value for name, value in entries(aux) if name.endswith("fraction")]).mean(0)
    weight = torch.stack([value for name, value in entries(aux) if name.endswith("weight")]).mean(0)
    return (fraction * weight).sum(-1).mean()


def mixed_losses(model: nn.Module, aux: dict[str, Any]) -> Tensor:
    """The sum of the routers' losses in a forward pass that was given `aux`."""
    found = dict(entries(aux))
    losses = [value for name, value in found.items() if name.endswith("loss")]
    pools: dict[Any, list[str]] = {}
    for name in (name.removesuffix("fraction") for name in found if name.endswith("fraction")):
        # What layers of a stack have together is averaged before it is multiplied.
        pools.setdefault((name.partition("blocks.")[0], found[name + "fraction"].shape), []).append(name)
    for names in pools.values():
        fraction = torch.stack([found[name + "fraction"] for name in names]).mean(0)
        weight = torch.stack([found[name + "weight"] for name in names]).mean(0)
        losses.append((fraction * weight).sum(-1).mean())
    return torch.stack(losses).sum()


def update_biases(model: nn.Module, *collected: dict[str, Any]) -> None:
    """After a step of training: move each router's bias against its load in the `aux` of its forward passes."""
    # Each process counts its own tokens: where several share a batch, all-reduce the loads first.
    for router in [module for module in model.modules() if hasattr(module, "correction_bias")]:
        loads = [
            load
            for name, load in (entry for aux in collected for entry in entries(aux))
            if name.endswith(".load") and model.get_submodule(name.removesuffix(".load")) is router
        ]
        router.update_bias(torch.stack(loads).sum(0))
