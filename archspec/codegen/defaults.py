"""The defaults of the functions that a layer calls, read from our own sources: what may be left out of a call."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import libcst as cst
import libcst.matchers as m

from archspec.codegen.decide import UNKNOWN, constant
from archspec.codegen.sources import home, source

Lookup = Callable[[str], Any]  # a name of the layer's file -> the class or function of ours that it means, or None


def lookup_in(module: str) -> Lookup:
    """The definitions that names mean in a module of archspec, imported ones included."""

    def look(name: str) -> Any:
        place, before = home(module, name), None
        while place is not None and place != before:  # a name may be imported from where it is itself imported
            found = source(place[0]).statements.get(place[1])
            if found is not None:
                return found
            place, before = home(*place), place
        return None

    return look


class Callees:
    """Whatever a class or function of a layer calls."""

    def __init__(self, node: cst.CSTNode, look: Lookup):
        self.node, self.look = node, look
        self.methods = {f.name.value: f for f in _functions(node)} if isinstance(node, cst.ClassDef) else {}

    @cached_property
    def local(self) -> set[str]:
        """What its functions call their parameters and variables."""
        name = m.SaveMatchedNode(m.Name(), "name")
        found = m.extractall(self.node, m.AssignTarget(name) | m.Param(name))
        return {match["name"].value for match in found}  # type: ignore[union-attr]

    def default(self, func: cst.BaseExpression, keyword: str) -> Any:
        """What the callee takes a keyword argument to be when it is left out, or UNKNOWN."""
        function = self._function(func)
        if function is None:
            return UNKNOWN
        params = [*function.params.params, *function.params.kwonly_params]
        return next((constant(p.default) for p in params if p.name.value == keyword), UNKNOWN)

    def _function(self, func: cst.BaseExpression) -> cst.FunctionDef | None:
        if m.matches(func, m.Attribute(m.Name("self"), m.Name())):
            return self.methods.get(func.attr.value)  # type: ignore[attr-defined]
        if not isinstance(func, cst.Name) or func.value in self.local:
            return None
        found = self.look(func.value)
        if isinstance(found, cst.ClassDef):
            found = next((f for f in _functions(found) if f.name.value == "__init__"), None)
        return found if isinstance(found, cst.FunctionDef) else None


def _functions(cls: cst.ClassDef) -> list[cst.FunctionDef]:
    return [s for s in cls.body.body if isinstance(s, cst.FunctionDef)]
