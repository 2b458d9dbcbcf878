"""The lines of a spec as formulas in its sizes, while training and while decoding, and what is asked of them."""

import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import lcm, prod
from typing import Any

from archspec.errors import CostError
from archspec.formulas import Formula
from archspec.formulas.functions import named
from archspec.graph import Graph, graph
from archspec.language.model import Spec
from archspec.layers.base import Component, MixerComponent
from archspec.layers.ops import How, Linear, Scan
from archspec.passes.crossings import Crossing, crossings
from archspec.passes.figures import LENGTHS, Costs, Figure, Maker
from archspec.passes.named import named_sizes, named_spec, sizes_of
from archspec.passes.orders import joined
from archspec.passes.places import Place, places
from archspec.passes.steps import sequential_steps
from archspec.passes.storages import Key, storages
from archspec.passes.work import Line, lines
from archspec.passes.workload import Workload, workload

PROJECTIONS = ": projections"
WIDTH = 2  # bytes of an activation that is kept: bfloat16
WORD = re.compile(r"log \w+|\S+")  # of a class
COSTS: Mapping[str, Costs] = {
    "training": lambda line: (line.forward, line.backward),
    "prefill": lambda line: (line.forward,),
    "needed": lambda line: (line.needed,),
    "decoding": lambda line: (line.forward,),
}


@dataclass(frozen=True)
class Part:
    """A part of layers that are alike, or one outside of them: the mixer of layers 0 to 11, the head.

    Attributes:
        stack, layers, part: where it stands; no layers outside of them.
        times: how often it runs.
        title, kind: what it is.
        figures: the costs of one of them, by name.
    """

    stack: str
    layers: tuple[int, ...]
    part: str
    times: int
    title: str
    kind: str
    figures: Mapping[str, Figure] = field(repr=False)

    def joined(self, other: "Part") -> "Part":
        """The same part, in the layers of another one too."""
        return replace(self, layers=tuple(sorted(self.layers + other.layers)), times=self.times + other.times)

    @property
    def sizes(self) -> dict[str, int]:
        """What the names in its formulas stand for."""
        used = {name for f in self.figures.values() for name in f.formula.names()}
        return {name: n for f in self.figures.values() for name, n in f.sizes.items() if name in used}


