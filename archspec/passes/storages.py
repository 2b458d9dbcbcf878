"""Which memory a forward pass leaves behind for the backward pass: storages, each counted once however often kept.

The rules of ops name tensors; here they become storages. A view shares that of its input, several ops may keep the same
one, and layers that repeat have one each. Weights, buffers and what the caller gives are no part of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from archspec.graph import NOWHERE, Graph, Loop, Node
from archspec.layers.ops import How, Run, Saved
from archspec.layers.tensors import Dtype, width_of

Key = tuple[str, int, str, str]  # node, copy of its layer, tensor of its op, type


class Value(NamedTuple):
    """What a node gives: its storage (None: not counted), its type, whether it has a gradient, and its layout."""

    key: Key | None
    dtype: Dtype
    learns: bool
    scattered: bool


PARAMETER = Value(None, "model", True, True)


class Place(NamedTuple):
    """A layer of a loop, or one copy of it: stack, segment, layer, copy; segment -1 stands outside."""

    stack: str
    segment: int = -1
    layer: int = -1
    copy: int = 0


@dataclass
class Storages:
    """What is kept.

    Attributes:
        sizes: bytes of every storage that any op has made.
        times: how many layers have such a storage.
        kept: the storages that are kept, with the node and place that keep them first.
        wanted: for each layer the storages that its ops keep.
        needed: for each op the storages that it keeps in the last layer that it stands for, whoever keeps them first.
        entering: for each layer the storages that it reads from outside.
    """

    sizes: dict[Key, int] = field(default_factory=dict)
    times: dict[Key, int] = field(default_factory=dict)
    kept: dict[Key, tuple[str, Place]] = field(default_factory=dict)
    wanted: dict[Place, dict[Key, None]] = field(default_factory=dict)
    needed: dict[str, dict[Key, None]] = field(default_factory=dict)
    entering: dict[Place, dict[Key, None]] = field(default_factory=dict)

    def total(self, key: Key) -> int:
        """Bytes of a storage in all layers that have it."""
        return self.times[key] * self.sizes[key]


def storages(graph: Graph, runs: Mapping[str, Run], how: How) -> Storages:
    """The storages of a forward pass over a graph in these runs.

    A loop of more than three layers is walked three times: the first, one that stands for all in between, the last.
    Sizes that know their names and lengths that are formulas give storages that do.
    """
    walk = _Walk(runs, how)
    loops = {(loop.stack, loop.segment): loop for loop in graph.loops}
    for (stack, segment), members in groupby(graph.nodes, key=lambda node: (node.stack, node.segment)):
        walk.group(list(members), loops.get((stack, segment)))
    return walk.found


def copies(repeat: int) -> Sequence[range]:
    """The turns of a loop that each walk over it stands for."""
    if repeat > 3:
        return range(1), range(1, repeat - 1), range(repeat - 1, repeat)
    return [range(i, i + 1) for i in range(repeat)]


class _Walk:
    def __init__(self, runs: Mapping[str, Run], how: How):
        self.runs, self.how = runs, how
        self.values: dict[str, Value] = {}
        self.made: dict[str, Place] = {}  # where the value of a node was made last
        self.found = Storages()

    def group(self, nodes: list[Node], loop: Loop | None) -> None:
        """The nodes of one segment, or some that stand outside."""
        first = nodes[0]
        for copy, turns in enumerate(copies(first.repeat)):
            if loop is not None:
                self.turn(loop, copy)
            for node in nodes:
                place = Place(node.stack, node.segment, node.layer, copy) if node.segment >= 0 else Place(node.stack)
                self.node(node, place, len(turns))

    def turn(self, loop: Loop, copy: int) -> None:
        """What goes around in a loop, as its next turn finds it."""
        carries = loop.carries or ((loop.enters, loop.enters, loop.leaves),)
        found = [(name, leaves if copy else enters) for name, enters, leaves in carries]
        values = [(name, self.values[source], self.made[source]) for name, source in found]
        for name, value, made in values:
            self.values[name], self.made[name] = value, made

    def node(self, node: Node, place: Place, times: int) -> None:
        """One op: what it reads, keeps and gives."""
        op, run = node.op, self.runs[node.stack]
        inputs = {
            name: self.values[source]
            for name, source in zip(op.inputs, node.sees or node.reads, strict=True)
            if source != NOWHERE
        }
        for source in node.sees or node.reads:
            if source != NOWHERE and self.made[source] != place:
                self._note(self.found.entering, place, self.values[source].key)
        learns = op.learns or any(value.learns for value in inputs.values())
        read = inputs.get(op.inputs[0]) if op.inputs else None
        layouts = tuple(name not in inputs or inputs[name].scattered for name in op.inputs)
        how = self.how._replace(input_learns=read is not None and read.learns, scattered=layouts)
        self.found.needed[node.name] = {}
        if learns:
            for item in op.saved(run, how):
                self._keep(self._key(item, node, place, times, inputs, run), node, place)
        item = op.gives(run, how)
        key = self._key(item, node, place, times, inputs, run)
        dtype = item.dtype or inputs[item.tensor].dtype
        self.values[node.name] = Value(None if node.part == "input" else key, dtype, learns, op.scattered(run, how))
        self.made[node.name] = place

    def _key(
        self, item: Saved, node: Node, place: Place, times: int, inputs: Mapping[str, Value], run: Run
    ) -> Key | None:
        """The storage that a rule speaks of, made where there is none yet."""
        given = inputs.get(item.tensor)
        if any(p.name == item.tensor for p in node.params):
            given = PARAMETER
        elif item.tensor in node.op.inputs and given is None:
            return None
        if given is not None and (item.dtype is None or self._same(item.dtype, given.dtype)):
            return given.key
        assert item.shape is not None, f"{node.name}: {item} has no shape"
        assert item.dtype is not None, f"{node.name}: {item} has no type"
        width = width_of(item.dtype, self.how.width)
        key = (node.name, place.copy, item.tensor, str(width))
        self.found.sizes[key], self.found.times[key] = width * run.size(item.shape), times
        return key

    def _same(self, a: Dtype, b: Dtype) -> bool:
        floats = {"model", "float32"}
        return a == b or ({a, b} <= floats and self.how.width >= 4)

    def _keep(self, key: Key | None, node: Node, place: Place) -> None:
        if key is None:
            return
        self.found.kept.setdefault(key, (node.name, place))
        self.found.needed[node.name][key] = None
        self._note(self.found.wanted, place, key)

    @staticmethod
    def _note(where: dict[Place, dict[Key, None]], place: Place, key: Key | None) -> None:
        if key is not None:
            where.setdefault(place, {})[key] = None
