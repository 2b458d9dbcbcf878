"""What a forward pass collects beside its output: losses and counts, in a dict that the caller gives it."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class Scope:
    """Where a layer records: the dict of the whole pass, and what the names of the layer start with."""

    def __init__(self, found: dict[str, Tensor], prefix: str = ""):
        self.found, self.prefix = found, prefix


def collect(aux: dict[str, Tensor] | None) -> Scope | None:
    """The scope of a whole model; None collects nothing."""
    if aux and not recomputing():
        raise ValueError(f"aux holds {len(aux)} tensors of an earlier forward pass; give each pass an empty dict")
    return None if aux is None else Scope(aux)


def scope(aux: Scope | None, key: str) -> Scope | None:
    """The scope of a call of the layer at `key`; None stays None."""
    return None if aux is None else Scope(aux.found, f"{aux.prefix}{key}.")


def note(aux: Scope, name: str, value: Tensor) -> None:
    """Collect a value that has no gradient, such as a count."""
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
        # What the leaf has received goes to the value, which y makes part of its backward pass.
        value.register_hook(lambda zero: received(found[key], zero))
        y = y + 0 * value.sum()
    return y


def received(leaf: Tensor, zero: Tensor) -> Tensor:
    """The gradient of a leaf, taken from it; zero where it has none."""
    grad, leaf.grad = leaf.grad, None
    return zero if grad is None else grad


def recomputing() -> bool:
    """Whether a backward pass is under way, and so what runs is a checkpoint that computes its region again."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def n_ranks(group: Any = None) -> int:
    """How many processes share a batch; 1 where no process group is initialised."""
    return dist.get_world_size(group) if dist.is_available() and dist.is_initialized() else 1


def sum_over_ranks(values: list[Tensor], group: Any = None) -> list[Tensor]:
    """Tensors summed over the processes that share a batch."""
    if n_ranks(group) > 1:
        values = [value.clone() for value in values]
        for value in values:
            dist.all_reduce(value, group=group)
    return values
