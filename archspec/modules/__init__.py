"""How each component runs: an `nn.Module` in the file of the same name as its declaration, in plain PyTorch.

The modules run as they are (`build`), and the code generator writes them out specialised to one config. That asks of
their authors what `archspec.codegen.specialise` lists.
"""

from importlib import import_module
from typing import Any

from torch import nn

from archspec.layers.base import Component, NormComponent


def submodule(c: Component, *args: Any) -> nn.Module:
    """The module of a component.

    Args:
        c: the component.
        args: what its class takes before the config: of a norm its width, then, where it asks which layer it is, its
            number.
    """
    role, kind = type(c).__module__.split(".")[-2:]
    cls = getattr(import_module(f"archspec.modules.{role}.{kind}"), type(c).__name__)
    module = cls(*args, c)
    assert isinstance(module, nn.Module)
    return module


def by_itself(c: Component, width: int = 0, layer: int = 0) -> nn.Module:
    """The module of a component that stands in no model: of a norm over `width` channels, in the layer of that number.

    Either counts only where the component asks for it.
    """
    return submodule(c, *((width,) if isinstance(c, NormComponent) else ()), *((layer,) if c.numbered else ()))
