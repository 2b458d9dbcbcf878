"""What every kind of mixer and FFN costs: the textbooks' table, read from the ops of the kinds that there are.

A kind stands there with its defaults, or with its first example where it needs settings. One of the settings of its
examples that makes costs grow otherwise (a window, cross-attention) has a line of its own.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import log2, prod
from typing import Any

from archspec.errors import SpecError
from archspec.formulas import Size
from archspec.formulas.functions import named
from archspec.graph import NOWHERE, Graph, Node
from archspec.language.resolve import make
from archspec.layers.base import Component, FFNComponent, MixerComponent
from archspec.layers.ops import How, Op, Run, Scan, linear
from archspec.layers.registry import find, kinds
from archspec.passes.figures import Figure, Maker
from archspec.passes.html import html_table
from archspec.passes.named import named_component, named_sizes
from archspec.passes.orders import FAR
from archspec.passes.spec_formulas import WIDTH, figures
from archspec.passes.storages import storages
from archspec.passes.work import lines

ROLES = (MixerComponent.role, FFNComponent.role)
SIZES = {"d_model": 1024, "d_memory": 1024, "vocab_size": 32_000, "max_seq_len": 4096, "n_layers": 12}
HEADER = ("kind", "training", "projections", "memory", "unfused", "steps", "a token", "state", "order")


@dataclass(frozen=True)
class KindRow:
    """One kind, or a setting of it with which it costs otherwise.

    Attributes:
        role, kind, setting: what it is.
        work: the class of what mixes tokens (of an FFN: of all), for a text of T tokens; pairs that a mask or a window
            hides are left out.
        projections: that of the projections beside it; nothing where there are none.
        memory: bytes that training keeps for the backward pass, with fused kernels.
        written: numbers that a forward pass writes to memory, with fused kernels.
        unfused: the same where the scores of attention and the states of all tokens are written too.
        steps: operations that must follow one another in training.
        decoding: FLOPs of what mixes tokens for one more token, which sees S; nothing where it does not decode.
        state: numbers kept; nothing where there are none.
        order: how it knows the order of tokens: "inherent", "by its mask" (where that hides later tokens) or "needs
            positions"; nothing for an FFN to which it makes no difference.
        figures: the formulas behind these.
    """

    role: str
    kind: str
    setting: str
    work: str
    projections: str
    memory: str
    written: str
    unfused: str
    steps: str
    decoding: str
    state: str
    order: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Kinds:
    """The table of kinds."""

    lines: tuple[KindRow, ...]

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The cells, after a header."""
        return [HEADER, *map(_cells, self.lines)]

    def _repr_html_(self) -> str:
        return html_table(self.rows, "Kinds of mixers and FFNs")


def complexity_of_kinds() -> Kinds:
    """What each kind of mixer and FFN costs, in the sizes of its fields."""
    return Kinds(tuple(row for role in ROLES for kind in kinds(role) for row in _rows(role, kind)))


def _rows(role: str, kind: str) -> Iterator[KindRow]:
    examples = find(role, kind).examples
    base = next(settings for settings in ({}, *examples) if _made(role, kind, settings) is not None)
    changes = dict.fromkeys((name, value) for settings in examples for name, value in settings.items() if _plain(value))
    seen: set[Any] = set()
    for name, value in (("", None), *changes):
        settings = {**base, **({name: value} if name else {})}
        c = _made(role, kind, settings)
        if c is not None and (growth := _growth(c)) not in seen:
            seen.add(growth)
            yield _row(kind, settings, c, f"{name} {value}" if isinstance(value, str) else name)


def _plain(value: Any) -> bool:
    return isinstance(value, str | int)


def _made(role: str, kind: str, settings: dict[str, Any], **defaults: str) -> Component | None:
    """A component with those settings; None where they do not do."""
    try:
        return make(role, {**settings, "kind": kind}, **SIZES, **defaults)
    except SpecError:
        return None


def _row(kind: str, settings: dict[str, Any], c: Component, setting: str) -> KindRow:
    found = of_component(c)
    if "needed" not in found:
        found["needed"] = replace(found["prefill"], name="needed")
    work = found["needed"].order[2:-1].split(" + ")
    token = found["decoding"].order[2:-1].split(" + ") if "decoding" in found else [""]
    return KindRow(
        role=c.role,
        kind=kind,
        setting=setting,
        work=f"O({work[0]})",
        projections=f"O({work[1]})" if len(work) > 1 else "",
        memory=found["memory"].order,
        written=found["written"].order,
        unfused=found["unfused"].order,
        steps=found["steps"].order,
        decoding=f"O({token[0]})" if token[0] else "",
        state=found["state"].order if "state" in found else "",
        order=_order(kind, settings, c),
        figures=tuple(found.values()),
    )


