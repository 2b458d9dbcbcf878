"""Exact parameter counts: of every tensor, module and kind, folded over repeats, with totals.

Tied and shared tensors count once. `active` is what one token uses: all parameters, but of the routed experts only the
share that the router picks (of expert choice, the share on average). Caches and states are those of the main stack, the
only one that decodes; the outputs of earlier stacks, which decoding holds beside them, are not among them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

from archspec.graph import Step, steps_of
from archspec.language.model import Spec
from archspec.layers.ops import Param
from archspec.passes.tensors import Tensor, registered, tensors


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: `count` elements in each of `copies` places."""

    module: str
    kind: str
    shape: str
    count: int
    copies: int
    note: str

    @property
    def total(self) -> int:
        """Elements of all copies."""
        return self.count * self.copies


@dataclass(frozen=True)
class Count:
    """The counts of a spec; sizes are numbers of elements, `*_bytes*` are bytes at 2 bytes an element."""

    name: str
    rows: tuple[Row, ...]
    total: int
    trainable: int
    active: int
    embedding: int
    tied: int
    buffers: int
    layers: int
    kv_bytes_per_token: int
    memory_bytes_per_token: int
    state_bytes: int
    cache_bytes_at_max: int | None
    steps: tuple[Step, ...] = field(repr=False, compare=False)

    @cached_property
    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor of the model, repeats written out."""
        return tuple(tensors(self.steps))


def count(spec: Spec) -> Count:
    """Count the parameters of a spec without building it."""
    every = steps_of(spec)
    decoding = [step for step in every if step.stack == spec.main.name]
    total = _sum(every, lambda p: 0 if p.buffer else p.count)
    window = spec.max_seq_len
    return Count(
        name=spec.name,
        rows=tuple(rows(every)),
        total=total,
        trainable=total,
        active=_sum(every, lambda p: 0 if p.buffer else p.count * p.active[0] // p.active[1]),
        embedding=_sum((s for s in every if s.part == "embedding"), lambda p: 0 if p.buffer else p.count),
        tied=_tied(spec, every),
        buffers=_sum(every, lambda p: p.count if p.buffer else 0),
        layers=sum(stack.n_layers for stack in spec.stacks),
        kv_bytes_per_token=2 * sum(s.op.cache.per_token * s.repeat for s in decoding),
        memory_bytes_per_token=2 * sum(s.op.cache.per_memory_token * s.repeat for s in decoding),
        state_bytes=sum((2 * s.op.cache.fixed + 4 * s.op.cache.exact) * s.repeat for s in decoding),
        cache_bytes_at_max=None if window is None else cache_bytes(decoding, window),
        steps=every,
    )


def cache_bytes(every: Iterable[Step], tokens: int, width: int = 2) -> int:
    """Bytes of decoding state of one sequence after that many tokens (and with a memory of as many), at `width` bytes
    an element; recurrent states are exact, at 4.
    """
    total = 0
    for step in every:
        c = step.op.cache
        seen = tokens if c.limit is None else min(tokens, c.limit)
        growing = c.per_token * seen + c.per_memory_token * tokens
        total += step.repeat * (width * (growing + c.fixed) + 4 * c.exact)
    return total


def rows(every: Iterable[Step]) -> list[Row]:
    """One row for each sub-module that has tensors, in order."""
    found: list[Row] = []
    for step in every:
        by_module: dict[str, list[Param]] = {}
        for p in registered(step.params):
            by_module.setdefault(p.name.rpartition(".")[0], []).append(p)
        for module, params in by_module.items():
            shapes = ", ".join(map(_sized, params))
            note = _note(step, module, params)
            found.append(Row(spread(module, step), kind(step), shapes, sum(p.count for p in params), step.copies, note))
    return found


def spread(module: str, step: Step) -> str:
    """The name of a module over all of its repeats: `blocks.0` of 4 repeats of one layer is `blocks.0-3`."""
    if step.repeat == 1 or "blocks." not in module:
        return module
    head, _, tail = module.partition("blocks.")
    index, dot, rest = tail.partition(".")
    first, last = int(index), int(index) + (step.repeat - 1) * step.period
    if step.period == 1:
        return f"{head}blocks.{first}-{last}{dot}{rest}"
    middle = f"{first},{last}" if step.repeat == 2 else f"{first},{first + step.period}..{last}"
    return f"{head}blocks.{middle}{dot}{rest}"


def kind(step: Step) -> str:
    """The kind of thing that owns a step's tensors, for totals by kind."""
    return step.component.kind if step.component is not None else step.part  # type: ignore[attr-defined]


def _sized(p: Param) -> str:
    """The shape of a tensor, after its name where that says more than weight or bias."""
    name, shape = p.name.rpartition(".")[2], " x ".join(map(str, p.shape))
    return shape if name in ("weight", "bias") else f"{name} {shape}"


def _note(step: Step, module: str, params: list[Param]) -> str:
    """What is said of an op stands at its own module, or at the one that holds its tensors itself."""
    op = step.op.note if module in (step.op.name, step.op.name.rpartition(".")[0]) else ""
    notes = [n for n in [op, *(p.note for p in params)] if n]
    if step.repeat > 1:
        notes.append(f"shared by {step.repeat} layers" if step.copies == 1 else f"x {step.repeat} layers")
    if any(p.active != (1, 1) for p in params):
        used, of = next(p.active for p in params if p.active != (1, 1))
        if not op.startswith(f"{used} of {of}"):
            notes.append(f"{used} of {of} for each token")
    if all(p.buffer for p in params):
        notes.append("buffer")
    return "; ".join(dict.fromkeys(notes))


def _sum(every: Iterable[Step], size: Callable[[Param], int]) -> int:
    return sum(step.copies * size(p) for step in every for p in step.params)


def _tied(spec: Spec, every: Iterable[Step]) -> int:
    sizes = {p.name: p.count for step in every for p in step.params}
    return sum(sizes.get(used, 0) for _, used in spec.ties)
