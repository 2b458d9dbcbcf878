"""What every op of a graph costs in one run: FLOPs forward and backward, and the bytes that it moves.

The rules are those of the ops; this goes over the graph with them. Lengths that are formulas give figures that are too.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby

from archspec.graph import Graph, Node
from archspec.layers.base import Component
from archspec.layers.ops import ADD, SUBTRACT, Elementwise, How, Linear, Run
from archspec.passes.count import kind
from archspec.passes.workload import Checkpoint, Phase


@dataclass(frozen=True, slots=True)
class Line:
    """One op of one layer of a period, with what it costs there; `times` layers are like it.

    Attributes:
        forward, backward: FLOPs of products (matrix products, convolutions, FFTs, scans) as a counter sees them.
        again: those of the forward pass that checkpointing runs a second time.
        arithmetic: element-wise operations of the forward pass; an estimate.
        needed: forward FLOPs that a causal mask or a window leaves; equal to `forward` elsewhere.
        read, written: elements that the forward pass moves, each op by itself.
        steps: that must follow one another.
    """

    node: Node
    run: Run
    forward: int
    backward: int
    again: int
    arithmetic: int
    needed: int
    read: int
    written: int
    steps: int

    @property
    def times(self) -> int:
        """Layers that run it."""
        return self.node.repeat

    @property
    def work(self) -> str:
        """The class of its products."""
        return self.node.op.work

    @property
    def kind(self) -> str:
        """The kind of component that it belongs to."""
        return kind(self.node)

    @property
    def layer(self) -> tuple[str, int, int, str]:
        """Where it stands: stack, segment and layer, or the part outside the layers."""
        node = self.node
        return (node.stack, node.segment, node.layer, "" if node.segment >= 0 else node.part)


def lines(
    graph: Graph, runs: Mapping[str, Run], how: How, phase: Phase = "prefill", checkpoint: Checkpoint = "none"
) -> list[Line]:
    """A line for each op that works in these runs, in order of the forward pass; backward in training alone."""
    nodes = {node.name: node for node in graph.nodes}
    learns: dict[str, bool] = {}
    serving_all = {node.component for node in graph.nodes for k in node.op.kept if k.batch_axis is None}
    found = []
    for node in graph.nodes:
        before = graph.sources.get(node.name, [])
        reached = any(learns[name] for name in before)
        learns[node.name] = reached or node.op.learns
        run = runs.get(node.stack)
        if run is None or node.part == "input" or (phase == "decode" and _once(node, serving_all)):
            continue
        given = sum(_given(node, nodes[name], runs) for name in before)
        line = _line(node, given, run, how._replace(input_learns=reached))
        found.append(line if phase == "train" else replace(line, backward=0))
    return _again(found, graph.dropped) if phase == "train" and checkpoint == "block" else found


def _given(node: Node, source: Node, runs: Mapping[str, Run]) -> int:
    """Elements that an op reads of another, which may stand in another stack."""
    return source.op.taken(node.op.takes, runs[source.stack]) if source.stack in runs else 0


def _line(node: Node, given: int, run: Run, how: How) -> Line:
    op = node.op
    read, written = op.traffic(run, how, given)
    return Line(
        node=node,
        run=run,
        forward=op.flops(run),
        backward=op.backward_flops(run, how),
        again=0,
        arithmetic=op.arithmetic(run),
        needed=op.needed_flops(run),
        read=read,
        written=written,
        steps=op.steps(run),
    )


def _once(node: Node, serving_all: Collection[Component | None]) -> bool:
    """Whether its result is kept, so that a further token does not ask for it again.

    That is what is made of the memory alone, and what a component that keeps a tensor for all sequences makes of the
    positions alone (filters).
    """
    shape = node.op.shape
    of_positions = "T" in shape and "B" not in shape
    return ("M" in shape and "T" not in shape) or (of_positions and node.component in serving_all)


def _again(found: list[Line], dropped: Collection[str]) -> list[Line]:
    """With checkpoints a block runs again in the backward pass, up to the last tensor that it keeps."""
    result: list[Line] = []
    for (_, segment, _, _), members in groupby(found, key=lambda line: line.layer):
        block = list(members)
        if segment >= 0:
            last = len(block) - _unread(reversed(block), dropped)
            block = [replace(line, again=line.forward) if i < last else line for i, line in enumerate(block)]
        result += block
    return result


def _unread(backwards: Iterator[Line], dropped: Collection[str]) -> int:
    """Ops at the end of a block whose results nothing keeps: sums, and the projection before them.

    Dropout keeps what it took away of a result.
    """
    n = 0
    for line in backwards:
        op = line.node.op
        if op.name in dropped:
            return n
        if isinstance(op, Elementwise) and op.fn in (ADD, SUBTRACT) and not line.node.params:
            n += 1
        else:
            return n + isinstance(op, Linear)
    return n