def of_component(c: Component) -> dict[str, Figure]:
    """The costs of a component by itself, by name: those of `Part.figures`."""
    ops = named_component(c).ops()
    nodes = tuple(Node(op, "x", c.role, c) for op in ops)
    known = {op.name for op in ops}
    found = Graph(nodes, tuple((name, op.name) for op in ops for name in op.inputs if name in known))
    B, T, S, M = map(named, ("B", "T", "S", "M"))
    members = lines(found, {"x": Run(B, T, T, M)}, How(), "train")
    decoding = lines(found, {"x": Run(B, 1, S, M, True)}, How(), "decode") if _decodes(c) else []
    costs = figures(found, members, decoding, named_sizes(c), "T", _needed(c, ops))
    make = Maker(c, named_sizes(c), ops)
    eager = lines(found, {"x": Run(B, T, T, M)}, How(attention="eager"), "train")
    states = [line.node.op.unfused(line.run) for line in members if isinstance(line.node.op, Scan)]
    for name, values in (
        ("written", [n.written for n in members]),
        ("unfused", [*(n.written for n in eager), *states]),
    ):
        if (made := make.plain(name, "T", values)) is not None:
            costs[name] = made
    return costs


def _needed(c: Component, ops: Iterable[Op]) -> list[int]:
    """Bytes of what a component keeps for the backward pass, given what projections before it have made."""
    width = Size.of(int(c.d_model), "d_model")  # type: ignore[attr-defined]
    before = Node(linear("given", width, width, inputs=("tokens",)), "x", "before", None, reads=(NOWHERE,))
    known = {"x": "given", **{op.name: op.name for op in ops}}
    nodes = [Node(op, "x", c.role, c, reads=tuple(known.get(i, NOWHERE) for i in op.inputs)) for op in ops]
    B, T, M = map(named, ("B", "T", "M"))
    kept = storages(Graph((before, *nodes), ()), {"x": Run(B, T, T, M)}, How(width=WIDTH))
    return [kept.sizes[key] for key in kept.kept]


def _decodes(c: Component) -> bool:
    return c.causal and (not isinstance(c, MixerComponent) or "state" in c.arguments)


def _growth(c: Component) -> tuple[float, ...]:
    """How its costs grow with each length, as exponents."""
    ops, n = c.ops(), FAR
    text, token = Run(1, n, n, n), Run(1, 1, n, n, True)
    found = [_slope(_work(ops, text), _work(ops, run)) for run in (Run(1, 2 * n, 2 * n, n), Run(1, n, n, 2 * n))]
    found.append(_slope(sum(op.steps(text) for op in ops), sum(op.steps(Run(1, 2 * n, 2 * n, n)) for op in ops)))
    for cost in (_work, _held) if _decodes(c) else ():
        longer = (token._replace(S=2 * n), token._replace(M=2 * n))
        found += [_slope(cost(ops, token), cost(ops, run)) for run in longer]
    return tuple(found)


def _work(ops: Iterable[Op], run: Run) -> int:
    return sum(op.needed_flops(run) for op in ops)


def _held(ops: Iterable[Op], run: Run) -> int:
    return sum(prod(k.needed(run)) for op in ops for k in op.kept)


def _slope(one: int, two: int) -> float:
    """The exponent by which a cost grows that was `one` before its length was doubled; -1 of none."""
    return round(log2(two / one), 2) if one else -1.0


def _order(kind: str, settings: dict[str, Any], c: Component) -> str:
    """How it knows the order of tokens."""
    if not c.tells_order:
        return "needs positions" if isinstance(c, MixerComponent) else ""
    other = _made(c.role, kind, settings, mask="bidirectional")
    return "inherent" if not isinstance(other, MixerComponent) or other.tells_order else "by its mask"


def _cells(row: KindRow) -> tuple[str, ...]:
    name = f"{row.kind}, {row.setting}" if row.setting else row.kind
    decoding = row.decoding or "does not decode"
    unfused = row.unfused if row.unfused != row.written else ""
    rest = (row.steps, decoding, row.state, row.order)
    return (name, *(cell or "-" for cell in (row.work, row.projections, row.memory, unfused, *rest)))
