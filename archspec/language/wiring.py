"""How a block is wired: lines such as `x = x + mixer(norm1(x))`, read into a small tree and never evaluated.

An expression is an earlier name, a number, `+ - *`, a unary minus, parentheses, or a call of one of the block's modules
with exactly one argument. `x` is the input of the block and, after the last line, its output.
"""

import ast
import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice

from archspec.errors import Fault, suggest

MAX_LENGTH = 400
MAX_LINES = 200
MAX_DEPTH = 50
MAX_PROBLEMS = 50
LIMIT = 1e30
SUBLAYERS = ("mixer", "cross", "ffn")

_TARGET = re.compile(r"[a-z][a-z0-9_]*")
# what a block's `forward` takes beside x, and what it calls
_RESERVED = frozenset(
    {"self", "torch", "nn", "state", "mask", "memory", "memory_mask", "bias", "prefix_len", "substate"}
)
_OPERATORS: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*"}
_ALLOWED = "only names, numbers, + - *, parentheses and calls such as mixer(x) are allowed"


@dataclass(frozen=True)
class Name:
    """A value that an earlier line defined, or the input x."""

    name: str


@dataclass(frozen=True)
class Number:
    """A finite constant that is not negative (see `Negate`)."""

    value: int | float


@dataclass(frozen=True)
class Call:
    """A module of the block, applied to one tensor."""

    module: str
    argument: "Expr"


@dataclass(frozen=True)
class Binary:
    """`left operator right`, where the operator is one of + - *."""

    operator: str
    left: "Expr"
    right: "Expr"


@dataclass(frozen=True)
class Negate:
    """`-operand`."""

    operand: "Expr"


Expr = Name | Number | Call | Binary | Negate


@dataclass(frozen=True)
class Assign:
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
        return tuple(f"{step.target} = {text(step.value)}" for step in self.steps)


def walk(expr: Expr) -> Iterator[Expr]:
    """All parts of an expression in order of evaluation: operands before what uses them, left before right."""
    match expr:
        case Call(argument=operand) | Negate(operand=operand):
            yield from walk(operand)
        case Binary(left=left, right=right):
            yield from walk(left)
            yield from walk(right)
    yield expr


def text(expr: Expr, level: int = 0) -> str:
    """The expression as a line has it; `level` is how tightly its surroundings bind (0 sum, 1 product, 2 sign)."""
    match expr:
        case Name(name=name):
            return name
        case Number(value=value):
            return repr(value)
        case Call(module=module, argument=argument):
            return f"{module}({text(argument)})"
        case Negate(operand=operand):
            return f"-{text(operand, 2)}"
        case Binary(operator=operator, left=left, right=right):
            own = 1 if operator == "*" else 0
            plain = f"{text(left, own)} {operator} {text(right, own + 1)}"
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
            steps.append(_parse_line(line))
        except Fault as fault:
            raise Fault(f"line {number}: {fault}") from None
    return Wiring(tuple(steps))


def _parse_line(line: str) -> Assign:
    """One `target = expression`."""
    line = line.strip()
    if len(line) > MAX_LENGTH:
        raise Fault(f"at most {MAX_LENGTH} characters are allowed, found {len(line)}; use more lines")
    if not line.isascii() or not line.isprintable():
        raise Fault("only printable ASCII characters are allowed, one assignment a line")
    match _statements(line):
        case [ast.Assign(targets=[ast.Name(id=target)], value=value)]:
            if not _TARGET.fullmatch(target) or target in _RESERVED:
                raise Fault(f"{target!r} cannot be assigned; use lower-case names other than {_listed(_RESERVED)}")
            return Assign(target, _expr(value, line, 1))
    raise Fault(f"`{line}` is not an assignment; write name = expression, for example x = x + mixer(norm1(x))")


def _statements(line: str) -> list[ast.stmt]:
    try:
        return ast.parse(line).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise Fault(f"`{line}` cannot be read: {_ALLOWED}") from None


def _expr(node: ast.expr, line: str, depth: int) -> Expr:
    """The whitelist: Python's tree to ours, or a Fault."""
    if depth > MAX_DEPTH:
        raise Fault(f"nested more than {MAX_DEPTH} levels deep; use more lines")
    match node:
        case ast.Name(id=name):
            return Name(name)
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return _number(value)
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


