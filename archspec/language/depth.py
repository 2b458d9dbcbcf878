"""Numbers that differ from layer to layer: arithmetic on `layer`, the number of a layer in its stack, from 0.

`x = x + mixer(1 / sqrt(layer + 1) * norm1(x))` says one thing of every layer and means another number in each. So that
equal layers stay one, the arithmetic stays in the wiring, with all other sizes put in, and each layer works out its own
number when it is built. It is computed in Python's arithmetic here and in generated files alike.
"""

import ast
import math
import operator
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any

from archspec.errors import Fault
from archspec.language.arithmetic import evaluate, parsed

LAYER = "layer"
LARGEST = 2**53  # the last number up to which float64 has every whole one

_SIGNS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow,
}  # fmt: skip
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "ceil": math.ceil, "floor": math.floor, "sqrt": math.sqrt, "round": round, "min": min, "max": max,
}  # fmt: skip
_OF_MATH = ("ceil", "floor", "sqrt")


def reads_layer(text: str) -> bool:
    """Whether arithmetic names the number of the layer."""
    return any(isinstance(node, ast.Name) and node.id == LAYER for node in ast.walk(parsed(text)))


def with_sizes(text: str, size: Callable[[str], int | float | Fraction]) -> str:
    """Arithmetic on `layer` alone: the values of all other names put in, `round_up` written out.

    Raises:
        Fault: a name has no value.
    """
    return ast.unparse(ast.fix_missing_locations(_WithSizes(size).visit(ast.parse(text.strip(), mode="eval"))))


class _WithSizes(ast.NodeTransformer):
    def __init__(self, size: Callable[[str], int | float | Fraction]):
        self.size = size

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """A size as a number."""
        if node.id == LAYER:
            return node
        value = self.size(node.id)
        if isinstance(value, Fraction):
            value = int(value) if value.denominator == 1 else float(value)
        return ast.UnaryOp(ast.USub(), ast.Constant(-value)) if value < 0 else ast.Constant(value)

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """The least multiple, in functions that Python has."""
        arguments = [self.visit(argument) for argument in node.args]
        if isinstance(node.func, ast.Name) and node.func.id == "round_up":
            value, multiple = arguments
            times = ast.Call(ast.Name("ceil"), [ast.BinOp(value, ast.Div(), multiple)], [])
            return ast.BinOp(times, ast.Mult(), multiple)
        return ast.Call(node.func, arguments, [])


def value_at(text: str, layer: int) -> int | float:
    """What arithmetic on `layer` alone comes to in the layer of that number.

    Raises:
        Fault: it divides by zero there, or comes to more than float64 holds exactly.
    """
    evaluate(text, lambda _: layer)  # within bounds, in exact arithmetic
    value: int | float = _python(parsed(text), layer)
    if abs(value) > LARGEST:
        raise Fault(f"`{text}` is too large: factors stay up to 2**53")
    return value


def _python(node: ast.expr, layer: int) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name():
            return layer
        case ast.UnaryOp(op=sign, operand=operand):
            value = _python(operand, layer)
            return -value if isinstance(sign, ast.USub) else value
        case ast.BinOp(left=left, op=sign, right=right):
            return _SIGNS[type(sign)](_python(left, layer), _python(right, layer))
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return _FUNCTIONS[name](*(_python(argument, layer) for argument in arguments))
    raise TypeError(f"{ast.dump(node)} is no arithmetic")


def as_python(text: str) -> str:
    """Arithmetic on `layer` as a generated file has it: functions of `math` by their module."""
    return ast.unparse(_OfMath().visit(ast.parse(text, mode="eval")))


def needs_math(texts: Iterable[str]) -> bool:
    """Whether any of them calls a function of `math`."""
    return any("math." in as_python(text) for text in texts)


class _OfMath(ast.NodeTransformer):
    def visit_Call(self, node: ast.Call) -> ast.expr:
        """`sqrt(...)` as `math.sqrt(...)`."""
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id in _OF_MATH:
            node.func = ast.Attribute(ast.Name("math"), node.func.id)
        return node
