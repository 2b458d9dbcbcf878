"""How a block is wired: lines such as `x = x + mixer(norm1(x))`, read into a small tree and never evaluated.

An expression is an earlier name, a number, `+ - *`, a unary minus, parentheses, or a call of one of the block's modules
with exactly one argument. `x` is the input of the block and, after the last line, its output.
"""

import ast
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import NamedTuple

from archspec.errors import Fault, suggest
from archspec.layers.arguments import ARGUMENTS

MAX_LENGTH = 400
MAX_LINES = 200
MAX_DEPTH = 50
MAX_PROBLEMS = 50
LIMIT = 1e30

_TARGET = re.compile(r"[a-z][a-z0-9_]*")
# what a block's `forward` takes beside x, and what it calls
_RESERVED = frozenset({"self", "torch", "nn", "substate", "scope", *ARGUMENTS})
_OPERATORS: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*"}
_ALLOWED = "only names, numbers, + - *, parentheses and calls such as mixer(x) are allowed"


class Name(NamedTuple):
    """A value that an earlier line defined, or the input x."""

    name: str


class Number(NamedTuple):
    """A finite constant that is not negative (see `Negate`)."""

    value: int | float


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


Expr = Name | Number | Call | Binary | Negate


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
    steps = []
    for number, line in enumerate(lines, 1):
        try:
            steps.append(_parse_line(line.strip()))
        except Fault as fault:
            raise Fault(f"line {number}: {fault}") from None
    return Wiring(tuple(steps))


def _parse_line(line: str) -> Assign:
    """One `target = expression`."""
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
                raise Fault(f"{target!r} cannot be assigned; use lower-case names other than {_listed(_RESERVED)}")
            return Assign(target, _expr(value, line, 1))
    raise Fault(f"`{line}` is not an assignment; write name = expression, for example x = x + mixer(norm1(x))")


def _expr(node: ast.expr, line: str, depth: int) -> Expr:
    """The whitelist: Python's tree to ours, or a Fault."""
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
            return Negate(_expr(operand, line, depth + 1))
        case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() as sign):
            left, right = _expr(node.left, line, depth + 1), _expr(node.right, line, depth + 1)
            return Binary(_OPERATORS[type(sign)], left, right)
        case ast.Call(func=ast.Name(id=module), args=arguments, keywords=keywords):
            if keywords or any(isinstance(argument, ast.Starred) for argument in arguments):
                raise Fault(f"{module} takes exactly one value, without name or star, as in {module}(x): `{line}`")
            if len(arguments) != 1:
                raise Fault(f"{module} takes exactly one value, found {len(arguments)}: `{line}`")
            return Call(module, _expr(arguments[0], line, depth + 1))
    raise Fault(f"`{ast.get_source_segment(line, node)}` is not allowed: {_ALLOWED}")


def problems(wiring: Wiring, modules: Collection[str]) -> list[str]:
    """What is wrong with a wiring for a block with these modules, in words (at most 50); empty when it is right."""
    lines = list(islice(_wrong_lines(wiring, modules), MAX_PROBLEMS))
    whole = chain(_unread(wiring), _wrong_output(wiring, bool(lines)))
    called = {*wiring.calls(), *(modules if lines else ())}  # a wrong line may be where one was meant to be called
    uncalled = (f"the module {module!r} is never called" for module in sorted(modules) if module not in called)
    return list(islice(chain(lines, whole, uncalled), MAX_PROBLEMS))


def _wrong_lines(wiring: Wiring, modules: Collection[str]) -> Iterator[str]:
    """Each line by itself, with the names that are defined when it runs."""
    defined = {"x"}
    for number, step in enumerate(wiring.steps, 1):
        parts = list(walk(step.value))
        for wrong in chain.from_iterable(_wrong_part(part, defined, modules) for part in parts):
            yield f"line {number} {wrong}"
        if step.target in modules:
            yield f"line {number} assigns {step.target!r}, which is the name of a module; choose another name"
        if not _is_tensor(step.value):
            yield f"line {number} gives {step.target!r} a number; a line needs a tensor, such as x or mixer(x)"
        for part in parts:
            if isinstance(part, Binary) and part.operator == "*":
                for factor, other in ((part.left, part.right), (part.right, part.left)):
                    if _is_zero(factor) and _is_tensor(other):
                        yield f"line {number}: the factor 0 leaves nothing of {written(other)}; remove the product"
        defined.add(step.target)


def _wrong_part(part: Expr, defined: Collection[str], modules: Collection[str]) -> Iterator[str]:
    """A name that is not defined yet, a module that does not exist, a module that gets a number."""
    if isinstance(part, Name) and part.name not in defined:
        if part.name in modules:
            yield f"names the module {part.name!r} without a call; write {part.name}(x)"
        else:
            yield f"reads {part.name!r}, which no earlier line defines; known: {_listed(defined)}"
    elif isinstance(part, Call):
        if part.module not in modules:
            known = suggest(part.module, modules) if modules else "; it has none"
            yield f"calls {part.module!r}, which is no module of the block{known}"
        if not _is_tensor(part.argument):
            yield f"gives {part.module!r} a number; a module needs a tensor"


def _is_zero(expr: Expr) -> bool:
    match expr:
        case Number(value=value):
            return value == 0
        case Negate(operand=operand):
            return _is_zero(operand)
        case Binary(operator="*", left=left, right=right):
            return _is_zero(left) or _is_zero(right)
    return False


def _is_tensor(expr: Expr) -> bool:
    return any(isinstance(part, (Name, Call)) for part in walk(expr))


def _reads(expr: Expr) -> set[str]:
    return {part.name for part in walk(expr) if isinstance(part, Name)}


def _unread(wiring: Wiring) -> Iterator[str]:
    """Values that are dropped: assigned, and then assigned again or forgotten before anything reads them."""
    waiting: dict[str, int] = {}  # what is not read yet, and the line that assigned it
    found = {}
    for number, step in enumerate(wiring.steps, 1):
        waiting = {target: at for target, at in waiting.items() if target not in _reads(step.value)}
        if (at := waiting.get(step.target)) is not None:
            found[at] = f"line {at} assigns {step.target!r}, which line {number} overwrites before anything reads it"
        waiting[step.target] = number
    for target, at in waiting.items():
        if at < len(wiring.steps):
            found[at] = f"line {at} assigns {target!r}, which no later line reads"
    yield from (found[at] for at in sorted(found))


def _wrong_output(wiring: Wiring, doubtful: bool) -> Iterator[str]:
    """The last line must assign x, and x must have come from the input (which a wrong line leaves open)."""
    independent: set[str] = set()
    for step in wiring.steps:  # a name that nothing defines is taken to depend on x, as it is told elsewhere
        depends = bool(_reads(step.value) - independent)
        independent = independent - {step.target} if depends else independent | {step.target}
    last = wiring.steps[-1].target
    if last != "x":
        yield f"the last line assigns {last!r}, but the output of a block is x; write x = ... there"
    elif not doubtful and last in independent:
        yield "the output x does not depend on the input x"


def _listed(words: Collection[str]) -> str:
    return ", ".join(sorted(words))
