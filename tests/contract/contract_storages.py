"""What autograd keeps between the forward and the backward pass, measured: the bytes of all storages that are alive."""

import gc
import weakref
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn


class _Held:
    """A tensor as autograd holds it: what is freed before the backward pass takes this with it."""

    def __init__(self, tensor: Tensor, module: str):
        self.tensor, self.module = tensor.detach(), module


class SavedBytes(AbstractContextManager["SavedBytes"]):
    """Around a forward pass: bytes of each distinct storage that is kept, but of weights and of `given`.

    Two tensors that share a storage count once, with all of it. `log` has module, shape, type and bytes of each.
    """

    def __init__(self, model: nn.Module, given: Iterable[Tensor] = ()):
        known = [t.untyped_storage() for t in (*model.parameters(), *model.buffers(), *given)]
        self.known = {storage._cdata: storage for storage in known}
        self.held: weakref.WeakSet[_Held] = weakref.WeakSet()
        self.modules: list[str] = []
        self.hooks: list[Any] = []
        for name, module in model.named_modules():
            self.hooks.append(module.register_forward_pre_hook(lambda *_, name=name: self.modules.append(name)))
            self.hooks.append(module.register_forward_hook(self._left))

    def _left(self, *_: object) -> None:
        self.modules.pop()

    def _pack(self, tensor: Tensor) -> _Held:
        held = _Held(tensor, self.modules[-1] if self.modules else "")
        self.held.add(held)
        return held

    def __enter__(self) -> "SavedBytes":
        self.context = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda held: held.tensor)
        gc.freeze()  # what is alive by now is not looked at again: in a long run that takes seconds
        self.context.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.context.__exit__(*error)
        for hook in self.hooks:
            hook.remove()
        gc.collect()
        gc.unfreeze()
        found: dict[int, tuple[str, tuple[int, ...], torch.dtype, int]] = {}
        for held in self.held:
            storage, t = held.tensor.untyped_storage(), held.tensor
            if storage._cdata not in self.known:
                found.setdefault(storage._cdata, (held.module, tuple(t.shape), t.dtype, storage.nbytes()))
        self.log = sorted(found.values(), key=str)

    @property
    def total(self) -> int:
        """All of it."""
        return sum(size for *_, size in self.log)
