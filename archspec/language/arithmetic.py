"""Sizes as arithmetic on named sizes: `8/3 * d_model`, `round_up(8/3 * d_model, 256)`, `(2 * n_layers) ** 0.25`.

Python's own parser reads the text and a whitelist walks the tree; nothing is evaluated as Python. Values are exact
rationals for as long as they can be, so that `8/3 * 3072` is 8192 and not its neighbour. Sizes, exponents and results
are bounded, so that no text can take long.
"""

import ast
import math
import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import NoReturn

from archspec.errors import Fault

Number = Fraction | float

MAX_LENGTH = 200
MAX_DEPTH = 50
MAX_EXPONENT = 64
LIMIT = 10**30

_ALLOWED = "only numbers, names of sizes, + - * / // % ** and ceil, floor, round, round_up, sqrt, min, max are allowed"
_LOOKS = re.compile(r"[A-Za-z0-9_.+\-*/%(), \t]+")
_NUMBERS = re.compile(r"(?<![A-Za-z0-9_.])[0-9.][A-Za-z0-9_.]*")
_NUMBER = re.compile(r"(?:[0-9]+(?:_[0-9]+)*(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][0-9]*)?")
# how many arguments each function takes; 0 means one or more
_ARGUMENTS = {"ceil": 1, "floor": 1, "round": 1, "sqrt": 1, "round_up": 2, "min": 0, "max": 0}
FUNCTIONS = frozenset(_ARGUMENTS)


def is_expression(text: str) -> bool:
    """Whether the text could be arithmetic rather than a word; a cheap look that says nothing about its syntax."""
    if len(text) > MAX_LENGTH or not _LOOKS.fullmatch(text):
        return False
    return text.lstrip()[:1].isdigit() or any(sign in text for sign in "+-*/%(")


def names(text: str) -> frozenset[str]:
    """The names that the text refers to; raises Fault when it is not arithmetic."""
    return _parse(text)[1]


def evaluate(text: str, names: Callable[[str], Fraction | int | float]) -> int | float | Fraction:
    """The value of the text: an int where it is whole, a Fraction where it is exact, else a float.

    `names` gives the value of a name and raises Fault for one that it does not know. Raises Fault for text that is not
    arithmetic, for a division by zero and for results of 10**30 and more. `round` takes halves to the even neighbour.
    """
    value = _Evaluator(text, names).value(_parse(text)[0])
    return value.numerator if isinstance(value, Fraction) and value.denominator == 1 else value


@lru_cache(maxsize=256)
def _parse(text: str) -> tuple[ast.expr, frozenset[str]]:
    """The checked tree and the names in it."""
    if len(text) > MAX_LENGTH:
        raise Fault(f"`{text[:40]}...` is too long: arithmetic has at most {MAX_LENGTH} characters, found {len(text)}")
    if "^" in text:
        raise Fault(f"`{text}` is not arithmetic: write ** for a power, not ^")
    # Python would fold look-alike letters into ASCII, drop comments and only warn about `1or 2`
    if not _LOOKS.fullmatch(text) or not all(map(_NUMBER.fullmatch, _NUMBERS.findall(text))):
        raise _refused(text)
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _refused(text) from None
    return tree, frozenset(_check(text, tree))


def _check(text: str, tree: ast.expr) -> set[str]:
    """Walks the tree without recursion, refuses what is not on the whitelist, returns the names of sizes."""
    found = set()
    todo = [(tree, 1)]
    while todo:
        node, depth = todo.pop()
        if depth > MAX_DEPTH:
            raise Fault(f"`{text[:40]}...` is nested too deeply: at most {MAX_DEPTH} levels")
        if isinstance(node, ast.Name):
            found.add(node.id)
        todo += [(child, depth + 1) for child in _operands(text, node)]
    return found


def _operands(text: str, node: ast.expr) -> list[ast.expr]:
    """The expressions directly below a node that is allowed; raises Fault for one that is not."""
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return []
        case ast.Name():
            return []
        case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
            return [node.operand]
        case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div() | ast.FloorDiv() | ast.Mod() | ast.Pow()):
            return [node.left, node.right]
        case ast.Call(func=ast.Name(id=name), keywords=[]) if name in _ARGUMENTS:
            return _arguments(text, name, node.args)
    raise _refused(text)


def _arguments(text: str, name: str, arguments: list[ast.expr]) -> list[ast.expr]:
    wanted = _ARGUMENTS[name]
    if len(arguments) != wanted if wanted else not arguments:
        wish = {0: "at least one value", 1: "one value", 2: "two values, as in round_up(x, 256)"}[wanted]
        raise Fault(f"`{text}`: {name} takes {wish}, found {len(arguments)}")
    return arguments


