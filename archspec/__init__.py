"""A declarative architecture compiler for sequence models: YAML to exact counts, pictures and readable PyTorch.

A tour:

>>> import archspec
>>> spec = archspec.load("specs/bert_tiny.yaml")       # or loads(text); every mistake at once is a SpecError
>>> print(spec)
bert_tiny: 2 layers, d_model 8, vocab_size 5, max_seq_len 4
  2 x attention, mlp
  head: lm
>>> archspec.count(spec).total                         # exact, before anything is built; also a table: to_pandas()
1253
>>> price = archspec.cost(spec, batch=8)               # a training step: FLOPs, traffic, memory
>>> price.flops, price.saved_bytes
(232960, 15392)
>>> archspec.complexity(spec).whole["prefill"].text()  # the same as formulas
'64 B T^2 + 2,128 B T'
>>> text = archspec.show(spec)                         # everything resolved, as a spec again
>>> archspec.loads(text) == spec
True
>>> picture = archspec.diagram(spec)                   # DOT; render(spec, "tiny.svg") draws it with Graphviz
>>> source = archspec.generate(spec)                   # one readable file of PyTorch
>>> model = archspec.build(spec, seed=0)               # the same as an nn.Module; this needs PyTorch
>>> archspec.verify(spec).passed                       # holds the model to its spec, on this machine
True

Further: `explain` shows a number term by term, `bill` prices a whole answer, `complexity_of_kinds` compares
components, `lower` gives the operations as a graph, `schema` is for editors; `vocabulary` gives the `Vocabulary` of a
spec, which encodes and decodes texts, and `learn_vocabulary` makes a tokenizer file; `new_state` and `State` decode
with a model, `init_weights` starts one that was built without numbers. Every error is an `ArchspecError`, and a doubt
about a spec a `SpecWarning`.

Each name is imported when it is first used: `import archspec` costs nothing, and PyTorch is needed only by what runs a
model (`build`, `new_state`, `State`, `init_weights`, `verify`).
"""

import sys
from importlib import import_module
from importlib.util import find_spec
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
_OF_TORCH = ("archspec.codegen.load", "archspec.decoding", "archspec.modules.seeding", "archspec.verify")
_SPEC = ("archspec.language.load", "archspec.language.model")
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
    if _HOME[name] in _SPEC:
        vars(import_module("archspec.language.notebook"))["draw"] = _svg
    globals()[name] = value
    return value


def _svg(spec: "Spec") -> str:
    """How a spec is drawn in a notebook: the language, which knows of no picture, is told so."""
    from archspec.diagram.render import svg

    return svg(spec)


def __dir__() -> list[str]:
    """What there is; without PyTorch not what needs it, so that `help(archspec)` works there too."""
    missing = () if _has_torch() else [name for home in _OF_TORCH for name in _HOMES[home]]
    return sorted({*globals(), *__all__} - {*missing})


def _has_torch() -> bool:
    try:
        return find_spec("torch") is not None
    except ValueError:  # it is kept from being imported
        return False
