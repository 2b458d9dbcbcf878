"""A spec as a graph of ops, repeats folded: the lowered program with the ops of every component written out.

A node is one op of one layer of one period; it says how often it runs and with how many sets of weights. Edges are the
dataflow. Names are those of the modules: `blocks.0.mixer.q_proj` stands for the same place of every repeat of its
period. `graph` gives a frozen value, which counting reads; `lower` gives the same as a `networkx.DiGraph`, of which
whatever is a question about a graph is asked.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count as counter
from typing import TYPE_CHECKING, Any, NamedTuple

from archspec.language.model import Spec, need_spec
from archspec.layers.arguments import ARGUMENTS
from archspec.layers.base import Component, NormComponent
from archspec.layers.ops import ADD, MULTIPLY, SUBTRACT, Elementwise, Op, Param
from archspec.lowering import Function, lower_model
from archspec.lowering.program import (
    Assign,
    Binary,
    ByName,
    Call,
    Dropout,
    Each,
    Expression,
    Layers,
    Negate,
    Number,
    Once,
    PerLayer,
    Value,
)

if TYPE_CHECKING:
    import networkx as nx

OPERATORS = {"+": ADD, "-": SUBTRACT, "*": MULTIPLY}
NOWHERE = ""  # what an argument that carries no data of the model stands for


class Node(NamedTuple):
    """An op, the component, stack and part that it belongs to, how often it stands there, and what it reads.

    `reads` names the node of each input of the op; nothing where it carries no data of the model. `sees` is the same,
    but for what goes around in a loop beside x, which stands there under a name of its own.
    """

    op: Op
    stack: str
    part: str
    component: Component | None
    segment: int = -1
    layer: int = -1
    period: int = 1
    repeat: int = 1
    copies: int = 1
    reads: tuple[str, ...] = ()
    sees: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its name in the graph."""
        return self.op.name

    @property
    def params(self) -> tuple[Param, ...]:
        """The tensors of one copy."""
        return self.op.params


class Loop(NamedTuple):
    """A segment of a stack whose period repeats: the nodes that the first period reads and the last one ends in.

    Where more than x goes around, `carries` has all of it: what the period calls it (`Node.sees`), the node that it
    enters from, and that from which the next turn has it.
    """

    stack: str
    segment: int
    enters: str
    leaves: str
    carries: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class Graph:
    """The nodes in order of the forward pass, the edges by name, (from, to), and the loops over layers.

    `dropped` names the nodes of whose results dropout takes a share in training, `outputs` those that the model gives.
    """

    nodes: tuple[Node, ...]
    edges: tuple[tuple[str, str], ...]
    dropped: frozenset[str] = frozenset()
    loops: tuple[Loop, ...] = ()
    outputs: tuple[str, ...] = ()

    @cached_property
    def sources(self) -> dict[str, list[str]]:
        """What each node reads, by name; none of those that read nothing."""
        found: dict[str, list[str]] = {}
        for source, reader in self.edges:
            found.setdefault(reader, []).append(source)
        return found

    @cached_property
    def order(self) -> dict[str, int]:
        """The place of each node in the forward pass."""
        return {node.name: i for i, node in enumerate(self.nodes)}


def graph(spec: Spec) -> Graph:
    """The graph of a spec."""
    need_spec(spec)
    return _Expansion(spec).graph()


def lower(spec: Spec) -> "nx.DiGraph[str]":
    """The graph of a spec as a `networkx.DiGraph`.

    Nodes are named as modules are; `graph.nodes[name]["node"]` is the `Node` with its op. An edge leads from an op to
    one that reads it. `graph.graph["spec"]` is the spec, and `graph.graph["outputs"]` names what the model gives.

    >>> import networkx, archspec
    >>> g = archspec.lower(archspec.load("specs/bert_tiny.yaml"))     # doctest: +SKIP
    >>> networkx.is_directed_acyclic_graph(g)                         # doctest: +SKIP
    True

    Raises:
        TypeError: what is given is no spec.
    """
    import networkx  # a quarter of the time of `archspec count`, which needs the nodes alone

    found = graph(spec)
    made: nx.DiGraph[str] = networkx.DiGraph(spec=spec, outputs=found.outputs)
    made.add_nodes_from((node.name, {"node": node}) for node in found.nodes)
    made.add_edges_from(found.edges)
    return made