def _number(value: int | float) -> Number:
    if not abs(value) < LIMIT:
        raise Fault(f"a number is too large; stay below {LIMIT:g}")
    return Number(value)


def check(wiring: Wiring, modules: Collection[str]) -> list[str]:
    """What is wrong with a wiring for a block with these modules, in words (at most 50); empty when it is right."""
    lines = list(islice(_check_lines(wiring, modules), MAX_PROBLEMS))
    flow = chain(_check_unread(wiring), _check_output(wiring, bool(lines)))
    uncalled = () if lines else _check_uncalled(wiring, modules)  # a wrong line may be where it was meant to be called
    return list(islice(chain(lines, flow, uncalled), MAX_PROBLEMS))


def _check_lines(wiring: Wiring, modules: Collection[str]) -> Iterator[str]:
    """Each line by itself, with the names that are defined when it runs."""
    defined = ["x"]
    for number, step in enumerate(wiring.steps, 1):
        yield from _check_reads(number, step.value, defined, modules)
        yield from _check_target(number, step, modules)
        yield from _check_factors(number, step.value)
        if step.target not in defined:
            defined.append(step.target)


def _check_reads(number: int, expr: Expr, defined: Sequence[str], modules: Collection[str]) -> Iterator[str]:
    """Names that are not defined yet, modules that do not exist, modules that get a number."""
    for part in walk(expr):
        if isinstance(part, Name) and part.name not in defined:
            if part.name in modules:
                yield f"line {number} names the module {part.name!r} without a call; write {part.name}(x)"
            else:
                yield f"line {number} reads {part.name!r}, which no earlier line defines; known: {_listed(defined)}"
        elif isinstance(part, Call):
            if part.module not in modules:
                yield f"line {number} calls {part.module!r}, which is no module of the block{_known(part, modules)}"
            if not _is_tensor(part.argument):
                yield f"line {number} gives {part.module!r} a number; a module needs a tensor"


def _known(call: Call, modules: Collection[str]) -> str:
    return suggest(call.module, modules) if modules else "; it has none"


def _check_target(number: int, step: Assign, modules: Collection[str]) -> Iterator[str]:
    """A target that hides a module, and a line without a tensor."""
    if step.target in modules:
        yield f"line {number} assigns {step.target!r}, which is the name of a module; choose another name"
    if not _is_tensor(step.value):
        yield f"line {number} gives {step.target!r} a number; a line needs a tensor, such as x or mixer(x)"


def _check_factors(number: int, expr: Expr) -> Iterator[str]:
    """A product with 0, in which whatever stands beside it is computed for nothing."""
    for part in walk(expr):
        if isinstance(part, Binary) and part.operator == "*":
            for factor, other in ((part.left, part.right), (part.right, part.left)):
                if _is_zero(factor) and _is_tensor(other):
                    yield f"line {number}: the factor 0 leaves nothing of {text(other)}; remove the product"


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


def _check_unread(wiring: Wiring) -> Iterator[str]:
    """Values that are dropped: assigned, and then assigned again or forgotten before anything reads them."""
    reads = [_reads(step.value) for step in wiring.steps]
    for at, step in enumerate(wiring.steps):
        for number, later in enumerate(wiring.steps[at + 1 :], at + 2):
            if step.target in reads[number - 1]:
                break
            if later.target == step.target:
                yield f"line {at + 1} assigns {step.target!r}, which line {number} overwrites before anything reads it"
                break
        else:
            if at + 1 < len(wiring.steps):
                yield f"line {at + 1} assigns {step.target!r}, which no later line reads"


def _reads(expr: Expr) -> set[str]:
    return {part.name for part in walk(expr) if isinstance(part, Name)}


def _check_output(wiring: Wiring, doubtful: bool) -> Iterator[str]:
    """The last line must assign x, and x must have come from the input (which a wrong line leaves open)."""
    last = wiring.steps[-1]
    if last.target != "x":
        yield f"the last line assigns {last.target!r}, but the output of a block is x; write x = ... there"
    elif not doubtful and not _comes_from_input(wiring):
        yield "the output x does not depend on the input x"


