"""How a block is wired: lines such as `x = x + mixer(norm1(x))`, read into a small tree and never evaluated.

An expression is an earlier name, a number, `+ - *`, a unary minus, parentheses, or a call of one of the block's modules
with exactly one argument. `x` is the input of the block and, after the last line, its output. Numbers may be arithmetic
on named sizes, as everywhere (`sqrt(alpha) / 3`); what they come to is put in by `archspec.language.factors`.
"""

import ast
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from archspec.errors import Fault
from archspec.language.arithmetic import FUNCTIONS, parsed
from archspec.language.topics import see
from archspec.layers.arguments import ARGUMENTS

MAX_LENGTH = 400
MAX_LINES = 200
MAX_DEPTH = 50
LIMIT = 1e30

_TARGET = re.compile(r"[a-z][a-z0-9_]*")
# what a block's `forward` takes beside x, and what it calls
_RESERVED = frozenset({"self", "torch", "nn", "substate", "scope", *ARGUMENTS})
_OPERATORS: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*"}
_ALLOWED = f"only names, numbers, + - *, parentheses and calls such as mixer(x) are allowed{see('wiring')}"


class Name(NamedTuple):
    """A value that an earlier line defined, the input x, or a size whose value is not put in yet."""

    name: str


class Number(NamedTuple):
    """A finite constant that is not negative (see `Negate`)."""

    value: int | float


class Formula(NamedTuple):
    """Arithmetic on numbers and sizes that holds more than + - *, before its value is put in."""

    text: str


class PerLayer(NamedTuple):
    """A number that differs from layer to layer: arithmetic on `layer` alone (see `archspec.language.depth`)."""

    text: str


class Call(NamedTuple):
    """A module of the block, applied to one tensor."""

    module: str
    argument: "Expr"


class Binary(NamedTuple):
    """`left operator right`, where the operator is one of + - *."""

    operator: str
    left: "Expr"
    right: "Expr"


class Negate(NamedTuple):
    """`-operand`."""

    operand: "Expr"


Expr = Name | Number | Formula | PerLayer | Call | Binary | Negate


class Assign(NamedTuple):
    """One line: `target = value`."""

    target: str
    value: Expr


@dataclass(frozen=True)
class Wiring:
    """The lines of a block, read; the last one gives the output. `name` is that of a built-in one, where it has one.

    The name is how it was written, not what it says: it does not compare.
    """

    steps: tuple[Assign, ...]
    name: str = field(default="", compare=False, repr=False)

    def calls(self) -> tuple[str, ...]:
        """The modules in the order in which they run; one that runs twice stands twice."""
        return tuple(e.module for step in self.steps for e in walk(step.value) if isinstance(e, Call))

    def per_layer(self) -> tuple[str, ...]:
        """The numbers that differ from layer to layer, each once, in the order in which they act."""
        found = (e.text for step in self.steps for e in walk(step.value) if isinstance(e, PerLayer))
        return tuple(dict.fromkeys(found))

    def lines(self) -> tuple[str, ...]:
        """The text again, with no more parentheses than needed; reading it gives the same wiring."""
        return tuple(f"{step.target} = {written(step.value)}" for step in self.steps)


def walk(expr: Expr) -> Iterator[Expr]:
    """All parts of an expression in order of evaluation: operands before what uses them, left before right."""
    match expr:
        case Call(argument=operand) | Negate(operand=operand):
            yield from walk(operand)
        case Binary(left=left, right=right):
            yield from walk(left)
            yield from walk(right)
    yield expr


def written(expr: Expr, level: int = 0) -> str:
    """The expression as a line has it; `level` is how tightly its surroundings bind (0 sum, 1 product, 2 sign)."""
    match expr:
        case Name(name=name):
            return name
        case Number(value=value):
            return repr(value)
        case Formula(text=text) | PerLayer(text=text):
            return f"({text})" if level and not text.endswith(")") else text
        case Call(module=module, argument=argument):
            return f"{module}({written(argument)})"
        case Negate(operand=operand):
            return f"-{written(operand, 2)}"
        case Binary(operator=operator, left=left, right=right):
            own = 1 if operator == "*" else 0
            plain = f"{written(left, own)} {operator} {written(right, own + 1)}"
            return f"({plain})" if own < level else plain


def parse_wiring(lines: Sequence[str]) -> Wiring:
    """Reads the lines; raises Fault, which names the line, for anything outside the language."""
    if not lines:
        raise Fault("the wiring has no lines; the shortest is x = mixer(x)")
    if len(lines) > MAX_LINES:
        raise Fault(f"the wiring has {len(lines)} lines; at most {MAX_LINES} are allowed")
    steps: list[Assign] = []
    for number, line in enumerate(lines, 1):
        try:
            steps.append(_parse_line(line.strip(), frozenset({"x", *(step.target for step in steps)})))
        except Fault as fault:
            raise Fault(f"line {number}: {fault}") from None
    return Wiring(tuple(steps))


