"""A spec lowered to one NetworkX graph of ops, repeats folded: what every pass reads.

A node is one op of one layer of one period; its attributes (`Step`) say how often it runs and with how many sets of
weights. Edges are the dataflow. Node names are those of the modules: `blocks.0.mixer.q_proj` stands for the same place
of every repeat of its period.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count as counter
from typing import TYPE_CHECKING, Any

from archspec.language.model import Block, Segment, Spec, Stack, need_spec
from archspec.language.wiring import Binary, Call, Expr, Name, Negate, Number
from archspec.layers.base import Component, NormComponent
from archspec.layers.ops import Elementwise, Op, Param

if TYPE_CHECKING:
    import networkx as nx

OUTSIDE = (
    "mask",
    "memory_mask",
    "prefix_len",
    "token_types",
    "state",
)  # inputs of the model that are no data of a layer
OPERATORS = {"+": "add", "-": "subtract", "*": "multiply"}


@dataclass(frozen=True)
class Step:
    """A node of the graph: an op, the component and stack that it belongs to, and how often it stands there."""

    op: Op
    stack: str
    part: str
    component: Component | None
    segment: int = -1
    layer: int = -1
    period: int = 1
    repeat: int = 1
    copies: int = 1

    @property
    def params(self) -> tuple[Param, ...]:
        """The tensors of one copy."""
        return self.op.params


def lower(spec: Spec) -> "nx.DiGraph[str]":
    """The graph of a spec; `graph.graph["spec"]` is the spec, each node's `step` is a `Step`."""
    import networkx  # a quarter of the time of `archspec count`, which needs the nodes alone

    lowering = _Lowering(spec)
    graph: nx.DiGraph[str] = networkx.DiGraph(spec=spec)
    graph.add_nodes_from((name, {"step": step}) for name, step in lowering.nodes.items())
    graph.add_edges_from(lowering.edges)
    return graph


def steps_of(spec: Spec) -> tuple[Step, ...]:
    """The nodes of the graph of a spec alone, in order of the forward pass."""
    return tuple(_Lowering(spec).nodes.values())


def steps(graph: "nx.DiGraph[str]") -> Iterator[Step]:
    """The nodes in order of the forward pass."""
    return (data["step"] for _, data in graph.nodes(data=True))


class _Lowering:
    """Adds one stack after another to a graph."""

    def __init__(self, spec: Spec):
        need_spec(spec)
        self.spec = spec
        self.nodes: dict[str, Step] = {}
        self.edges: list[tuple[str, str]] = []
        self.outputs: dict[str, str] = {}  # what each stack ends in
        self.owned = {name for name, _ in spec.ties}
        for stack in spec.stacks:
            self.stack(stack)
        self.head()

    def add(self, op: Op, sources: Iterable[str], **place: Any) -> str:
        """Add a node and the edges to it."""
        kept = tuple(p for p in op.params if p.name not in self.owned)  # a tied or reused tensor counts once
        self.owned |= {p.name for p in kept}
        self.nodes[op.name] = Step(op if kept == op.params else replace(op, params=kept), **place)
        self.edges += [(source, op.name) for source in sources]
        return op.name

    def input(self, name: str, shape: tuple[int | str, ...], stack: str) -> str:
        """A node for what the model is given."""
        return self.add(
            Elementwise(name=name, fn="input", shape=shape, inputs=()), (), stack=stack, part="input", component=None
        )

    def component(self, c: Component, prefix: str, feeds: dict[str, str], **place: Any) -> str:
        """Add the ops of a component below `prefix`; returns the name of its output."""
        ops = c.ops()
        feeds = feeds | {op.name: f"{prefix}.{op.name}" for op in ops}
        last = feeds["x"]
        for op in ops:
            unknown = [i for i in op.inputs if i not in feeds and i not in OUTSIDE]
            if unknown:
                raise LookupError(f"{type(c).__name__}: op {op.name} reads {unknown[0]!r}, which there is not")
            sources = [feeds[i] for i in op.inputs if feeds.get(i)]
            last = self.add(op.under(prefix), dict.fromkeys(sources), component=c, **place)
        return last

    def stack(self, stack: Stack) -> None:
        """Add one stack: input, embedding, shared bias, layers, final norm."""
        prefix = self.spec.prefix(stack)
        reads = getattr(stack.embedding, "reads", "tokens")
        x = self.input(f"{prefix}{reads}", ("B", "T"), stack.name)
        x = self.component(stack.embedding, f"{prefix}embedding", {"x": x}, stack=stack.name, part="embedding")
        feeds = {"memory": self.outputs[stack.memory]} if stack.memory else {}
        if stack.position_bias is not None:
            name = f"{prefix}position_bias"
            feeds["bias"] = self.component(stack.position_bias, name, {"x": ""}, stack=stack.name, part="position_bias")
        for index, segment in enumerate(stack.segments):
            x = self.segment(stack, index, segment, x, feeds)
        if stack.final_norm is not None:
            op = stack.final_norm.op(f"{prefix}norm", stack.d_model)
            x = self.add(op, (x,), component=stack.final_norm, stack=stack.name, part="norm")
        self.outputs[stack.name] = x

    def segment(self, stack: Stack, index: int, segment: Segment, x: str, feeds: dict[str, str]) -> str:
        """Add one period of a segment."""
        for i, layer in enumerate(segment.layers):
            path = f"{self.spec.prefix(stack)}blocks.{segment.start + i}"
            copies = 1 if segment.shared else segment.repeat
            times = {"period": len(segment.layers), "repeat": segment.repeat, "copies": copies}
            place = {"stack": stack.name, "segment": index, "layer": i, **times}
            x = _Wired(self, layer.block, path, stack.d_model, x, feeds, place).output()
        return x

    def head(self) -> None:
        """Add the head."""
        main = self.spec.main
        self.component(self.spec.head, "head", {"x": self.outputs[main.name]}, stack=main.name, part="head")


