"""The distinct kinds of mixers and feed-forward networks of a model, how often each runs and what it is called."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from archspec.diagram.boxes import params
from archspec.diagram.component import unlimited
from archspec.diagram.memory import layer_words
from archspec.diagram.stacks import StackView
from archspec.diagram.style import Tone, tone
from archspec.diagram.text import shorten
from archspec.diagram.words import TIMES, amount, share
from archspec.errors import many
from archspec.layers.base import Component, FFNComponent, MixerComponent
from archspec.layers.ops import Attend, Experts, Op
from archspec.lowering import Function

MOST_KINDS = 8
MOST_EXACT = 5  # kinds from which on those of one structure are drawn once, whatever their sizes
MASK = "mask"  # the setting that speaks for itself
SHORT = 90.0  # points of the longest short name


@dataclass
class Kind:
    """A kind of mixer or feed-forward network; its variants differ in their window, or only in sizes.

    One that does not decode stands in a stack that runs once, before the last one, and keeps nothing (`ops`).
    """

    component: Component
    ops: tuple[Op, ...]
    tone: Tone
    stack: str
    d_model: int
    layers: int = 0
    windows: dict[int | None, int] = field(default_factory=dict)
    sizes: set[tuple[Op, ...]] = field(default_factory=set)
    title: str = ""

    @property
    def facts(self) -> list[str]:
        """Multiplicity, and memory or size, for the header of its panel."""
        parts = [_windows(self.windows)] if len(self.windows) > 1 else [f"{TIMES}{self.layers}"]
        if len(self.sizes) > 1 and len(self.windows) == 1:
            parts.append(f"{len(self.sizes)} sizes, one drawn")
        experts = next((op for op in self.ops if isinstance(op, Experts)), None)
        if experts is not None:
            active = share(experts.top_k, experts.n_experts)
            parts += [f"{many(experts.n_experts, 'expert')}, top-{experts.top_k}", f"{active} active"]
        memory = layer_words(self.ops if len(self.windows) == 1 else [unlimited(op) for op in self.ops])
        each = [f"{amount(params(self.ops))} each"] if experts is None else []
        return [*parts, *(memory or each)]

    @property
    def reach(self) -> str:
        """The windows in words, when there are several."""
        return "window " + " or ".join(str(w or "full") for w in self.windows) if len(self.windows) > 1 else ""


def _windows(windows: dict[int | None, int]) -> str:
    return ", ".join(f"{TIMES}{n} {f'window {w}' if w else 'full'}" for w, n in windows.items())


@dataclass
class Kinds:
    """The kinds in order of appearance, and which one each component is."""

    drawn: list[Kind] = field(default_factory=list)
    of: dict[int, Kind] = field(default_factory=dict)
    left_out: int = 0

    def cell(self, part: Component) -> tuple[str, Tone]:
        """Name and hue of the small cell of a component."""
        window = _window(part.ops())
        name = shorten(part.short, 9, SHORT, True)
        return (f"{name}, w {window}" if window else name), self.of[id(part)].tone


def main_parts(block: Function) -> Iterator[Component]:
    """The mixers and feed-forward networks of a block, in the order in which they run."""
    return (m.made for m in block.members if isinstance(m.made, MixerComponent | FFNComponent))


def kinds_of(stacks: list[StackView]) -> Kinds:
    """Collect the kinds: components of one structure and one size are one kind, whatever their window."""
    found = _Collection(exact=True).of(stacks)
    if len(found.drawn) > MOST_EXACT:
        found = _Collection(exact=False).of(stacks)
    if len(found.drawn) > MOST_KINDS:
        found.drawn.sort(key=lambda k: -k.layers)
        found.left_out = len(found.drawn) - MOST_KINDS
        del found.drawn[MOST_KINDS:]
    _name(found.drawn)
    return found


class _Collection:
    """Kinds by what makes them one."""

    def __init__(self, exact: bool):
        self.exact = exact
        self.found = Kinds()
        self.by_key: dict[Any, Kind] = {}

    def of(self, stacks: list[StackView]) -> Kinds:
        """The kinds of some stacks."""
        for stack in stacks:
            for period in stack.periods:
                for block in period.layers:
                    for part in main_parts(block):
                        self.add(part, stack, period.repeat)
        return self.found

    def add(self, part: Component, stack: StackView, times: int) -> None:
        """Count a component."""
        kind = self.found.of.get(id(part)) or self.kind_for(part, stack)
        self.found.of[id(part)] = kind
        kind.layers += times
        window = _window(part.ops())
        kind.windows[window] = kind.windows.get(window, 0) + times

    def kind_for(self, part: Component, stack: StackView) -> Kind:
        """The kind of a component, which may be new."""
        ops, decodes = part.ops(), stack.decodes or not any(op.kept for op in part.ops())
        ops = ops if decodes else tuple(replace(op, kept=()) for op in ops)
        whole = tuple(unlimited(op) for op in ops)
        structure = tuple((type(op), op.name, op.inputs, op.label if isinstance(op, Attend) else "") for op in ops)
        key = (type(part), decodes, whole if self.exact else structure)
        if key not in self.by_key:
            self.by_key[key] = Kind(part, ops, tone(part, ops), stack.name, stack.d_model)
            self.found.drawn.append(self.by_key[key])
        self.by_key[key].sizes.add(whole)
        return self.by_key[key]


def _window(ops: tuple[Op, ...]) -> int | None:
    return next((op.window for op in ops if isinstance(op, Attend)), None)


# Titles


def name_of(component: Component) -> str:
    """The title without what follows its comma."""
    return component.title.partition(",")[0]


def _name(kinds: list[Kind]) -> None:
    """Titles; where two kinds have one title, what sets them apart follows in parentheses."""
    for kind in kinds:
        mixes = isinstance(kind.component, MixerComponent) and not any(isinstance(op, Attend) for op in kind.ops)
        kind.title = f"{name_of(kind.component)} mixer" if mixes else name_of(kind.component)
    titles = [kind.title for kind in kinds]
    for kind, title in zip(kinds, titles, strict=True):
        same = [k for k, t in zip(kinds, titles, strict=True) if k is not kind and t == title]
        if same:
            kind.title = f"{title} ({_difference(kind, same)})"


def _difference(kind: Kind, others: list[Kind]) -> str:
    """The mask or else the first setting that no other of the kinds has alike; else the stack or the size."""
    own, *rest = (_settings(k) for k in (kind, *others))
    for name, value in own.items():
        if all(other.get(name) != value for other in rest):
            return value if name == MASK else f"{name} {value}"
    total = params(kind.ops)
    if all(params(o.ops) == total and o.stack != kind.stack for o in others):
        return kind.stack
    return amount(total)


def _settings(kind: Kind) -> dict[str, str]:
    """The numbers and words that a component is set to, its mask first."""
    masks = [op.mask for op in kind.ops if isinstance(op, Attend)]
    values = {name: v for name, v in kind.component if isinstance(v, str | int | float) and not isinstance(v, bool)}
    return ({MASK: masks[0]} if masks else {}) | {
        name: f"{v:.4g}" if isinstance(v, float) else str(v) for name, v in values.items()
    }