class SpecFormulas:
    """A spec whose lines cost formulas.

    Attributes:
        training: the lines of a training step, named sizes in them.
        decoding: those of a decoded token by the name of their node; none where the model does not decode.
        silent: why it does not.
    """

    def __init__(self, spec: Spec):
        self.spec = spec
        self.graph: Graph = graph(named_spec(spec))
        self.nodes = {node.name: node for node in self.graph.nodes}
        self.widths = {stack.name: stack.d_model for stack in spec.stacks}
        B, T, S, M = map(named, ("B", "T", "S", "M"))
        self.training = lines(self.graph, Workload("train", B, T, T, M).runs(spec), How(), "train")
        self.silent = _silent(spec)
        runs = Workload("decode", B, 1, S, M).runs(spec)
        decoding = [] if self.silent else lines(self.graph, runs, How(), "decode")
        self.kept = storages(self.graph, Workload("train", B, T, T, M).runs(spec), How(width=WIDTH))
        self.decoding = {line.node.name: line for line in decoding}

    def sizes(self, line: Line) -> dict[str, int]:
        """What the names of a line stand for."""
        return {"d_model": self.widths[line.node.stack], **named_sizes(line.node.component)}

    # Parts

    def parts(self) -> Iterator[Part]:
        """The parts that do products or keep anything, in order; those that are alike in several layers once."""
        found: dict[Hashable, Part] = {}
        for place in places(self.spec, self.training, lambda line: (line.forward, line.backward)):
            for name, members in _by_part(place).items():
                c = members[0].node.component
                figures = self._figures(members)
                if c is None or figures.keys().isdisjoint(("training", "state")):
                    continue
                part = Part(place.stack, place.layers, name, place.times, c.title, c.kind, figures)
                key = (place.stack, name, bool(place.layers), _numbers(c), tuple(f.terms for f in figures.values()))
                found[key] = part.joined(found[key]) if key in found else part
        yield from found.values()

    def _figures(self, members: list[Line]) -> dict[str, Figure]:
        decoding = [self.decoding[line.node.name] for line in members if line.node.name in self.decoding]
        length = "T" if members[0].node.stack == self.spec.main.name else "M"
        return figures(self.graph, members, decoding, self.sizes(members[0]), length, self._needed(members))

    def _needed(self, members: list[Line]) -> list[Formula]:
        """Bytes of the storages that the lines of one component keep, those of its inputs too, each once."""
        keys = dict.fromkeys(key for line in members for key in self.kept.needed[line.node.name])
        own = self.sizes(members[0])
        return [in_names_of(own, self.kept.sizes[key], self._sizes_of(key)) for key in keys]

    def _sizes_of(self, key: Key) -> dict[str, int]:
        """What the names in the size of a storage stand for."""
        return sizes_of(self.nodes[key[0]], self.nodes, self.widths)

    # The whole

    def whole(self, name: str, parts: Iterable[Part]) -> Figure | None:
        """A cost of the model, with numbers for its sizes; None where it has none."""
        length = "S" if name in ("decoding", "state") else "T"
        every = {"steps": self._steps, "state": self._state, "memory": self._memory}
        terms = tuple(every[name]() if name in every else self._work(name))
        if not terms:
            return None
        known = [p.figures.get(name) or (p.figures.get("prefill") if name == "needed" else None) for p in parts]
        orders = [_as_one(order, length) for f in known if f is not None for order in f.order[2:-1].split(" + ")]
        least = {"1", *(length for order in orders if order.startswith(f"{length} "))}
        orders = [order for order in orders if order not in least]
        return Figure(name, length, terms, {}, joined(sorted(orders, key=_speed, reverse=True)))

    def _work(self, name: str) -> Iterator[tuple[int, Formula]]:
        for line in self._lines(name):
            yield from ((line.times, self._put(line, value)) for value in COSTS[name](line) if value)

    def _state(self) -> Iterator[tuple[int, Formula]]:
        for line in self.decoding.values():
            yield from ((line.times, self._put(line, n)) for n in _kept(line))

    def _memory(self) -> Iterator[tuple[int, Formula]]:
        """Of the model each storage counts once, however many ops keep it."""
        for key in self.kept.kept:
            yield self.kept.times[key], Formula.of(self.kept.sizes[key]).put(**self._sizes_of(key))

    def _steps(self) -> Iterator[tuple[int, Formula]]:
        numeric = [replace(line, steps=self._put(line, line.steps)) for line in self.training]  # type: ignore[arg-type]
        yield 1, Formula.of(sequential_steps(self.graph, numeric))

    def _lines(self, name: str) -> Iterable[Line]:
        return self.decoding.values() if name == "decoding" else self.training

    def _put(self, line: Line, value: Any) -> Formula:
        """A cost of a line with numbers for its sizes."""
        return Formula.of(value).put(**self.sizes(line))

    # Crossings

    def crossings(self, name: str) -> list[Crossing]:
        """Where one kind of work begins to need more FLOPs than another, by the tokens of a text (T, or S decoding).

        Nowhere, where every input has the same number of tokens. A memory is as long as the text.
        """
        if self.spec.main.embedding.n_tokens != "T":
            return []
        length = "S" if name == "decoding" else "T"
        work: dict[str, list[tuple[int, Formula]]] = {}
        for line in self._lines(name):
            if line.needed and line.node.component is not None:
                value = self._put(line, line.needed).put(B=1, **dict.fromkeys(LENGTHS, named(length)))
                work.setdefault(kind_of_work(line), []).append((line.times, value))
        figures = {label: Figure(name, length, tuple(terms), {}, "") for label, terms in work.items()}
        chunks = [self._chunk(line) for line in self.training] if length == "T" else []
        bends = [b for f in figures.values() for b in f.bends]
        found = crossings({label: _of_length(f) for label, f in figures.items()}, bends, lcm(1, *chunks))
        return [c for c in found if comparable(c.more, c.less)]

    def _chunk(self, line: Line) -> int:
        op = line.node.op
        return op.chunk or 1 if isinstance(op, Scan) else 1


