"""Functions of statements over named values: the form to which a spec is lowered."""

from collections.abc import Iterator
from dataclasses import dataclass

from archspec.language.model import Block, Spec, Stack
from archspec.layers.base import Component
from archspec.layers.ops import Shape

# Expressions


@dataclass(frozen=True, slots=True)
class Value:
    """What an earlier statement gave, or a parameter."""

    name: str


@dataclass(frozen=True, slots=True)
class Number:
    """A constant."""

    value: int | float


@dataclass(frozen=True, slots=True)
class Negate:
    """`-operand`."""

    operand: "Expression"


@dataclass(frozen=True, slots=True)
class Binary:
    """`left operator right`, where the operator is one of + - *."""

    operator: str
    left: "Expression"
    right: "Expression"


@dataclass(frozen=True, slots=True)
class Call:
    """A member called: with one value, and further ones by name."""

    member: str
    argument: "Expression"
    named: tuple[tuple[str, "Expression"], ...] = ()


@dataclass(frozen=True, slots=True)
class Substate:
    """The decoding state of the member with that key; `key` None is the number of the layer in a loop."""

    key: str | None


@dataclass(frozen=True, slots=True)
class Once:
    """A value that is computed in the first call of a sequence and remembered by the state under `key`."""

    key: str
    value: "Expression"


Expression = Value | Number | Negate | Binary | Call | Substate | Once

# Statements


@dataclass(frozen=True, slots=True)
class Assign:
    """`target = value`; `shape` of what it gives, where that is worth a remark."""

    target: str
    value: Expression
    shape: Shape | None = None


@dataclass(frozen=True, slots=True)
class Each:
    """`target = member[i](target, ...)` for every layer in turn."""

    target: str
    member: str
    named: tuple[tuple[str, Expression], ...] = ()


Statement = Assign | Each

# Members


@dataclass(frozen=True, slots=True)
class Dropout:
    """The member that drops values in training."""

    rate: float


@dataclass(frozen=True, slots=True)
class Period:
    """`repeat` times the same layers, the first of them number `start`; with `shared`, one set of weights."""

    start: int
    layers: tuple["Function", ...]
    repeat: int
    shared: bool


@dataclass(frozen=True, slots=True)
class Layers:
    """The layers of a stack, repeats folded."""

    periods: tuple[Period, ...]


@dataclass(frozen=True, slots=True)
class Member:
    """A sub-module: its name, what it is, and for a norm the width that it is built for."""

    name: str
    made: "Component | Dropout | Layers | Function"
    width: int | None = None


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a function takes; `of` is the word of the layers for it (tokens, mask, ...)."""

    name: str
    of: str
    required: bool = False


@dataclass(frozen=True, eq=False)
class Function:
    """A module: its members, what its forward takes, the statements of that, and what it returns.

    `stack` is that which it is or belongs to; for a model, the one that the head reads.
    """

    of: Spec | Stack | Block
    stack: Stack
    members: tuple[Member, ...]
    parameters: tuple[Parameter, ...]
    statements: tuple[Statement, ...]
    result: Expression

    def member(self, name: str) -> Member:
        """The member of that name."""
        return next(m for m in self.members if m.name == name)

    def made(self, name: str) -> "Component | Dropout | Layers | Function":
        """What the member of that name is."""
        return self.member(name).made


def walk(expression: Expression) -> Iterator[Expression]:
    """All parts of an expression in order of evaluation: operands before what uses them, left before right."""
    match expression:
        case Call(argument=argument, named=named):
            for inner in (argument, *(value for _, value in named)):
                yield from walk(inner)
        case Negate(operand=operand):
            yield from walk(operand)
        case Binary(left=left, right=right):
            yield from walk(left)
            yield from walk(right)
        case Once(value=value):
            yield from walk(value)
    yield expression