def _comes_from_input(wiring: Wiring) -> bool:
    """Whether the last value depends on x; a name that nothing defines is taken to, as it is reported elsewhere."""
    independent: set[str] = set()
    for step in wiring.steps:
        if _reads(step.value) - independent:
            independent.discard(step.target)
        else:
            independent.add(step.target)
    return wiring.steps[-1].target not in independent


def _check_uncalled(wiring: Wiring, modules: Collection[str]) -> Iterator[str]:
    """Modules that would have weights and never run."""
    called = set(wiring.calls())
    for module in sorted(modules) if isinstance(modules, (set, frozenset)) else modules:
        if module not in called:
            yield f"the module {module!r} is never called"


def _listed(words: Collection[str]) -> str:
    return ", ".join(sorted(words))


# one line for each sub-layer f; <...> is the branch that dropout wraps, a and b number the norms of the line
_EACH = {
    "pre": "x = x + <{f}(norm{a}(x))>",
    "post": "x = norm{a}(x + <{f}(x)>)",
    "sandwich": "x = x + <norm{b}({f}(norm{a}(x)))>",
    "inner_post": "x = x + <norm{a}({f}(x))>",
    "deepnorm": "x = norm{a}({alpha} * x + <{f}(x)>)",
    "layer_scale": "x = x + <scale{a}({f}(norm{a}(x)))>",
    "none": "x = x + <{f}(x)>",
}
# all sub-layers beside each other: the lines before, and the branch of each
_PARALLEL: dict[str, tuple[tuple[str, ...], str]] = {
    "parallel": (("h = norm1(x)",), "<{f}(h)>"),
    "parallel_two_norms": ((), "<{f}(norm{a}(x))>"),
}
BUILTINS: tuple[str, ...] = (
    "pre", "post", "sandwich", "inner_post", "parallel", "parallel_two_norms", "deepnorm", "layer_scale", "none",
)  # fmt: skip


def builtin(kind: str, sublayers: Sequence[str], dropout: bool = False, alpha: float | None = None) -> tuple[str, ...]:
    """The lines of a built-in wiring for the sub-layers that are present, norms numbered in order of use.

    `sublayers` is some of mixer, cross, ffn in that order. With `dropout` each branch is wrapped in dropout(...) just
    before it is added. `alpha` is the residual factor of DeepNorm (Wang et al. 2022, arXiv:2203.00555) and belongs to
    `deepnorm` alone. Raises Fault for an unknown kind and for what the kind cannot be written with.
    """
    if kind not in BUILTINS:
        raise Fault(f"no wiring {kind[:60]!r}{suggest(kind[:60], BUILTINS)}")
    _check_builtin(kind, sublayers, alpha)
    wrap = ("dropout(", ")") if dropout else ("", "")
    return tuple(line.replace("<", wrap[0]).replace(">", wrap[1]) for line in _written(kind, sublayers, alpha))


def _check_builtin(kind: str, sublayers: Sequence[str], alpha: float | None) -> None:
    if not sublayers or list(sublayers) != [name for name in SUBLAYERS if name in sublayers]:
        found = ", ".join(sublayers) or "nothing"
        raise Fault(f"a wiring needs some of {', '.join(SUBLAYERS)} in that order, found {found}")
    if kind in _PARALLEL and len(sublayers) < 2:
        raise Fault(f"{kind} needs at least two sub-layers, found {sublayers[0]} alone; use pre")
    if kind == "deepnorm" and (alpha is None or not math.isfinite(alpha)):
        raise Fault(f"deepnorm needs a finite alpha, found {alpha}")
    if kind != "deepnorm" and alpha is not None:
        raise Fault(f"alpha belongs to deepnorm, not to {kind}")


def _written(kind: str, sublayers: Sequence[str], alpha: float | None) -> list[str]:
    """The lines with their branches still in <...>."""
    if kind in _PARALLEL:
        lines, branch = _PARALLEL[kind]
        return [*lines, " + ".join(["x = x", *(branch.format(f=f, a=a) for a, f in enumerate(sublayers, 1))])]
    norms = 2 if "{b}" in _EACH[kind] else 1
    firsts = range(1, norms * len(sublayers) + 1, norms)
    return [_EACH[kind].format(f=f, a=a, b=a + 1, alpha=repr(alpha)) for a, f in zip(firsts, sublayers, strict=True)]
