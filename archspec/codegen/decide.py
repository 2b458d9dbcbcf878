"""What an expression of a layer's source comes to when the config is known, and how a value is written down."""

import math
from ast import literal_eval
from collections.abc import Mapping
from typing import Any

import libcst as cst
import libcst.matchers as m

from archspec.codegen.sources import code
from archspec.errors import GenerateError
from archspec.layers.base import Component

UNKNOWN = object()
CONFIG = m.Name("c") | m.Attribute(m.Name("self"), m.Name("c"))
PURE: dict[str, Any] = {"len": len, "min": min, "max": max}


class Decider:
    """Decides expressions for one config."""

    def __init__(self, c: Component, facts: Mapping[str, bool] | None = None):
        self.c = c
        config = _InFile(c, facts) if facts else c
        self.names = {"c": config, "self": _Self(config), "__builtins__": PURE}
        self.reading: dict[cst.CSTNode, bool] = {}

    def value(self, node: cst.BaseExpression) -> Any:
        """What an expression comes to if it depends on the config and nothing else, or UNKNOWN."""
        if not self.reads_config(node) or not is_pure(node):
            return UNKNOWN
        try:
            return eval(f"({code(node)})", dict(self.names))
        except (NameError, AttributeError):  # it also reads data, such as self.training
            return UNKNOWN
        except (TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise GenerateError(f"{type(self.c).__name__}: {code(node)!r} fails: {error}") from error

    def reads_config(self, node: cst.CSTNode) -> bool:
        """Whether the config occurs in a node; remembered, for every node above it asks again."""
        if node not in self.reading:
            self.reading[node] = is_config(node) or any(self.reads_config(child) for child in node.children)
        return self.reading[node]

    def truth(self, node: cst.BaseExpression) -> Any:
        """As `value`, for a condition: one decided side may decide an and/or."""
        found = self.value(node)
        if found is not UNKNOWN:
            return bool(found)
        match node:
            case cst.BooleanOperation():
                left = self.truth(node.left)
                if left is UNKNOWN:
                    return UNKNOWN
                if isinstance(node.operator, cst.And):
                    return self.truth(node.right) if left else False
                return True if left else self.truth(node.right)
            case cst.UnaryOperation(operator=cst.Not()):
                inner = self.truth(node.expression)
                return UNKNOWN if inner is UNKNOWN else not inner
        return UNKNOWN

    def argument(self, node: cst.BaseExpression) -> Any:
        """What an argument that reads the config comes to, a branch that it chooses included, or UNKNOWN."""
        if not self.reads_config(node):
            return UNKNOWN
        while isinstance(node, cst.IfExp):
            test = self.truth(node.test)
            if test is UNKNOWN:
                return UNKNOWN
            node = node.body if test else node.orelse
        return self.value(node) if self.reads_config(node) else constant(node)


class _Self:
    """Stands for `self` while a condition is evaluated: it has a config and nothing else."""

    def __init__(self, c: Any):
        self.c = c


class _InFile:
    """A config with what is known of the file that it is written into: `c.plain`, `c.padded` and the like."""

    def __init__(self, c: Component, facts: Mapping[str, bool]):
        self.__dict__.update(facts)
        self.c = c

    def __getattr__(self, name: str) -> Any:
        return getattr(self.c, name)


def is_config(node: cst.CSTNode) -> bool:
    """Whether a node is `c` or `self.c`."""
    if isinstance(node, cst.Name):
        return node.value == "c"
    return isinstance(node, cst.Attribute) and m.matches(node, CONFIG)


def is_pure(node: cst.CSTNode) -> bool:
    """Whether an expression calls nothing but len, min and max."""
    if isinstance(node, cst.Call) and not (isinstance(node.func, cst.Name) and node.func.value in PURE):
        return False
    if isinstance(node, cst.GeneratorExp | cst.ListComp | cst.Lambda):
        return False
    return all(is_pure(child) for child in node.children)


def is_literal(value: Any) -> bool:
    """Whether a value can be written down."""
    if isinstance(value, tuple):
        return all(map(is_literal, value))
    return value is None or isinstance(value, bool | int | float | str)


def literal(value: Any) -> cst.BaseExpression:
    """A value as an expression."""
    return cst.parse_expression(written(value))


def written(value: Any) -> str:
    """A value as Python; text as ruff quotes it."""
    if isinstance(value, float) and not math.isfinite(value):
        raise GenerateError(f"{value} cannot be written as a number of a generated file; let the config say None")
    if isinstance(value, tuple):
        inside = ", ".join(map(written, value))
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    text = repr(value)
    return f'"{text[1:-1]}"' if isinstance(value, str) and '"' not in value else text


def constant(node: cst.BaseExpression | None) -> Any:
    """The value of a literal, or UNKNOWN."""
    try:
        return UNKNOWN if node is None else literal_eval(code(node))
    except (ValueError, SyntaxError):
        return UNKNOWN
