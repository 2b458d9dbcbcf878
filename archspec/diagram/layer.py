"""One layer as its block was lowered: norms, parts, sums and scaled branches, with the residual paths as rails."""

import re
from itertools import count

from archspec.diagram.boxes import params
from archspec.diagram.flow import SINK, SOURCE, Edge, Flow, Node, bare, box, circle, white
from archspec.diagram.kinds import Kinds, name_of
from archspec.diagram.style import NORM
from archspec.diagram.words import DOT, MINUS, TIMES, WIRINGS, amount, shape_text, spelled
from archspec.language.streams import named
from archspec.language.wiring import Wiring
from archspec.layers.arguments import ARGUMENTS
from archspec.layers.base import Component, NormComponent, ScaleComponent
from archspec.layers.ops import Experts
from archspec.lowering import Function
from archspec.lowering.program import Assign, Binary, Call, Expression, Negate, PerLayer, Value
from archspec.lowering.program import Number as Constant

SIGNS = {"+": "+", "-": MINUS, "*": TIMES}
DECIMAL = re.compile(r"(?<![\w.])\d+\.\d+(e[+-]?\d+)?")


def wiring_words(wiring: Wiring) -> tuple[str, list[str]]:
    """What the wiring is called; and, where it has no name, its lines, numbers with four significant digits."""
    if wiring.name:
        return WIRINGS.get(wiring.name, spelled(wiring.name)), []
    return WIRINGS[""], [DECIMAL.sub(lambda found: f"{float(found[0]):.4g}", line) for line in wiring.lines()]


def layer_flow(block: Function, d_model: int, kinds: Kinds) -> Flow:
    """The flow of one layer."""
    return _Layer(block, d_model, kinds).flow


class _Layer:
    """A lowered block being run on the names of nodes."""

    def __init__(self, block: Function, d_model: int, kinds: Kinds):
        self.block, self.kinds = block, kinds
        self.flow = Flow()
        self.numbers = count(1)
        first, *others = named(block.stack.streams)
        shape = shape_text(("B", "T", d_model))
        self.flow.add(bare(SOURCE, f"{first} {shape}"))
        self.values = {first: SOURCE} | {name: self.given(f"{name} {shape}") for name in others}
        for statement in block.statements:
            assert isinstance(statement, Assign)
            ends_in = self.value(statement.value)
            self.values |= dict.fromkeys(statement.target.split(", "), ends_in)
        self.flow.add(bare(SINK, f"{first} {shape}" if others else shape), (self.value(block.result),))
        for name in block.gives:
            label = f"{name} {shape}" if name in others else name
            self.flow.add(bare(self.name(name), label), (self.value(Value(name)),))
        _mark_rails(self.flow)

    def value(self, expression: Expression) -> str:
        """The node that an expression ends in."""
        match expression:
            case Value(name=name):
                return self.values[name] if name in self.values else self.given(name)
            case Call():
                return self.call(expression)
            case Negate(operand=operand):
                return self.flow.add(white(self.name("negate"), MINUS), (self.value(operand),)).name
            case Binary(operator=operator, left=left, right=right):
                return self.binary(SIGNS[operator], left, right)
        raise TypeError(f"a block has no {type(expression).__name__} in its place")

    def binary(self, sign: str, left: Expression, right: Expression) -> str:
        """A sum or product; one with a number is a small box on the line."""
        for constant, other in ((left, right), (right, left)):
            if (written := _written(constant)) is not None:
                return self.flow.add(white(self.name("scale"), f"{sign} {written}"), (self.value(other),)).name
        sides = (self.value(left), self.value(right))
        return self.flow.add(circle(self.name("sum"), sign), sides).name

    def call(self, call: Call) -> str:
        """The node of a part and what it reads; dropout is not drawn."""
        part, source = self.block.made(call.member), self.value(call.argument)
        if not isinstance(part, Component):
            return source
        name = self.name(call.member) if call.member in self.flow.nodes else call.member
        others = [self.value(value) for argument, value in call.named if ARGUMENTS[argument].data]
        return self.flow.add(self.node(name, part), (source, *others)).name

    def given(self, name: str) -> str:
        """A new node for what the stack gives its layers."""
        return self.flow.add(bare(self.name(name), spelled(name))).name

    def node(self, name: str, part: Component) -> Node:
        """The box of a part."""
        if isinstance(part, NormComponent | ScaleComponent):
            return box(name, part.title, (), NORM, 9, least=92)
        kind = self.kinds.of.get(id(part))
        title = kind.title if kind is not None and kind.title else name_of(part)
        found = box(name, title, (_size(part),), kind.tone if kind else NORM, 11, least=110)
        found.h += 12
        return found

    def name(self, stem: str) -> str:
        """A new name."""
        return f"{stem}#{next(self.numbers)}"


def _written(expression: Expression) -> str | None:
    """A constant with four significant digits; None for what is none."""
    match expression:
        case Constant(value=value):
            return f"{value:.4g}"
        case PerLayer(text=text):
            text = DECIMAL.sub(lambda found: f"{float(found[0]):.4g}", text)
            return text if text.isalnum() else f"({text})"
        case Negate(operand=operand):
            inner = _written(operand)
            return None if inner is None else f"-{inner}"
    return None


def _size(part: Component) -> str:
    ops = part.ops()
    total = params(ops)
    active = sum(p.numel * p.active[0] // p.active[1] for op in ops for p in op.params if not p.buffer)
    if any(isinstance(op, Experts) for op in ops):
        return f"{amount(total)} {DOT} {amount(active)} active"
    return f"{amount(total)} params" if total else "no parameters"


def _mark_rails(flow: Flow) -> None:
    """Lines into a sum from something that its other input also comes from are residual paths."""
    above: dict[str, set[str]] = {}
    for name in flow.nodes:
        sources = [e.source for e in flow.into(name)]
        above[name] = set(sources).union(*(above[s] for s in sources))
    for name, node in flow.nodes.items():
        edges = flow.into(name)
        if node.form != "circle" or len(edges) != 2:
            continue
        for edge, other in (edges, edges[::-1]):
            if edge.source in above[other.source]:
                flow.replace(edge, Edge(edge.source, name, edge.order, "residual"))
                break
