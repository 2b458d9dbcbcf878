"""A generated file as a living model: what runs is the text that one reads.

Its classes can be found by name only in the process that loaded the text. So an object of them is pickled with the text
(once for all of its sub-modules), from which another process loads it again.
"""

import linecache
import sys
from collections.abc import Callable
from contextlib import nullcontext
from types import ModuleType
from typing import Any, SupportsIndex

import torch
from torch import nn

from archspec.codegen.generate import generate
from archspec.decoding.layout import SPEC
from archspec.language.model import Spec, need_spec
from archspec.layers.arguments import INPUTS

PACKAGE = "archspec_generated"


def build(spec: Spec, *, device: str | torch.device | None = None) -> nn.Module:
    """The model of a spec, made from the generated text; it takes masks, positions and documents as far as it can.

    Args:
        spec: a resolved spec.
        device: where its tensors live; "meta" makes shapes alone, for models too big to hold.

    Returns:
        A freshly initialised module, which knows its spec and may be copied, pickled and saved whole; a traceback
        through it shows the lines of the generated file.
    """
    need_spec(spec)
    taking = spec.taking(*INPUTS)
    module = load_text(generate(taking), f"{spec.name}_{spec.digest}")
    with nullcontext() if device is None else torch.device(device):
        model: nn.Module = module.Model()
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