def problems(graph: "nx.DiGraph[str]") -> list[str]:
    """What is wrong with a graph itself: cycles, ops that nothing reads, two tensors of one name.

    An empty list is what every spec must give; this checks archspec's own work.
    """
    import networkx

    found = [] if networkx.is_directed_acyclic_graph(graph) else ["the dataflow has a cycle"]
    given = graph.graph.get("outputs") or [next(reversed(list(graph.nodes)))]
    read = set(given).union(*(networkx.ancestors(graph, name) for name in given))
    found += [f"nothing reads {n}" for n in graph.nodes if n not in read]
    names = [p.name for node in graph.nodes for p in graph.nodes[node]["node"].params]
    return found + [f"two tensors are called {n}" for n in sorted({n for n in names if names.count(n) > 1})]


class _Expansion:
    """Runs the program of a spec on the names of nodes."""

    def __init__(self, spec: Spec):
        self.spec = spec
        self.nodes: dict[str, Node] = {}
        self.edges: dict[tuple[str, str], None] = {}
        self.dropped: set[str] = set()
        self.aliases: dict[str, str] = {}  # what goes around in a loop, and the nodes that it enters from
        self.loops: list[Loop] = []
        self.owned = {name for name, _ in spec.ties}  # a tied or reused tensor counts once

    def graph(self) -> Graph:
        """The graph."""
        spec = self.spec.taking()  # masks and positions change no op
        program = lower_model(spec)
        given = {a.name: NOWHERE for a in spec.arguments}
        for argument in (a for a in spec.arguments if not a.optional):
            shape = next(s.embedding.input_shape for s in spec.stacks if s.name == argument.stack)
            name = argument.name if len(spec.stacks) == 1 else f"{argument.stack}.{argument.of}"
            op = Elementwise(name=name, fn="input", shape=shape, inputs=())
            given[argument.name] = self.add(op, (), stack=argument.stack, part="input", component=None)
        outputs = _Scope(self, program, "", given, {"stack": spec.main.name}).outputs()
        return Graph(tuple(self.nodes.values()), tuple(self.edges), frozenset(self.dropped), tuple(self.loops), outputs)

    def add(self, op: Op, sources: Iterable[str], **place: Any) -> str:
        """Add a node and the edges to it; returns its name."""
        kept = tuple(p for p in op.params if p.name not in self.owned)
        self.owned |= {p.name for p in kept}
        sees = tuple(sources)
        reads = tuple(map(self.node, sees))
        self.nodes[op.name] = Node(
            op if kept == op.params else replace(op, params=kept), reads=reads, sees=sees, **place
        )
        self.edges |= {(source, op.name): None for source in reads if source != NOWHERE}
        return op.name

    def node(self, name: str) -> str:
        """The node that a value stands for."""
        while name in self.aliases:
            name = self.aliases[name]
        return name

    def component(self, c: Component, path: str, given: dict[str, str], **place: Any) -> str:
        """Add the ops of a component below `path`, fed with what it is given; returns the name of its output."""
        ops = c.ops()
        feeds = dict.fromkeys(ARGUMENTS, NOWHERE) | given
        feeds |= {op.name: f"{path}.{op.name}" for op in ops}
        last = given["x"]
        for op in ops:
            unknown = [i for i in op.inputs if i not in feeds]
            if unknown:
                raise LookupError(f"{type(c).__name__}: op {op.name} reads {unknown[0]!r}, which there is not")
            last = self.add(op.under(path), [feeds[i] for i in op.inputs], component=c, **place)
        return last


