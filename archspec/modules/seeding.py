"""Weights drawn by name: the numbers of each tensor follow from a seed and the tensor's name, and from nothing else.

So a model starts the same whichever order its tensors are drawn in, on whatever device they live and however they are
divided among processes: each draws whole tensors, one at a time, and keeps its share.
"""

from collections.abc import Callable
from contextlib import nullcontext
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from archspec.modules.model import Model

WRAPPERS = ("_orig_mod.", "_checkpoint_wrapped_module.")  # what torch.compile and checkpointing put into names


def init_weights(model: nn.Module, *, seed: int | None = None) -> None:
    """Start the weights of a model anew, as its spec says; what it was made without (`to_empty`) gets its numbers.

    Args:
        model: of `build`, or of a written file; FSDP's `fully_shard` may have divided it.
        seed: with it each tensor's numbers depend on the seed and its full name alone. They are drawn on the CPU in
            float32. Without it they come from PyTorch's generator (`torch.manual_seed`), one tensor after the other.

    Raises:
        TypeError: the model is not of archspec.
    """
    start = _start_of(model)
    with nullcontext() if seed is None else _ByName(model, seed):
        start(model)


def _start_of(model: nn.Module) -> Callable[[nn.Module], None]:
    """The function that starts the weights in the file of a model."""
    if isinstance(model, Model):
        return Model._init_weights  # type: ignore[return-value]
    for cls in type(model).__mro__:  # FSDP derives a class of its own
        found = getattr(vars(cls).get("__init__"), "__globals__", {}).get("init_weights")
        if cls.__name__ == "Model" and found is not None:
            return found
    raise TypeError(f"a {type(model).__name__} is no model of archspec; give what archspec.build made, unwrapped")


class _ByName(TorchDispatchMode):
    """Whatever is drawn for a parameter while this is active comes from a generator of its own.

    Drawing into it starts that generator; what is drawn elsewhere, to replace some of its numbers, goes on with it.
    """

    def __init__(self, model: nn.Module, seed: int):
        super().__init__()
        self.seed = seed
        self.names = {id(p): name for name, p in model.named_parameters()}
        self.generator = torch.Generator()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded in func.tags:
            target = args[0]
            drawn = torch.empty(target.shape, dtype=torch.float32, device="cpu")
            self.start(target)
            func(drawn, *args[1:], **{**kwargs, "generator": self.generator})
            return _filled(target, drawn)
        if func is torch.ops.aten.copy_.default and _is_divided(args[0]) and not _is_divided(args[1]):
            return _filled(args[0], args[1].expand(args[0].shape))
        return func(*args, **kwargs)

    def start(self, target: Tensor) -> None:
        """Start the generator of the target, if it is a parameter."""
        name = self.names.get(id(target))
        if name is not None:
            for wrapper in WRAPPERS:
                name = name.replace(wrapper, "")
            digest = sha256(f"{self.seed} {name}".encode()).digest()
            self.generator.manual_seed(int.from_bytes(digest[:8], "little"))


def _filled(target: Tensor, numbers: Tensor) -> Tensor:
    """The target with these numbers; where it is divided, with its share of them."""
    if _is_divided(target):
        from torch.distributed.tensor import distribute_tensor

        whole = numbers.to(target.device, target.dtype)
        numbers = distribute_tensor(whole, target.device_mesh, target.placements, src_data_rank=None)  # type: ignore[attr-defined]
    return target.copy_(numbers)


def _is_divided(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor."""
    return hasattr(tensor, "placements")
