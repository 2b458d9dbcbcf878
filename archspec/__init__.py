"""A declarative architecture compiler for sequence models: YAML to exact counts, pictures and readable PyTorch.

>>> import archspec
>>> spec = archspec.load("specs/bert_tiny.yaml")       # doctest: +SKIP
>>> archspec.count(spec).total                         # doctest: +SKIP
1253

Each name is imported when it is first used: `import archspec` costs nothing, and PyTorch is needed only by what runs a
model (`build`, `new_state`, `verify`).
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archspec.codegen import generate
    from archspec.codegen.load import build
    from archspec.decoding import State, new_state
    from archspec.diagram.render import diagram, render
    from archspec.errors import (
        ArchspecError,
        CostError,
        GenerateError,
        MissingError,
        Problem,
        RenderError,
        SpecError,
        SpecWarning,
        StateError,
        VerifyError,
        VocabularyError,
        WriteError,
    )
    from archspec.graph import lower
    from archspec.language.load import load, loads
    from archspec.language.model import Spec
    from archspec.language.schema import schema
    from archspec.language.show import show
    from archspec.modules.seeding import init_weights
    from archspec.passes.bill import Bill, bill
    from archspec.passes.complexity import Complexity, complexity
    from archspec.passes.cost import Cost, cost
    from archspec.passes.count import Count, count
    from archspec.passes.explain import explain
    from archspec.passes.explanation import Explanation
    from archspec.passes.kinds import complexity_of_kinds
    from archspec.verify import verify
    from archspec.vocabulary import vocabulary
    from archspec.vocabulary.base import Vocabulary
    from archspec.vocabulary.learn import learn_vocabulary

__version__ = "0.1.0"

__all__ = [
    "ArchspecError",
    "Bill",
    "Complexity",
    "Cost",
    "CostError",
    "Count",
    "Explanation",
    "GenerateError",
    "MissingError",
    "Problem",
    "RenderError",
    "Spec",
    "SpecError",
    "SpecWarning",
    "State",
    "StateError",
    "VerifyError",
    "Vocabulary",
    "VocabularyError",
    "WriteError",
    "bill",
    "build",
    "complexity",
    "complexity_of_kinds",
    "cost",
    "count",
    "diagram",
    "explain",
    "generate",
    "init_weights",
    "learn_vocabulary",
    "load",
    "loads",
    "lower",
    "new_state",
    "render",
    "schema",
    "show",
    "verify",
    "vocabulary",
]

_HOMES = {
    "archspec.codegen": ("generate",),
    "archspec.codegen.load": ("build",),
    "archspec.graph": ("lower",),
    "archspec.decoding": ("State", "new_state"),
    "archspec.errors": (
        "ArchspecError",
        "CostError",
        "GenerateError",
        "MissingError",
        "Problem",
        "RenderError",
        "SpecError",
        "SpecWarning",
        "StateError",
        "VerifyError",
        "VocabularyError",
        "WriteError",
    ),
    "archspec.passes.bill": ("Bill", "bill"),
    "archspec.passes.complexity": ("Complexity", "complexity"),
    "archspec.passes.cost": ("Cost", "cost"),
    "archspec.passes.count": ("Count", "count"),
    "archspec.passes.explain": ("explain",),
    "archspec.passes.explanation": ("Explanation",),
    "archspec.passes.kinds": ("complexity_of_kinds",),
    "archspec.diagram.render": ("diagram", "render"),
    "archspec.language.load": ("load", "loads"),
    "archspec.language.model": ("Spec",),
    "archspec.language.schema": ("schema",),
    "archspec.language.show": ("show",),
    "archspec.modules.seeding": ("init_weights",),
    "archspec.verify": ("verify",),
    "archspec.vocabulary": ("vocabulary",),
    "archspec.vocabulary.base": ("Vocabulary",),
    "archspec.vocabulary.learn": ("learn_vocabulary",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


class _Package(ModuleType):
    """This package: importing a package called like a public name (`archspec.diagram`) leaves that name alone."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(import_module(_HOME[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        from archspec.errors import MissingError

        install = "pip install 'archspec-compiler[torch]'"
        raise MissingError(f"archspec.{name} needs PyTorch: {install}", name="torch") from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
