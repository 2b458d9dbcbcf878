"""A generated file as a living model: what runs is the text that one reads."""

import linecache
import sys
from contextlib import nullcontext
from types import ModuleType

import torch
from torch import nn

from archspec.codegen.generate import generate
from archspec.decoding.layout import SPEC
from archspec.language.model import Spec
from archspec.layers.arguments import INPUTS


def build(spec: Spec, *, device: str | torch.device | None = None) -> nn.Module:
    """The model of a spec, made from the generated text; it takes masks, positions and documents as far as it can.

    Args:
        spec: a resolved spec.
        device: where its tensors live; "meta" makes shapes alone, for models too big to hold.

    Returns:
        A freshly initialised module, which knows its spec; a traceback through it shows the lines of the file.
    """
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
    safe = "".join(c if c.isalnum() else "_" for c in name)
    module = ModuleType(f"archspec_generated.{safe}")
    module.__file__ = filename
    sys.modules[module.__name__] = module
    exec(compile(text, filename, "exec"), module.__dict__)
    return module