def _refused(text: str) -> Fault:
    return Fault(f"`{text if len(text) <= 80 else text[:77] + '...'}` is not arithmetic: {_ALLOWED}")


class _Evaluator:
    """Computes a checked tree; keeps the text for its messages."""

    def __init__(self, text: str, names: Callable[[str], Fraction | int | float]) -> None:
        self.text = text
        self.names = names

    def value(self, node: ast.expr) -> Number:
        """The value of one node, within bounds."""
        return self.bounded(self.raw(node))

    def raw(self, node: ast.expr) -> Number:
        """The value of one node, before the bounds are checked."""
        match node:
            case ast.Constant(value=int() | float() as number):
                return self.exact(number)
            case ast.Name(id=name):
                return self.exact(self.names(name))
            case ast.UnaryOp(op=sign):
                operand = self.value(node.operand)
                return -operand if isinstance(sign, ast.USub) else operand
            case ast.BinOp():
                return self.binary(node.op, self.value(node.left), self.value(node.right))
            case ast.Call(func=ast.Name(id=name)):
                return self.call(name, [self.value(argument) for argument in node.args])
        raise _refused(self.text)

    def exact(self, number: Fraction | int | float) -> Number:
        """A number as the rational that its decimal digits say, so that 0.1 is one tenth."""
        if isinstance(number, float):
            if not math.isfinite(number):
                self.fail("holds a number that is not finite")
            return Fraction(repr(number))
        return Fraction(number)

    def bounded(self, value: Number) -> Number:
        """The value itself, or a float where the exact form has grown unwieldy."""
        if not -LIMIT < value < LIMIT:
            self.fail("is too large: sizes stay below 10**30")
        return float(value) if isinstance(value, Fraction) and value.denominator > LIMIT else value

    def binary(self, sign: ast.operator, left: Number, right: Number) -> Number:
        """`left sign right`; a division by zero is a Fault."""
        if isinstance(sign, (ast.Div, ast.FloorDiv, ast.Mod)) and right == 0:
            self.fail("divides by zero")
        match sign:
            case ast.Add():
                return left + right
            case ast.Sub():
                return left - right
            case ast.Mult():
                return left * right
            case ast.Div():
                return left / right
            case ast.FloorDiv():
                return Fraction(math.floor(self.bounded(left / right)))
            case ast.Mod():
                return left % right
        return self.power(left, right)

    def power(self, base: Number, exponent: Number) -> Number:
        """`base ** exponent`: exact for whole exponents and exact square roots."""
        if not -MAX_EXPONENT <= exponent <= MAX_EXPONENT:
            self.fail(f"has the exponent {float(exponent):g}: at most {MAX_EXPONENT} is allowed")
        if base == 0 and exponent < 0:
            self.fail("divides by zero")
        if exponent == Fraction(1, 2):
            return self.sqrt(base)
        whole = isinstance(exponent, Fraction) and exponent.denominator == 1
        if base < 0 and not whole:
            self.fail("takes a root of a negative number")
        try:
            return base ** int(exponent) if whole else math.pow(base, exponent)
        except OverflowError:
            self.fail("is too large: sizes stay below 10**30")

    def sqrt(self, value: Number) -> Number:
        """The square root, exact where numerator and denominator are squares."""
        if value < 0:
            self.fail("takes a root of a negative number")
        if isinstance(value, Fraction):
            root = Fraction(math.isqrt(value.numerator), math.isqrt(value.denominator))
            if root * root == value:
                return root
        return math.sqrt(value)

    def call(self, name: str, values: list[Number]) -> Number:
        """One of the functions of the language."""
        match name:
            case "ceil":
                return Fraction(math.ceil(values[0]))
            case "floor":
                return Fraction(math.floor(values[0]))
            case "round":
                return Fraction(round(values[0]))
            case "round_up":
                return self.round_up(values[0], values[1])
            case "sqrt":
                return self.sqrt(values[0])
        return min(values) if name == "min" else max(values)

    def round_up(self, value: Number, multiple: Number) -> Number:
        """The least multiple that is not below the value."""
        if multiple <= 0:
            self.fail(f"rounds up to a multiple of {float(multiple):g}: it must be positive")
        return math.ceil(self.bounded(value / multiple)) * multiple

    def fail(self, what: str) -> NoReturn:
        """Refuses the text for what its values do."""
        raise Fault(f"`{self.text}` {what}")
