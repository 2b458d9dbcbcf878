"""The stacks of a lowered model as panels see them: what each reads, runs in order, and passes on."""

from collections.abc import Iterator
from dataclasses import dataclass

from archspec.language.model import Head, Spec, Stack
from archspec.layers.base import Component
from archspec.lowering import Function
from archspec.lowering.program import Assign, Call, Each, Expression, Layers, Once, Period, Value, walk


@dataclass(frozen=True)
class StackView:
    """One stack of a model.

    Attributes:
        body: the function that runs it; of a model with one stack that of the model.
        steps: components, and the layers, in the order in which they run; those of the head follow the last stack.
        decodes: whether what it keeps is there while decoding: it is the last one.
        reads: the argument under which it is given another stack's output, and the name of that stack.
        heads: those that read it, each with what it gives, in words.
    """

    body: Function
    steps: tuple[Component | Layers, ...]
    decodes: bool
    reads: tuple[tuple[str, str], ...] = ()
    heads: tuple[tuple[Head, str], ...] = ()

    @property
    def stack(self) -> Stack:
        """What the spec says of it."""
        return self.body.stack

    @property
    def name(self) -> str:
        """The name in the spec."""
        return self.stack.name

    @property
    def d_model(self) -> int:
        """Width of its residual stream."""
        return self.stack.d_model

    @property
    def periods(self) -> tuple[Period, ...]:
        """Its layers, repeats folded."""
        return tuple(period for step in self.steps if isinstance(step, Layers) for period in step.periods)


def stacks_of(program: Function) -> list[StackView]:
    """The stacks of a lowered model in the order in which they run."""
    found: list[StackView] = []
    outputs: dict[str, str] = {}
    for target, call, body in _runs(program):
        main = body.stack is program.stack
        steps = (*_steps(body), *(_steps(program) if main else ()))
        given = tuple((name, outputs[v.name]) for name, v in call.named if isinstance(v, Value) and v.name in outputs)
        found.append(StackView(body, steps, main, given, _heads(program) if main else ()))
        outputs[target] = body.stack.name
    return found or [StackView(program, tuple(_steps(program)), True, heads=_heads(program))]


def _heads(program: Function) -> tuple[tuple[Head, str], ...]:
    """The heads of a model with what they give."""
    spec = program.of
    assert isinstance(spec, Spec)
    return tuple((head, spec.gives(head)) for head in spec.heads)


def _runs(program: Function) -> Iterator[tuple[str, Call, Function]]:
    """The calls of stacks in a model of several: what the output is called, the call, and what is called."""
    for statement in program.statements:
        value = statement.value if isinstance(statement, Assign) else None
        value = value.value if isinstance(value, Once) else value
        if isinstance(value, Call) and isinstance(made := program.made(value.member), Function):
            yield statement.target, value, made


def _steps(function: Function) -> Iterator[Component | Layers]:
    """The components that a function calls, and its layers, in order."""
    for statement in function.statements:
        if isinstance(statement, Each):
            layers = function.made(statement.member)
            assert isinstance(layers, Layers)
            yield layers
        else:
            yield from _called(function, statement.value)
    yield from _called(function, function.result)


def _called(function: Function, expression: Expression) -> Iterator[Component]:
    for part in walk(expression):
        if isinstance(part, Call) and isinstance(made := function.made(part.member), Component):
            yield made
