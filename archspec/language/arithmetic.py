"""Sizes as arithmetic on named sizes: `8/3 * d_model`, `round_up(8/3 * d_model, 256)`, `(2 * n_layers) ** 0.25`.

Python's own parser reads the text and a whitelist walks the tree; nothing is evaluated as Python. Values are exact
rationals for as long as they can be, so that `8/3 * 3072` is 8192 and not its neighbour. Sizes, exponents and results
are bounded, so that no text can take long.
"""

import ast
import math
import operator
import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import NoReturn

from archspec.errors import Fault
from archspec.language.topics import see

Number = Fraction | float

MAX_LENGTH = 200
MAX_DEPTH = 50
MAX_EXPONENT = 64
LIMIT = 10**30

_ALLOWED = "only numbers, names of sizes, + - * / // % ** and ceil, floor, round, round_up, sqrt, min, max are allowed"
_LOOKS = re.compile(r"[A-Za-z0-9_.+\-*/%(), \t]+")
_NUMBERS = re.compile(r"(?<![A-Za-z0-9_.])[0-9.][A-Za-z0-9_.]*")
_NUMBER = re.compile(r"(?:[0-9]+(?:_[0-9]+)*(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][0-9]*)?")
_ONE, _TWO, _SOME = "one value", "two values, as in round_up(x, 256)", "at least one value"
_ARGUMENTS = {**dict.fromkeys(("ceil", "floor", "round", "sqrt"), _ONE), "round_up": _TWO, "min": _SOME, "max": _SOME}
_WHOLE: dict[str, Callable[[Number], int]] = {"ceil": math.ceil, "floor": math.floor, "round": round}
_SIGNS: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Div: operator.truediv, ast.FloorDiv: operator.truediv, ast.Mod: operator.mod,
}  # fmt: skip
FUNCTIONS = frozenset(_ARGUMENTS)


def evaluate(text: str, names: Callable[[str], Fraction | int | float]) -> int | float | Fraction:
    """The value of the text: an int where it is whole, a Fraction where it is exact, else a float.

    `names` gives the value of a name and raises Fault for one that it does not know. Raises Fault for text that is not
    arithmetic, for a division by zero and for results of 10**30 and more. `round` takes halves to the even neighbour.
    """
    value = _Evaluator(text, names).value(parsed(text))
    return value.numerator if isinstance(value, Fraction) and value.denominator == 1 else value


@lru_cache(maxsize=256)
def parsed(text: str) -> ast.expr:
    """The tree of arithmetic, of which every node is on the whitelist; raises Fault for text that is none.

    It is walked without recursion.
    """
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
    todo = [(tree, 1)]
    while todo:
        node, depth = todo.pop()
        if depth > MAX_DEPTH:
            raise Fault(f"`{text[:40]}...` is nested too deeply: at most {MAX_DEPTH} levels")
        todo += [(child, depth + 1) for child in _operands(text, node)]
    return tree


def _operands(text: str, node: ast.expr) -> list[ast.expr]:
    """The expressions directly below a node that is allowed; raises Fault for one that is not."""
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return []
        case ast.Name():
            return []
        case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
            return [node.operand]
        case ast.BinOp(op=op) if type(op) in _SIGNS or isinstance(op, ast.Pow):
            return [node.left, node.right]
        case ast.Call(func=ast.Name(id=name), keywords=[], args=arguments) if name in _ARGUMENTS:
            wanted = _ARGUMENTS[name]
            if not arguments or (wanted is not _SOME and len(arguments) != (1 if wanted is _ONE else 2)):
                raise Fault(f"`{text}`: {name} takes {wanted}, found {len(arguments)}")
            return arguments
    raise _refused(text)


def _refused(text: str) -> Fault:
    return Fault(f"`{text if len(text) <= 80 else text[:77] + '...'}` is not arithmetic: {_ALLOWED}{see('sizes')}")


class _Evaluator:
    """Computes a checked tree; keeps the text for its messages."""

    def __init__(self, text: str, names: Callable[[str], Fraction | int | float]) -> None:
        self.text, self.names = text, names

    def value(self, node: ast.expr) -> Number:
        """The value of one node, within bounds."""
        match node:
            case ast.Constant(value=int() | float() as number):
                return self.bounded(self.exact(number))
            case ast.Name(id=name):
                return self.bounded(self.exact(self.names(name)))
            case ast.UnaryOp(op=sign):
                operand = self.value(node.operand)
                return -operand if isinstance(sign, ast.USub) else operand
            case ast.BinOp():
                return self.bounded(self.binary(node.op, self.value(node.left), self.value(node.right)))
            case ast.Call(func=ast.Name(id=name)):
                return self.bounded(self.call(name, [self.value(argument) for argument in node.args]))
        raise _refused(self.text)

    def exact(self, number: Fraction | int | float) -> Number:
        """A number as the rational that its decimal digits say, so that 0.1 is one tenth."""
        if isinstance(number, float) and not math.isfinite(number):
            self.fail("holds a number that is not finite")
        return Fraction(repr(number) if isinstance(number, float) else number)

    def bounded(self, value: Number) -> Number:
        """The value itself, or a float where the exact form has grown unwieldy."""
        if not -LIMIT < value < LIMIT:
            self.fail("is too large: sizes stay below 10**30")
        return float(value) if isinstance(value, Fraction) and value.denominator > LIMIT else value

    def binary(self, sign: ast.operator, left: Number, right: Number) -> Number:
        """`left sign right`; a division by zero is a Fault."""
        if isinstance(sign, ast.Pow):
            return self.power(left, right)
        if right == 0 and isinstance(sign, (ast.Div, ast.FloorDiv, ast.Mod)):
            self.fail("divides by zero")
        value = _SIGNS[type(sign)](left, right)
        return Fraction(math.floor(self.bounded(value))) if isinstance(sign, ast.FloorDiv) else value

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
        """One of the functions of the language; `round_up` gives the least multiple that is not below the value."""
        if name in _WHOLE:
            return Fraction(_WHOLE[name](values[0]))
        if name == "sqrt":
            return self.sqrt(values[0])
        if name != "round_up":
            return min(values) if name == "min" else max(values)
        value, multiple = values
        if multiple <= 0:
            self.fail(f"rounds up to a multiple of {float(multiple):g}: it must be positive")
        return math.ceil(self.bounded(value / multiple)) * multiple

    def fail(self, what: str) -> NoReturn:
        """Refuses the text for what its values do."""
        raise Fault(f"`{self.text}` {what}")
