"""What a number is made of: each term with its formula in named sizes, its numbers put in, and where its rule stands.

Formula and number come from one rule: that of the op, once on sizes that know their names, once with numbers for these.
The sums are those of `archspec.count`, `archspec.cost` and `archspec.passes.memory`, exactly.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from math import prod

from archspec.errors import CostError
from archspec.formulas import Formula
from archspec.formulas.functions import named
from archspec.formulas.writing import written
from archspec.graph import Graph, graph
from archspec.language.model import Spec, need_spec
from archspec.layers.ops import Attend, How
from archspec.passes.citations import rule_of, sources_of
from archspec.passes.dtypes import bytes_of
from archspec.passes.explain_memory import chapters_of_memory
from archspec.passes.explanation import WHATS, Chapter, Explanation, Section, Term, What
from archspec.passes.named import named_sizes, named_spec
from archspec.passes.places import Place, places
from archspec.passes.steps import longest_way
from archspec.passes.work import Line, lines
from archspec.passes.workload import Attention, Phase, Workload, workload


def explain(
    spec: Spec,
    what: What = "flops",
    *,
    layer: int | str | None = None,
    batch: int | None = None,
    seq: int | None = None,
    memory: int | None = None,
    phase: Phase | None = None,
    context: int | None = None,
    dtype: str | None = None,
    attention: Attention | None = None,
) -> Explanation:
    """Explain a number of a spec term by term.

    Args:
        spec: a resolved spec.
        what: params (as `count`); flops, cache (bytes of decoding state) or steps (as `cost` for this workload); or
            memory (bytes that a training step keeps for the backward pass: `saved_bytes` of `memory`).
        layer: one layer alone, by its number in the main stack, or as `stack.number`.
        batch, seq, memory, phase, context: the workload, as `archspec.cost` takes it; a cache is that of decoding.
        dtype: of the cache, and of what is kept; bfloat16 where nothing is said.
        attention: flash (where nothing is said) computes scores again in the backward pass, eager keeps them; of memory
            also cpu, what the package's kernels keep there.

    Raises:
        CostError: there is no such thing to explain, no such layer, no such workload, or an option without effect.
    """
    need_spec(spec)
    if what not in WHATS:
        raise CostError(f"what = {what!r} is unknown; known: {', '.join(WHATS)}")
    given = {"batch": batch, "seq": seq, "memory": memory, "phase": phase, "context": context}
    _must_act(what, {**given, "dtype": dtype, "attention": attention})
    attention, width = attention or "flash", bytes_of(dtype or "bfloat16")
    if attention not in ("flash", "eager", "cpu"):
        raise CostError(f"attention = {attention!r} is unknown; known: flash, eager, cpu")
    if attention == "cpu" and what != "memory":
        raise CostError(
            "attention = 'cpu' changes form with the lengths, which no one formula says; ask for flash or eager"
        )
    phase = "decode" if what == "cache" else phase or "train"
    if what == "memory" and phase != "train":
        raise CostError(f"memory is what a training step keeps for its backward pass; in {phase} there is none")
    asked = None
    if what != "params":
        size = 1 if batch is None else batch
        asked = workload(spec, batch=size, seq=seq, memory=memory, phase=phase, context=context)
    if what == "memory" and asked is not None:
        lengths = lengths_of(spec, asked)
        chapters = chapters_of_memory(spec, asked, lengths, attention, width)
    else:
        found = _Explained(spec, what, asked, How(attention=attention, width=width))
        lengths, chapters = found.lengths, tuple(found.chapters())
    return Explanation(
        name=spec.name,
        what=what,
        phase=phase,
        lengths=lengths,
        layer="" if layer is None else str(layer),
        stacks=tuple(stack.name for stack in spec.stacks),
        chapters=chapters if layer is None else _only(spec, chapters, layer),
    )


NO_EFFECT: Mapping[What, tuple[str, ...]] = {
    "params": ("batch", "seq", "memory", "phase", "context", "dtype", "attention"),
    "cache": ("phase", "attention"),
    "flops": ("dtype",),
    "steps": ("dtype", "attention"),
    "memory": (),
}
ALWAYS: Mapping[str, str] = {"cache": "decode"}  # the phase that is meant


def _must_act(what: What, given: Mapping[str, object]) -> None:
    """Nothing is given that changes nothing of what is explained; the phase may be said where it is the only one."""
    for name in NO_EFFECT[what]:
        value = given[name]
        if value is not None and not (name == "phase" and value == ALWAYS.get(what)):
            raise CostError(f"{name} = {value!r} has no effect on {what}; leave it out")


def lengths_of(spec: Spec, asked: Workload) -> dict[str, int]:
    """The numbers of a workload by the names that formulas have for them."""
    found = {"B": asked.batch, **({"S": asked.context} if asked.phase == "decode" else {"T": asked.seq})}
    return found | ({"M": asked.memory} if len(spec.stacks) > 1 else {})


class _Explained:
    """The lines of a spec with named sizes, and the terms of each."""

    def __init__(self, spec: Spec, what: What, asked: Workload | None, how: How):
        self.spec, self.what, self.width = spec, what, how.width
        phase = "train" if asked is None else asked.phase
        self.lengths = {} if asked is None else lengths_of(spec, asked)
        self.graph: Graph = graph(named_spec(spec))
        self.widths = {stack.name: stack.d_model for stack in spec.stacks}
        B, T, S, M = map(named, ("B", "T", "S", "M"))
        run = Workload(phase, B, 1, S, M) if phase == "decode" else Workload(phase, B, T, T, M)
        self.lines = lines(self.graph, run.runs(spec), how, phase)
        numeric = lines(self.graph, (asked or Workload(phase, 1, 1, 1, 1)).runs(spec), how, phase)
        self.numeric = {line.node.name: line for line in numeric}

    def chapters(self) -> Iterator[Chapter]:
        """The layers that have terms, and what stands outside of them."""
        chosen = self._way() if self.what == "steps" else self.lines
        for place in places(self.spec, chosen, lambda line: (line.forward, line.backward, line.node.params == ())):
            sections = tuple(s for s in self._sections(place) if s.terms)
            times = place.copies if self.what == "params" else place.times
            if sections:
                yield Chapter(place.stack, place.part, place.layers, times, sections)

    def _way(self) -> list[Line]:
        """The lines on the longest way."""
        way = {line.node.name for line in longest_way(self.graph, self.numeric.values())}
        return [line for line in self.lines if line.node.name in way]

    def _sections(self, place: Place) -> Iterator[Section]:
        by_part: dict[str, list[Line]] = {}
        for line in place.lines:
            by_part.setdefault(line.node.part, []).append(line)
        for part, members in by_part.items():
            terms = tuple(term for line in members for term in self._terms(line, place))
            c = members[0].node.component
            title, source = ("", "") if c is None else (c.title, sources_of(c))
            remarks = tuple(self._remarks(members)) if self.what in ("params", "flops") else ()
            yield Section(part, title, source, terms, remarks)

    def _terms(self, line: Line, place: Place) -> Iterator[Term]:
        """The terms of one line that are not nought."""
        op, number = line.node.op, self.numeric[line.node.name]
        if self.what == "params":
            for p in line.node.params:
                if not p.buffer:
                    term = self._term(line, place.below(p.name, line), "", p.numel, p.numel)
                    yield replace(term, shape=tuple(map(Formula.of, p.shape)))
        elif self.what == "cache":
            for k in op.kept:
                formula, value = (k.width(self.width) * prod(k.needed(each.run)) for each in (line, number))
                yield self._term(line, place.below(op.name, line), k.name, formula, value)
        elif self.what == "steps":
            yield self._term(line, place.below(op.name, line), "", line.steps, number.steps, rule_of(op, "steps"))
        else:
            for what, rule in (("forward", "flops"), ("backward", "backward_flops")):
                if value := getattr(line, what):
                    found = getattr(number, what)
                    yield self._term(line, place.below(op.name, line), what, value, found, rule_of(op, rule))

    def _term(self, line: Line, op: str, what: str, formula: int, value: int, rule: str = "") -> Term:
        return Term(op, what, Formula.of(formula), self._numbers(line), int(value), rule)

    def _numbers(self, line: Line) -> dict[str, int]:
        return {**self.lengths, "d_model": self.widths[line.node.stack], **named_sizes(line.node.component)}

    def _remarks(self, members: Iterable[Line]) -> Iterator[str]:
        """What the width of a head means for the patterns of attention."""
        for line in members:
            op = line.node.op
            if isinstance(op, Attend):
                numbers = self._numbers(line)
                made = Formula.of(op.qk_dim * 2) * Formula.named("d_model")
                queries = "T" if line.node.stack == self.spec.main.name else "M"
                keys = "M" if op.keys == "M" else queries
                size = f"{queries} x {keys}"
                weights = self.lengths.get(queries, 0) * self.lengths.get(keys, 0)
                yield (
                    f"a head of {int(op.qk_dim):,} channels makes {size} patterns of rank {int(op.qk_dim):,} at most, "
                    f"from {written(made, tuple(numbers))} = {made.value(numbers):,} numbers; any pattern has {size}"
                    + (f" = {weights:,}" if weights else "")
                )


def _only(spec: Spec, chapters: Iterable[Chapter], layer: int | str) -> tuple[Chapter, ...]:
    """The chapter of one layer, once."""
    name, _, number = str(layer).rpartition(".")
    stack = next((s for s in spec.stacks if s.name == (name or spec.main.name)), None)
    if stack is None or not number.isdecimal() or int(number) >= stack.n_layers:
        known = [
            f"0 to {s.n_layers - 1}" if len(spec.stacks) == 1 else f"{s.name}.0 to {s.n_layers - 1}"
            for s in spec.stacks
        ]
        raise CostError(f"layer = {layer!r} is none of {spec.name}; known: {', '.join(known)}")
    found = [c for c in chapters if c.stack == stack.name and int(number) in c.layers]
    return tuple(replace(c, layers=(int(number),), times=1) for c in found)