class _Scope:
    """One function being run: its values are names of nodes."""

    def __init__(
        self, expansion: _Expansion, function: Function, path: str, values: dict[str, str], place: dict[str, Any]
    ):
        self.expansion, self.function, self.path, self.values, self.place = expansion, function, path, values, place
        self.numbers = counter(1)

    def run(self) -> str:
        """The name of the node that the function returns."""
        (name,) = self.outputs()
        return name

    def outputs(self) -> tuple[str, ...]:
        """The names of the nodes that the function returns: one, or those of a dict in its order."""
        for statement in self.function.statements:
            if isinstance(statement, Assign):
                first, *others = statement.target.split(", ")
                self.values[first] = self.value(statement.value)
                if others and isinstance(statement.value, Call):
                    self.values.update(zip(others, self.ports(statement.value.member), strict=True))
            else:
                self.values[statement.target] = self.each(statement)
        result = self.function.result
        results = [value for _, value in result.items] if isinstance(result, ByName) else [result]
        return tuple(self.value(value) for value in results)

    def ports(self, member: str) -> list[str]:
        """The nodes of what a part gives beside its output."""
        part = self.function.made(member)
        assert isinstance(part, Component)
        return [f"{self.path}{member}.{port.op}" for port in part.offers.values()]

    def value(self, expression: Expression) -> str:
        """The node that computes an expression."""
        match expression:
            case Value(name=name):
                return self.values[name]
            case Once(value=value):
                return self.value(value)
            case Call():
                return self.call(expression)
            case Negate(operand=operand):
                return self.elementwise("negate", (self.value(operand),))
            case Binary(operator=operator, left=left, right=right):
                sides = [s for s in (left, right) if not factor(s)]
                by = next((said for s in (left, right) if (said := factor(s))), "")
                fn = f"{operator} {by}" if by else OPERATORS[operator]
                return self.elementwise(fn, tuple(self.value(s) for s in sides))
        return NOWHERE

    def call(self, call: Call) -> str:
        """The node that a member ends in."""
        member, path = self.function.member(call.member), f"{self.path}{call.member}"
        source = self.value(call.argument)
        named = {name: self.value(value) for name, value in call.named}
        match member.made:
            case Dropout(rate=rate):  # the identity outside training
                self.expansion.dropped |= {self.expansion.node(source)} if rate else set()
                return source
            case Function() as function:
                place = {**self.place, "stack": call.member}
                values = {function.parameters[0].name: source, **named}
                return _Scope(self.expansion, function, f"{path}.", values, place).run()
            case NormComponent() as norm:
                op = norm.op(path, member.width or 0)
                again = f"{path}_again{next(self.numbers)}" if path in self.expansion.nodes else path
                return self.add(replace(op, name=again), (source,), part=call.member, component=norm)
            case Component() as c:
                place = {**self.place, "part": call.member}
                return self.expansion.component(c, path, {**named, "x": source}, **place)
        raise TypeError(f"{call.member} cannot be called")

    def each(self, each: Each) -> str:
        """The node that the layers end in: one period of each segment."""
        x = self.values[each.target]
        layers = self.function.made(each.member)
        assert isinstance(layers, Layers)
        named = {name: self.value(value) for name, value in each.named}
        for index, period in enumerate(layers.periods):
            copies = 1 if period.shared else period.repeat
            times = {"segment": index, "period": len(period.layers), "repeat": period.repeat, "copies": copies}
            entered = x
            between = each.runs[index].layers if each.runs else ()
            around = self.around(each, index)
            x = self.values[each.target] if around else x
            for i, layer in enumerate(period.layers):
                place = {**self.place, **times, "layer": i}
                path = f"{self.path}{each.member}.{period.start + i}."
                read = {name: self.values[name] for name in (between[i].reads if between else ())}
                scope = _Scope(self.expansion, layer, path, {**named, **read, layer.parameters[0].name: x}, place)
                x = scope.run()
                inside = zip(between[i].gives, layer.gives, strict=True) if between else ()
                self.values.update({name: scope.values[local] for name, local in inside})
            self.values[each.target] = x
            carries = tuple((alias, source, self.values[name]) for name, (alias, source) in around.items())
            self.expansion.loops.append(Loop(self.place["stack"], index, entered, x, carries))
        return x

    def around(self, each: Each, index: int) -> dict[str, tuple[str, str]]:
        """What goes around in a period that repeats, beside x too: its name there and what it enters from."""
        run = each.runs[index] if each.runs else None
        if run is None or run.repeat == 1:
            return {}
        names = dict.fromkeys([each.target, *(name for la in run.layers for name in (*la.reads, *la.gives))])
        place = f"{self.place['stack']}, period {index}"  # no two loops of a model have the same
        found = {name: (f"{name} of {place}", self.values[name]) for name in names if name in self.values}
        self.expansion.aliases |= dict(found.values())
        self.values.update({name: alias for name, (alias, _) in found.items()})
        return found

    def elementwise(self, fn: str, sources: tuple[str, ...]) -> str:
        """A sum or product of the wiring."""
        name = f"{self.path}{fn.partition(' ')[0] if fn[0].isalpha() else MULTIPLY}{next(self.numbers)}"
        shape = self.expansion.nodes[self.expansion.node(sources[0])].op.shape
        return self.add(
            Elementwise(name=name, fn=fn, shape=shape, inputs=sources), sources, part="wiring", component=None
        )

    def add(self, op: Op, sources: Iterable[str], part: str, component: Component | None) -> str:
        """Add a node at this place."""
        return self.expansion.add(op, sources, **self.place, part=part, component=component)


def factor(expression: Expression) -> str:
    """What an expression of numbers alone comes to, as text; nothing where it reads a value."""
    if isinstance(expression, PerLayer):
        return f"({expression.text})"
    value = number(expression)
    return "" if value is None else f"{value:g}"


def number(expression: Expression) -> float | None:
    """What an expression of numbers alone comes to; None where it reads a value."""
    match expression:
        case Number(value=value):
            return value
        case Negate(operand=operand):
            inner = number(operand)
            return None if inner is None else -inner
    return None
