"""Names that nothing else in a generated file may have: what its source calls its own, and what every file needs."""

import ast
import builtins
import keyword
from collections.abc import Iterable

from archspec.codegen.sources import Form, copied_from, home, module_of, path_of, source
from archspec.layers.base import Component

PADDING = (  # as_...: beside arguments such as `<stack>_mask`, of a stack that can have no keyword for a name
    "Rows",
    "align",
    "by_document",
    "as_documents",
    "as_global_mask",
    "as_mask_at_ends",
    "as_mask",
    "as_positions",
    "count_real",
    "given_or",
    "reorder",
    "restore",
    "rows_of",
    "separate",
)
# What the printed classes call by name, and where it comes from.
STRUCTURAL = {
    "nn": ("torch", "nn"),
    "torch": ("torch", ""),
    "math": ("math", ""),
    "Tensor": ("torch", "Tensor"),
    "F": ("torch.nn.functional", ""),
    **{name: ("archspec.kernels.state", name) for name in ("State", "substate", "advance", "once", "atomic")},
    **{name: ("archspec.kernels.padding", name) for name in PADDING},
    **{name: ("archspec.kernels.collect", name) for name in ("Scope", "collect", "scope")},
    **{name: ("archspec.kernels.moe.balance", name) for name in ("router_loss", "move_biases")},
    **{name: ("archspec.kernels.loss.answers", name) for name in ("class_loss", "number_loss")},
    "Any": ("typing", "Any"),
    "Callable": ("collections.abc", "Callable"),
}
ALWAYS = frozenset({*STRUCTURAL, *dir(builtins), *keyword.kwlist, "Model", "Block", "Config", "init_weights", "self"})


def definitions(components: Iterable[Component], form: Form) -> frozenset[str]:
    """What the files of some components define and import at their top level, and those of kernels if copied."""
    todo = _files(components)
    seen: set[str] = set()
    names: set[str] = set()
    while todo:
        module = todo.pop()
        if module in seen:
            continue
        seen.add(module)
        here = source(module)
        names |= {*here.statements, *here.imports}
        origins = (home(module, name) for name in here.imports)
        copied = (copied_from(origin[0], form) for origin in origins if origin is not None)
        todo += [place for place in copied if place is not None and path_of(place).is_file()]
    return frozenset(names)


def variables(components: Iterable[Component]) -> frozenset[str]:
    """What the functions in the files of some components call their parameters and variables."""
    names: set[str] = set()
    for module in _files(components):
        for node in ast.walk(source(module).syntax):
            if isinstance(node, ast.Name):
                names.add(node.id)
            elif isinstance(node, ast.arg):
                names.add(node.arg)
    return frozenset(names)


def _files(components: Iterable[Component]) -> list[str]:
    """The modules that run some components; what changes only the formulas of another has none."""
    return [module for module in dict.fromkeys(map(module_of, components)) if path_of(module).is_file()]
