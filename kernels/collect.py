"""What a forward pass collects beside its output: losses and counts of its layers, in a dict that the caller gives it.

    aux = {}
    loss = criterion(model(tokens, aux=aux), targets) + model.aux_loss(aux)

The model is a pure function: nothing stays on a module. The dict is empty before and is filled with tensors by name
("blocks.3.ffn.z_loss"). Each call of a layer is given a `Scope`, made by its caller: a layer that stands in several
places has a scope in each, and a checkpoint that calls a region again calls it with the same one.

Recomputation, inside a backward pass, records nothing. Where the first pass kept the graph of a value, that is what the
loss reads. A reentrant checkpoint runs its first pass without gradients: there a leaf stands for the value, receives
the gradient of the loss (the graph of the loss is younger than the checkpoint, so it comes first), and hands it to the
value when that is computed again, through the output of the layer: gradients are those without checkpoints.

A wrapper that copies the arguments of the model (FSDP with `cast_forward_inputs`) leaves the caller's dict empty, which
`router_loss` refuses: wrap a module whose forward makes the dict, calls the model and returns the loss.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class Scope:
    """Where a layer records: the dict of the whole pass, and what the names of the layer start with.

    It is no collection, so that wrappers which look for tensors in arguments hand it on as it is.
    """

    def __init__(self, found: dict[str, Tensor], prefix: str = ""):
        self.found, self.prefix = found, prefix

    def __setitem__(self, name: str, value: Tensor) -> None:
        """Collect a value that has no gradient, such as a count."""
        if not recomputing():
            self.found[self.prefix + name] = value.detach()


def collect(aux: dict[str, Tensor] | None) -> Scope | None:
    """The scope of a whole model, at the start of its forward; None collects nothing.

    Raises TypeError for what is no dict, ValueError for one that is not empty, unless this call computes an earlier one
    again.
    """
    if aux is not None and not isinstance(aux, dict):
        raise TypeError(f"aux: expected an empty dict, found a {type(aux).__name__}")
    if aux and not recomputing():
        raise ValueError(f"aux holds {len(aux)} tensors of an earlier forward pass; give each pass an empty dict")
    return None if aux is None else Scope(aux)


def scope(aux: Scope | None, key: str) -> Scope | None:
    """The scope of a call of the layer at `key`; None stays None."""
    return None if aux is None else Scope(aux.found, f"{aux.prefix}{key}.")


def record(aux: Scope, name: str, value: Tensor, y: Tensor) -> Tensor:
    """Collect a value that a loss reads; gives y, an output of the layer to go on with.

    Raises RuntimeError in a recomputation whose first pass could not stand in for the value: compiled code without
    gradients, in a reentrant checkpoint.
    """
    found, key = aux.found, aux.prefix + name
    first = found.get(key)
    if first is not None and value.requires_grad and not first.requires_grad:
        raise RuntimeError(f"{key} was collected without a gradient; use use_reentrant=False around compiled code")
    if not recomputing():
        found[key] = value if torch.is_grad_enabled() else _stand_in(value)
        return y
    if first is None or first.grad_fn is not None or not value.requires_grad:
        return y
    return _Deliver.apply(y, value, found, key)  # type: ignore[no-untyped-call]


def recomputing() -> bool:
    """Whether a backward pass is under way, and so what runs is a checkpoint that computes its region again."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def _stand_in(value: Tensor) -> Tensor:
    """A leaf in place of a value that is computed without gradients."""
    if torch.compiler.is_compiling() or torch.is_inference_mode_enabled():
        return value
    return value.detach().requires_grad_()


class _Deliver(torch.autograd.Function):
    """y as it is; in the backward pass a value gets the gradient that its stand-in has received."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, value: Tensor, found: dict[str, Tensor], key: str) -> Tensor:
        ctx.stand_in = found[key]
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        received, ctx.stand_in.grad = ctx.stand_in.grad, None
        return dy, received, None, None


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
