"""Small rewrites of concrete syntax: other expressions for names that are read, other arguments for calls."""

from collections.abc import Callable, Mapping
from typing import Any

import libcst as cst
import libcst.matchers as m

from archspec.codegen.shorten.program import bound, syntax_of
from archspec.codegen.sources import code
from archspec.codegen.syntax import flattened, parenthesised

STRINGS = cst.SimpleString | cst.FormattedString
ATOMS = cst.Name | cst.Attribute | cst.Call | cst.Subscript | cst.Integer | cst.Float | STRINGS | cst.List
OPERATIONS = cst.BinaryOperation | cst.UnaryOperation | cst.Comparison | cst.BooleanOperation | cst.IfExp


def embedded(node: Any) -> Any:
    """An expression that may stand anywhere: an operation in parentheses."""
    return node if isinstance(node, ATOMS) else parenthesised(node)


class Reads(cst.CSTTransformer):
    """Puts expressions where names are read; names of attributes, arguments and parameters are no reads."""

    def __init__(self, values: Mapping[str, Any]):
        super().__init__()
        self.values = values

    def leave_Name(self, original: cst.Name, updated: cst.Name) -> Any:
        """A name that is read."""
        found = self.values.get(original.value)
        return updated if found is None else _within(found, original)

    def leave_Attribute(self, original: cst.Attribute, updated: cst.Attribute) -> Any:
        """The attribute keeps its name."""
        return updated.with_changes(attr=original.attr)

    def leave_Arg(self, original: cst.Arg, updated: cst.Arg) -> Any:
        """The argument keeps its name."""
        return updated.with_changes(keyword=original.keyword)

    def leave_Param(self, original: cst.Param, updated: cst.Param) -> Any:
        """A parameter keeps its name."""
        return updated.with_changes(name=original.name)

    def leave_AssignTarget(self, original: cst.AssignTarget, updated: cst.AssignTarget) -> Any:
        """So does what is set."""
        return updated.with_changes(target=original.target) if m.matches(original.target, m.Name()) else updated

    def leave_FunctionDef(self, original: cst.FunctionDef, updated: cst.FunctionDef) -> Any:
        """And a function."""
        return updated.with_changes(name=original.name)


def _within(node: Any, place: cst.Name) -> Any:
    """An expression in the parentheses that its place has."""
    return node.with_changes(lpar=place.lpar, rpar=place.rpar) if place.lpar else node


class Unwrap(cst.CSTTransformer):
    """Takes away parentheses around whole arguments, values and indices."""

    def leave_Arg(self, original: cst.Arg, updated: cst.Arg) -> Any:
        """`f((a + b))`."""
        return updated if updated.star else updated.with_changes(value=_bare(updated.value))

    def leave_Return(self, original: cst.Return, updated: cst.Return) -> Any:
        """`return (a + b)`."""
        return updated.with_changes(value=_bare(updated.value, tuples=True)) if updated.value else updated

    def leave_Assign(self, original: cst.Assign, updated: cst.Assign) -> Any:
        """`y = (a + b)`, `y, z = (a, b)`."""
        unpacks = isinstance(updated.targets[0].target, cst.Tuple)
        return updated.with_changes(value=_bare(updated.value, tuples=unpacks))

    def leave_Index(self, original: cst.Index, updated: cst.Index) -> Any:
        """`x[(a + b)]`."""
        return updated.with_changes(value=_bare(updated.value))

    def leave_Element(self, original: cst.Element, updated: cst.Element) -> Any:
        """`[(a + b), c]`."""
        return updated.with_changes(value=_bare(updated.value))

    def leave_If(self, original: cst.If, updated: cst.If) -> Any:
        """`if (a and b):`."""
        return updated.with_changes(test=_bare(updated.test))


def _bare(node: Any, tuples: bool = False) -> Any:
    whole = isinstance(node, OPERATIONS) or (tuples and isinstance(node, cst.Tuple) and len(node.elements) > 1)
    if not whole or len(node.lpar) != 1 or "\n" in code(node):
        return node
    return node.with_changes(lpar=[], rpar=[])


class Calls(cst.CSTTransformer):
    """Changes the calls of a helper, a class or a method; what is changed stands on one line.

    Args:
        func: matches what is called.
        change: gives what stands in the place of a call.
    """

    def __init__(self, func: Any, change: Callable[[cst.Call], Any]):
        super().__init__()
        self.func, self.change = func, change

    def visit_FunctionDef(self, node: cst.FunctionDef) -> bool:
        """Where a function calls something else by that name, nothing is changed."""
        return not (isinstance(self.func, m.Name) and self.func.value in bound(syntax_of(node)))

    def leave_Call(self, original: cst.Call, updated: cst.Call) -> Any:
        """A call of it."""
        return self.change(updated) if m.matches(original.func, self.func) else updated

    def leave_SimpleStatementLine(self, original: cst.SimpleStatementLine, updated: cst.SimpleStatementLine) -> Any:
        """A statement that changed."""
        if code(updated) == code(original):
            return updated
        done: Any = updated.visit(Unwrap())
        return flattened(done)
