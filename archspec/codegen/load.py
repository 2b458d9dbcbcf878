"""A generated file as a living model: what runs is the text that one reads.

Its classes can be found by name only in the process that loaded the text. So an object of them is pickled with the text
(once for all of its sub-modules), from which another process loads it again.
"""

import linecache
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, SupportsIndex

import torch
from torch import nn

from archspec.codegen.generate import generate
from archspec.decoding.layout import SPEC
from archspec.language.model import Spec, need_spec
from archspec.layers.arguments import INPUTS
from archspec.modules.seeding import init_weights

PACKAGE = "archspec_generated"


def build(
    spec: Spec, *, device: str | torch.device | None = None, init: bool = True, seed: int | None = None
) -> nn.Module:
    """The model of a spec, made from the generated text; it takes masks, positions and documents as far as it can.

    Args:
        spec: a resolved spec.
        device: where its tensors live; "meta" makes shapes alone, for models too big to hold. Give them storage with
            `to_empty` and then numbers with `load_state_dict` or `archspec.init_weights`, or both at once with
            `load_state_dict(assign=True)`.
        init: whether to draw weights, which takes minutes for billions of them; without, their numbers are arbitrary
            until `load_state_dict` gives them some.
        seed: draws each tensor from the seed and its name alone (`archspec.init_weights`). Without it, weights come
            from PyTorch's generator, as `torch.manual_seed` leaves it.

    Returns:
        A module, which knows its spec and may be copied, pickled and saved whole; a traceback through it shows the
        lines of the generated file.
    """
    need_spec(spec)
    if seed is not None and not init:
        raise ValueError("a seed draws weights, and init=False does not; leave one out")
    taking = spec.taking(*INPUTS)
    module = load_text(generate(taking), f"{spec.name}_{spec.digest}")
    wanted = torch.get_default_device() if device is None else torch.device(device)
    with torch.device(wanted if init and seed is None else "meta"):
        model: nn.Module = module.Model()
    if wanted.type != "meta" and (seed is not None or not init):
        model.to_empty(device=wanted)
    if seed is not None:
        init_weights(model, seed=seed)
    model.__dict__[SPEC] = taking
    return model


def load_text(text: str, name: str) -> ModuleType:
    """A module from the text of a generated file."""
    filename = f"<archspec {name}>"
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    module = ModuleType(_module_name(name))
    module.__file__ = filename
    if PACKAGE not in sys.modules:
        sys.modules[PACKAGE] = ModuleType(PACKAGE, "What was generated in this process.")
        sys.modules[PACKAGE].__path__ = []
    sys.modules[module.__name__] = module
    exec(compile(text, filename, "exec"), module.__dict__)
    for value in [*vars(module).values()]:
        if isinstance(value, type) and issubclass(value, nn.Module) and value.__module__ == module.__name__:
            value.__reduce_ex__ = _with_text(text, name)  # type: ignore[method-assign]
    module.__dict__["__text__"] = text
    return module


def _module_name(name: str) -> str:
    return f"{PACKAGE}.{''.join(c if c.isalnum() else '_' for c in name)}"


def _with_text(text: str, name: str) -> Callable[..., Any]:
    """How an object of a class of the text is taken apart: into the text, the name of the class, and its state."""

    def reduce(self: nn.Module, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        if type(self).__module__ != _module_name(name):  # a class of somebody else's, derived from one of the text
            return object.__reduce_ex__(self, protocol)
        return _empty, (text, name, type(self).__qualname__), self.__getstate__()

    return reduce


def _empty(text: str, name: str, cls: str) -> nn.Module:
    """An object of a class of the text, before its state is put back."""
    module = sys.modules.get(_module_name(name))
    if module is None or module.__dict__.get("__text__") != text:
        module = load_text(text, name)
    found: type[nn.Module] = getattr(module, cls)
    return found.__new__(found)