def figures(
    found: Graph,
    members: list[Line],
    decoding: list[Line],
    sizes: Mapping[str, int],
    length: str,
    needed: Iterable[Any] = (),
) -> dict[str, Figure]:
    """The costs of the lines of one component by name, without those that are nought.

    Args:
        found: the graph in which they stand.
        members: its lines in training.
        decoding: its lines for a decoded token.
        sizes: what the names in them stand for.
        length: that of the texts that they are given.
        needed: bytes of the storages that they keep for the backward pass.
    """
    make = Maker(members[0].node.component, sizes, [line.node.op for line in members])
    every = [make.work(name, length, members, COSTS[name]) for name in ("training", "prefill", "needed")]
    if every[1] is not None and every[2] is not None and every[1].formula == every[2].formula:
        every.pop()
    every.append(make.work("decoding", "S", decoding, COSTS["decoding"]))
    every.append(make.plain("state", "S", [n for line in decoding for n in _kept(line)]))
    if every[0] is not None:
        every.append(make.plain("steps", length, [sequential_steps(found, _once(members))]))
    every.append(make.plain("memory", length, needed))
    return {f.name: f for f in every if f is not None}


def in_names_of(own: Mapping[str, int], size: Any, sizes: Mapping[str, int]) -> Formula:
    """A size in the names of a component that another one made: each number by the component's name for it, if any."""
    formula = Formula.of(size)
    called = {n: Formula.named(name) for name, n in reversed(list(own.items()))}
    changed = {name: n for name, n in sizes.items() if name in formula.names() and own.get(name) != n}
    return formula.put(**{name: called.get(n, n) for name, n in changed.items()})


def kind_of_work(line: Line) -> str:
    """What is compared: what mixes tokens in each kind of mixer, its projections, each other kind of component."""
    c = line.node.component
    assert c is not None
    return f"{c.title}{PROJECTIONS}" if isinstance(c, MixerComponent) and isinstance(line.node.op, Linear) else c.title


def comparable(a: str, b: str) -> bool:
    """Whether two kinds of work are worth comparing: projections with what they belong to alone."""
    return not any(n.endswith(PROJECTIONS) for n in (a, b)) or a.removesuffix(PROJECTIONS) == b.removesuffix(
        PROJECTIONS
    )


def _of_length(f: Figure) -> Callable[[int], int]:
    return lambda n: f.value(T=n)


def _silent(spec: Spec) -> str:
    """Why a model does not decode; nothing where it does."""
    try:
        workload(spec, phase="decode", context=1)
    except CostError as error:
        return str(error).partition(";")[0]
    return ""


def _numbers(c: Component) -> Hashable:
    """A component by its values, whatever these are called."""
    return type(c), tuple(sorted(named_sizes(c).items()))


def _by_part(place: Place) -> dict[str, list[Line]]:
    found: dict[str, list[Line]] = {}
    for line in place.lines:
        found.setdefault(line.node.part, []).append(line)
    return found


def _kept(line: Line) -> list[Any]:
    """The numbers of each tensor that it keeps while decoding."""
    return [prod(k.needed(line.run)) for k in line.node.op.kept]


def _once(members: Iterable[Line]) -> list[Line]:
    """Lines of a single layer."""
    return [replace(line, node=line.node._replace(repeat=1)) for line in members]


def _as_one(order: str, length: str) -> str:
    """A class with one length for all texts of the model."""
    words = WORD.findall(order)
    n = sum(map(_power, words))
    grows = [length if n == 1 else f"{length}^{n}"] if n else []
    logs = [f"log {length}" for word in words if word.startswith("log ")]
    return " ".join([*grows, *logs, *(word for word in words if not _power(word) and not word.startswith("log "))])


def _speed(order: str) -> tuple[int, bool]:
    """How fast a class grows with the length of the text."""
    return sum(map(_power, WORD.findall(order))), "log " in order


def _power(word: str) -> int:
    """The power of a length that a word of a class is: 0 where it is something else."""
    return int(word[2:] or 1) if word[0] in LENGTHS and word[1:2] in ("", "^") else 0
