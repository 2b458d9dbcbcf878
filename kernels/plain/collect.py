"""What a forward pass collects beside its output: losses and counts, in a dict that the caller gives it."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

Collected = dict[str, Tensor]


class Scope:
    """Where a layer records: the dict of the whole pass, and what the names of the layer start with."""

    def __init__(self, found: Collected, prefix: str = ""):
        self.found, self.prefix = found, prefix


def collect(aux: Collected | None) -> Scope | None:
    """The scope of a whole model; None collects nothing."""
    if aux and not recomputing():
        raise ValueError(f"aux holds {len(aux)} tensors of an earlier forward pass; give each pass an empty dict")
    return None if aux is None else Scope(aux)


def scope(aux: Scope | None, key: str) -> Scope | None:
    """The scope of a call of the layer at `key`; None stays None."""
    return None if aux is None else Scope(aux.found, f"{aux.prefix}{key}.")


def note(aux: Scope, name: str, value: Tensor) -> None:
    """Collect a value that has no gradient, such as a count."""
    if not recomputing():
        aux.found[aux.prefix + name] = value.detach()


def record(aux: Scope, name: str, value: Tensor, y: Tensor) -> Tensor:
    """Collect a value that a loss reads; gives y, an output of the layer to go on with."""
    found, key = aux.found, aux.prefix + name
    if key in found and value.requires_grad and not found[key].requires_grad:
        raise RuntimeError(f"{key} was collected without a gradient; use use_reentrant=False around compiled code")
    if not recomputing():
        # The first pass of a reentrant checkpoint has no graph: a leaf stands in for the value.
        stands_in = not torch.is_grad_enabled() and not torch.compiler.is_compiling()
        found[key] = value.detach().requires_grad_() if stands_in else value
    elif value.requires_grad and key in found and found[key].is_leaf:
        return Deliver.apply(y, value, found[key])
    return y


def recomputing() -> bool:
    """Whether a backward pass is under way, and so what runs is a checkpoint that computes its region again."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


class Deliver(torch.autograd.Function):
    """y as it is; in the backward pass a value gets the gradient that its stand-in has received."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, value: Tensor, stand_in: Tensor) -> Tensor:
        """Only the backward pass is another."""
        ctx.stand_in = stand_in
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of y and the value."""
        received, ctx.stand_in.grad = ctx.stand_in.grad, None
        return dy, received, None


def n_ranks(group: Any = None) -> int:
    """How many processes share a batch; 1 where no process group is initialised."""
    return dist.get_world_size(group) if dist.is_available() and dist.is_initialized() else 1


def sum_over_ranks(values: list[Tensor], group: Any = None) -> list[Tensor]:
    """Tensors of one type, summed over the processes that share a batch in one call."""
    if not values or n_ranks(group) == 1:
        return values
    whole = torch.cat([value.flatten() for value in values])
    dist.all_reduce(whole, group=group)
    parts = whole.split([value.numel() for value in values])
    return [part.view_as(value) for part, value in zip(parts, values, strict=True)]
