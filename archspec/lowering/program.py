"""Functions of statements over named values: the form to which a spec is lowered."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from archspec.language.model import Block, Spec, Stack
from archspec.layers.base import Component
from archspec.layers.ops import Shape

# Expressions


class Value(NamedTuple):
    """What an earlier statement gave, or a parameter."""

    name: str


class Number(NamedTuple):
    """A constant."""

    value: int | float


class PerLayer(NamedTuple):
    """A number that a layer works out when it is built: its name there, and arithmetic on `layer`."""

    name: str
    text: str


class Negate(NamedTuple):
    """`-operand`."""

    operand: "Expression"


class Binary(NamedTuple):
    """`left operator right`, where the operator is one of + - *."""

    operator: str
    left: "Expression"
    right: "Expression"


class Call(NamedTuple):
    """A member called: with one value, and further ones by name; with `by_rows`, on each document by itself."""

    member: str
    argument: "Expression"
    named: tuple[tuple[str, "Expression"], ...] = ()
    by_rows: bool = False


class Apply(NamedTuple):
    """A function of `kernels.padding` on values: what a model does with its mask, positions and documents."""

    function: str
    arguments: tuple["Expression", ...]


class Substate(NamedTuple):
    """The decoding state of the member with that key; `key` None is the number of the layer in a loop."""

    key: str | None


class Collect(NamedTuple):
    """Where the whole model records its losses and counts: the dict that it is given, which must be empty."""


class Scoped(NamedTuple):
    """Where the call of a member records; in a loop, of the member of that name whose number is that of the layer."""

    key: str
    numbered: bool = False


class ByName(NamedTuple):
    """A dict of values by name."""

    items: tuple[tuple[str, "Expression"], ...]


class Once(NamedTuple):
    """A value that is computed in the first call of a sequence and remembered by the state under `key`."""

    key: str
    value: "Expression"


Expression = Value | Number | PerLayer | Negate | Binary | Call | Apply | Substate | Collect | Scoped | Once | ByName

# Statements


class Assign(NamedTuple):
    """`target = value`, or several targets with commas between them.

    `shape` of what it gives, where that is worth a remark. What only `checks` is not done in plain files.
    """

    target: str
    value: Expression
    shape: Shape | None = None
    checks: bool = False


class Passed(NamedTuple):
    """What one layer reads of earlier ones beside x, and gives to later ones: names of values of the stack."""

    reads: tuple[str, ...]
    gives: tuple[str, ...]


class Run(NamedTuple):
    """The layers of one period as often as it repeats, from number `start`: what passes between them, by layer."""

    start: int
    repeat: int
    layers: tuple[Passed, ...]

    @property
    def stop(self) -> int:
        """The number of the layer behind the last."""
        return self.start + self.repeat * len(self.layers)


class Each(NamedTuple):
    """`target = member[i](target, ...)` for every layer in turn.

    Where values pass between the layers beside x, `runs` say which, one a period of the member.
    """

    target: str
    member: str
    named: tuple[tuple[str, Expression], ...] = ()
    runs: tuple[Run, ...] = ()


Statement = Assign | Each

# Members


class Dropout(NamedTuple):
    """The member that drops values in training."""

    rate: float


class Period(NamedTuple):
    """`repeat` times the same layers, the first of them number `start`; with `shared`, one set of weights."""

    start: int
    layers: tuple["Function", ...]
    repeat: int
    shared: bool

    @property
    def n_layers(self) -> int:
        """Layers that run."""
        return len(self.layers) * self.repeat


class Layers(NamedTuple):
    """The layers of a stack, repeats folded."""

    periods: tuple[Period, ...]


class Member(NamedTuple):
    """A sub-module: its name, what it is, and for a norm the width that it is built for."""

    name: str
    made: "Component | Dropout | Layers | Function"
    width: int | None = None


class Parameter(NamedTuple):
    """What a function takes; `of` is the word of the layers for it (tokens, mask, ...)."""

    name: str
    of: str
    required: bool = False


@dataclass(frozen=True, eq=False)
class Function:
    """A module: its members, what its forward takes, the statements of that, and what it returns.

    A layer also returns the values that it `gives` to later ones.

    `stack` is that which it is or belongs to; for a model, the one that the heads read.
    """

    of: Spec | Stack | Block
    stack: Stack
    members: tuple[Member, ...]
    parameters: tuple[Parameter, ...]
    statements: tuple[Statement, ...]
    result: Expression
    gives: tuple[str, ...] = ()

    @property
    def numbered(self) -> bool:
        """Whether it is a layer that is built with its number."""
        return isinstance(self.of, Block) and self.of.numbered

    @property
    def per_layer(self) -> tuple[PerLayer, ...]:
        """The numbers that it works out when it is built, each once."""
        values = [*(s.value for s in self.statements if isinstance(s, Assign)), self.result]
        return tuple(dict.fromkeys(e for value in values for e in walk(value) if isinstance(e, PerLayer)))

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
        case Apply(arguments=arguments):
            for inner in arguments:
                yield from walk(inner)
        case Negate(operand=operand):
            yield from walk(operand)
        case Binary(left=left, right=right):
            yield from walk(left)
            yield from walk(right)
        case Once(value=value):
            yield from walk(value)
        case ByName(items=items):
            for _, inner in items:
                yield from walk(inner)
    yield expression
