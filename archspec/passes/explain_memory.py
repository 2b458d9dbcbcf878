"""What a training step keeps for its backward pass, tensor by tensor: bytes as formulas, with numbers put in.

Each storage stands once, at the first op that needs it, as in `archspec.passes.memory`; layers that keep the same
stand together. Sizes know their names and are numbers all the same, so that each rule takes the form that the kernels
take at these sizes.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import groupby

from archspec.formulas import Formula, Size
from archspec.graph import Node, graph
from archspec.language.model import Spec
from archspec.layers.ops import How
from archspec.passes.citations import sources_of
from archspec.passes.explanation import Chapter, Section, Term
from archspec.passes.named import named_spec, sizes_of
from archspec.passes.places import below, within
from archspec.passes.storages import Key, copies, storages
from archspec.passes.workload import Attention, Workload

INPUT = "input"  # a tensor that an earlier layer has made


def chapters_of_memory(
    spec: Spec, asked: Workload, lengths: Mapping[str, int], attention: Attention, width: int
) -> tuple[Chapter, ...]:
    """The layers that keep anything, and what stands outside of them.

    Args:
        spec: a resolved spec.
        asked: a training step of it.
        lengths: its numbers by the names that formulas have for them.
        attention: as `archspec.passes.memory.memory` takes it.
        width: bytes of an activation.
    """
    found: dict[Hashable, Chapter] = {}
    for chapter, block in _Kept(spec, asked, lengths, How(attention=attention, width=width)).chapters():
        key = (chapter.stack, chapter.part, block, tuple(map(_alike, chapter.sections)))
        known = found.get(key)
        found[key] = chapter if known is None else _joined(known, chapter)
    return tuple(found.values())


class _Kept:
    """The storages that each layer keeps."""

    def __init__(self, spec: Spec, asked: Workload, lengths: Mapping[str, int], how: How):
        self.spec, self.lengths = spec, lengths
        every = graph(named_spec(spec))
        self.nodes = {node.name: node for node in every.nodes}
        self.widths = {stack.name: stack.d_model for stack in spec.stacks}
        B, T, M = Size.of(asked.batch, "B"), Size.of(asked.seq, "T"), Size.of(asked.memory, "M")
        self.found = storages(every, replace(asked, batch=B, seq=T, context=T, memory=M).runs(spec), how)

    def chapters(self) -> Iterator[tuple[Chapter, Hashable]]:
        """A chapter of every layer that the walk over the storages looks at, and its block."""
        kept = [(key, self.nodes[name], place) for key, (name, place) in self.found.kept.items()]
        for (place, part), members in groupby(kept, key=lambda item: (item[2], _outside(item[1]))):
            sections = tuple(self._sections((key, node) for key, node, _ in members))
            if place.segment < 0:
                yield Chapter(place.stack, part, (), 1, sections), None
                continue
            stack = next(s for s in self.spec.stacks if s.name == place.stack)
            segment = stack.segments[place.segment]
            first, period = segment.start + place.layer, len(segment.layers)
            numbers = tuple(first + i * period for i in copies(segment.repeat)[place.copy])
            yield Chapter(place.stack, "", numbers, len(numbers), sections), segment.layers[place.layer].block

    def _sections(self, members: Iterable[tuple[Key, Node]]) -> Iterator[Section]:
        by_part: dict[str, list[tuple[Key, Node]]] = {}
        for key, node in members:
            by_part.setdefault(node.part, []).append((key, node))
        for part, kept in by_part.items():
            c = kept[0][1].component
            title, source = ("", "") if c is None else (c.title, sources_of(c))
            yield Section(part, title, source, tuple(self._term(key, node) for key, node in kept))

    def _term(self, key: Key, node: Node) -> Term:
        size, maker = self.found.sizes[key], self.nodes[key[0]]
        numbers = {**self.lengths, **sizes_of(maker, self.nodes, self.widths)}
        return Term(below(node.name, node), self._tensor(key, node), Formula.of(size), numbers, int(size))

    def _tensor(self, key: Key, node: Node) -> str:
        """How an op calls a storage: its output, a tensor of its own, a copy of an input, or what another op made."""
        maker, tensor = self.nodes[key[0]], key[2]
        if not self._is_own(key, node):
            return INPUT
        if maker.name == node.name:
            read = dict(zip(node.op.inputs, node.reads, strict=True)).get(tensor)
            return f"copy of {within(read, node.stack)}" if read else tensor or "output"
        made = within(maker.name, maker.stack)
        return f"{made}: {tensor}" if tensor else made

    def _is_own(self, key: Key, node: Node) -> bool:
        """Whether it was made in the layer that keeps it, and not in an earlier one."""
        maker, copy = self.nodes[key[0]], self.found.kept[key][1].copy
        place = (maker.stack, maker.segment, maker.layer, key[1])
        return place == (node.stack, node.segment, node.layer, copy)


def _outside(node: Node) -> str:
    """The part of a node that stands outside of the layers."""
    return node.part if node.segment < 0 else ""


def _alike(section: Section) -> Hashable:
    """What two layers have in common that keep the same."""
    terms = tuple((t.op, t.what, t.text, t.value, tuple(t.numbers.items())) for t in section.terms)
    return section.part, section.title, terms


def _joined(one: Chapter, other: Chapter) -> Chapter:
    """Layers that keep the same."""
    return replace(one, layers=tuple(sorted(one.layers + other.layers)), times=one.times + other.times)