class _Wired:
    """One block, node by node as its wiring says."""

    def __init__(
        self,
        lowering: _Lowering,
        block: Block,
        path: str,
        d_model: int,
        x: str,
        feeds: dict[str, str],
        place: dict[str, Any],
    ):
        self.lowering, self.block, self.path, self.d_model = lowering, block, path, d_model
        self.feeds, self.place = feeds, place
        self.values = {"x": x}
        self.numbers = counter(1)

    def output(self) -> str:
        """The name of the node that the block ends in."""
        for step in self.block.wiring.steps:
            self.values[step.target] = self.value(step.value)
        return self.values["x"]

    def value(self, expr: Expr) -> str:
        """The node that computes an expression."""
        match expr:
            case Name(name=name):
                return self.values[name]
            case Call(module=module, argument=argument):
                return self.call(module, self.value(argument))
            case Negate(operand=operand):
                return self.elementwise("negate", (self.value(operand),))
            case Binary(operator=operator, left=left, right=right):
                sides = [s for s in (left, right) if not _is_number(s)]
                fn = OPERATORS[operator] if len(sides) == 2 else f"{operator} {_number(left, right)}"
                return self.elementwise(fn, tuple(self.value(s) for s in sides))
        raise TypeError(f"not an expression of the wiring: {expr}")

    def call(self, module: str, source: str) -> str:
        """The node that a module ends in."""
        part = self.block.part(module)
        name = f"{self.path}.{module}"
        if part is None:  # dropout: the identity outside training
            return source
        place = {**self.place, "part": module}
        if isinstance(part, NormComponent):
            op = part.op(name, self.d_model)
            again = f"{name}_again{next(self.numbers)}" if name in self.lowering.nodes else name
            return self.lowering.add(replace(op, name=again), (source,), component=part, **place)
        return self.lowering.component(part, name, {**self.feeds, "x": source}, **place)

    def elementwise(self, fn: str, sources: tuple[str, ...]) -> str:
        """A sum or product of the wiring."""
        name = f"{self.path}.{fn.partition(' ')[0] if fn[0].isalpha() else 'multiply'}{next(self.numbers)}"
        op = Elementwise(name=name, fn=fn, shape=("B", "T", self.d_model), inputs=sources)
        return self.lowering.add(op, sources, **self.place, part="wiring", component=None)


def _is_number(expr: Expr) -> bool:
    return isinstance(expr, Number) or (isinstance(expr, Negate) and _is_number(expr.operand))


def _number(left: Expr, right: Expr) -> str:
    value = left if _is_number(left) else right
    sign = "-" if isinstance(value, Negate) else ""
    inner = value.operand if isinstance(value, Negate) else value
    return f"{sign}{inner.value:g}" if isinstance(inner, Number) else str(inner)


def problems(graph: "nx.DiGraph[str]") -> list[str]:
    """What is wrong with a graph itself: cycles, ops that nothing reads, two tensors of one name.

    An empty list is what every spec must give; this checks archspec's own work.
    """
    import networkx

    found = [] if networkx.is_directed_acyclic_graph(graph) else ["the dataflow has a cycle"]
    last = next(reversed(list(graph.nodes)))
    found += [f"nothing reads {n}" for n in graph.nodes if graph.out_degree(n) == 0 and n != last]
    names = [p.name for step in steps(graph) for p in step.params]
    return found + [f"two tensors are called {n}" for n in sorted({n for n in names if names.count(n) > 1})]