def _parse_line(line: str, tensors: frozenset[str]) -> Assign:
    """One `target = expression`, where `tensors` are x and what earlier lines assign."""
    if len(line) > MAX_LENGTH:
        raise Fault(f"at most {MAX_LENGTH} characters are allowed, found {len(line)}; use more lines")
    if strange := [c for c in line if not (c.isascii() and c.isprintable())]:
        raise Fault(f"only printable ASCII characters are allowed, one assignment a line; found {strange[0]!r}")
    try:
        statements = ast.parse(line).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise Fault(f"`{line}` cannot be read: {_ALLOWED}") from None
    match statements:
        case [ast.Assign(targets=[ast.Name(id=target)], value=value)]:
            if not _TARGET.fullmatch(target) or target in _RESERVED:
                raise Fault(f"{target!r} cannot be assigned; use lower-case names other than {listed_names(_RESERVED)}")
            return Assign(target, _Reader(line, tensors).expr(value, 1))
    example = f"for example x = x + mixer(norm1(x)){see('wiring')}"
    raise Fault(f"`{line}` is not an assignment; write name = expression, {example}")


class _Reader:
    """The whitelist of one line: Python's tree to ours, or a Fault."""

    def __init__(self, line: str, tensors: Collection[str]):
        self.line, self.tensors = line, tensors

    def expr(self, node: ast.expr, depth: int) -> Expr:
        """An expression that stands so deep."""
        if depth > MAX_DEPTH:
            raise Fault(f"nested more than {MAX_DEPTH} levels deep; use more lines")
        match node:
            case ast.Name(id=name):
                return Name(name)
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                if not abs(value) < LIMIT:
                    raise Fault(f"a number is too large; stay below {LIMIT:g}")
                return Number(value)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return Negate(self.expr(operand, depth + 1))
            case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() as sign, left=left, right=right):
                return Binary(_OPERATORS[type(sign)], self.expr(left, depth + 1), self.expr(right, depth + 1))
            case ast.BinOp() if self.numeric(node):
                return self.formula(node)
            case ast.BinOp(op=ast.Div(), left=left, right=right) if self.numeric(right):
                by, what = self.text(right), self.text(left)
                factor = f"1/{by}" if isinstance(right, ast.Constant | ast.Name | ast.Call) else f"1/({by})"
                of = f"({what})" if isinstance(left, ast.BinOp | ast.UnaryOp) else what
                wish = f"only numbers and sizes are divided, so write {factor} * {of}{see('wiring')}"
                raise Fault(f"`{self.text(node)}` is not allowed: {wish}")
            case ast.Call(func=ast.Name(id=module), args=arguments, keywords=keywords):
                if module in FUNCTIONS and self.numeric(node):
                    return self.formula(node)
                return self.call(module, arguments, bool(keywords), depth)
        raise Fault(f"`{self.text(node)}` is not allowed: {_ALLOWED}")

    def call(self, module: str, arguments: list[ast.expr], named: bool, depth: int) -> Call:
        """A module of exactly one tensor."""
        if named or any(isinstance(argument, ast.Starred) for argument in arguments):
            raise Fault(f"{module} takes exactly one value, without name or star, as in {module}(x): `{self.line}`")
        if len(arguments) != 1:
            raise Fault(f"{module} takes exactly one value, found {len(arguments)}: `{self.line}`")
        return Call(module, self.expr(arguments[0], depth + 1))

    def numeric(self, node: ast.expr) -> bool:
        """Whether arithmetic reads no tensor and calls no module."""
        parts = list(islice(ast.walk(node), MAX_LENGTH))
        functions = [part.func for part in parts if isinstance(part, ast.Call) and isinstance(part.func, ast.Name)]
        names = [part.id for part in parts if isinstance(part, ast.Name) and part not in functions]
        return not any(name in self.tensors for name in names) and all(
            function.id in FUNCTIONS for function in functions
        )

    def formula(self, node: ast.expr) -> Formula:
        """Arithmetic, of which all but the values of its names is checked."""
        text = self.text(node)
        parsed(text)
        return Formula(text)

    def text(self, node: ast.expr) -> str:
        """What was written."""
        return ast.get_source_segment(self.line, node) or ""


def listed_names(words: Collection[str]) -> str:
    """Names in alphabetical order."""
    return ", ".join(sorted(words))
