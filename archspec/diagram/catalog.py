"""The distinct kinds of mixers and feed-forward networks of a model, how often each runs and what it is called."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from archspec.diagram.component import memory_text, stateless
from archspec.diagram.describe import params
from archspec.diagram.style import MOE, Tone, tone
from archspec.diagram.text import TIMES, amount, share
from archspec.language.model import Block, Spec
from archspec.layers.base import Component
from archspec.layers.ops import Attend, Cache, Experts, Op

MOST_KINDS = 8


@dataclass
class Kind:
    """A kind of mixer or feed-forward network; its variants differ in their window, or only in sizes.

    One that does not decode stands in a stack that runs once, before the last one, and keeps nothing (`ops`).
    """

    component: Component
    ops: tuple[Op, ...]
    tone: Tone
    layers: int = 0
    windows: dict[int | None, int] = field(default_factory=dict)
    sizes: int = 1
    title: str = ""
    stack: str = ""
    decodes: bool = True

    @property
    def facts(self) -> list[str]:
        """Multiplicity, and memory or size, for the header of its panel."""
        experts = next((op for op in self.ops if isinstance(op, Experts)), None)
        parts = [f"{TIMES}{self.layers}"]
        if self.sizes > 1:
            parts.append(f"{self.sizes} sizes, one drawn")
        if len(self.windows) > 1:
            parts = [_windows(self.windows)]
        memory = memory_text(self.ops)
        if experts is not None:
            active = share(experts.top_k, experts.n_experts)
            parts += [f"{experts.n_experts} experts, top-{experts.top_k}", f"{active} active"]
        if memory:
            parts += memory if len(self.windows) < 2 else [m for m in memory if not m.startswith("at most")]
        elif experts is None:
            parts.append(f"{amount(params(self.ops))} each")
        return parts

    @property
    def reach(self) -> str:
        """The windows in words, when there are several."""
        return "window " + " or ".join(str(w or "full") for w in self.windows) if len(self.windows) > 1 else ""


def _windows(windows: dict[int | None, int]) -> str:
    return ", ".join(f"{TIMES}{n} {f'window {w}' if w else 'full'}" for w, n in windows.items())


@dataclass
class Catalog:
    """The kinds in order of appearance, and which one each component is."""

    kinds: list[Kind] = field(default_factory=list)
    of: dict[int, Kind] = field(default_factory=dict)
    cells: dict[int, tuple[str, Tone]] = field(default_factory=dict)
    left_out: int = 0

    def cell(self, part: Component) -> tuple[str, Tone]:
        """Name and hue of the small cell of a component."""
        if id(part) not in self.cells:
            self.cells[id(part)] = (short(part, self.of[id(part)].tone), self.of[id(part)].tone)
        return self.cells[id(part)]


def main_parts(block: Block) -> Iterator[tuple[str, Component]]:
    """The mixers and feed-forward networks of a block, in the order in which they run."""
    for name, part in block.parts:
        if part is not None and part.role in ("mixer", "ffn"):
            yield name, part


def catalog(spec: Spec) -> Catalog:
    """Collect the kinds: components of one structure and one size are one kind, whatever their window."""
    found = _collect(spec, exact=True)
    if len(found.kinds) > 5:
        found = _collect(spec, exact=False)
    if len(found.kinds) > MOST_KINDS:
        found.kinds.sort(key=lambda k: -k.layers)
        found.left_out = len(found.kinds) - MOST_KINDS
        del found.kinds[MOST_KINDS:]
    _name(found.kinds)
    return found


def _collect(spec: Spec, exact: bool) -> Catalog:
    found, by_key, signatures = Catalog(), dict[Any, Kind](), dict[Any, set[Any]]()
    for stack in spec.stacks:
        for segment in stack.segments:
            for layer in segment.layers:
                for _, part in main_parts(layer.block):
                    kind = found.of.get(id(part)) or _kind(
                        part, stack.name, stack is spec.main, exact, by_key, signatures, found
                    )
                    found.of[id(part)] = kind
                    kind.layers += segment.repeat
                    window = getattr(part, "window", None)
                    kind.windows[window] = kind.windows.get(window, 0) + segment.repeat
    for key, kind in by_key.items():
        kind.sizes = len(signatures[key])
    return found


def _kind(
    part: Component,
    stack: str,
    decodes: bool,
    exact: bool,
    by_key: dict[Any, Kind],
    signatures: dict[Any, set[Any]],
    found: Catalog,
) -> Kind:
    ops = part.ops()
    decodes = decodes or all(op.cache == Cache() for op in ops)
    ops = ops if decodes else stateless(ops)
    whole = tuple(_unlimited(op) for op in ops)
    names = tuple((type(op).__name__, op.name, op.inputs, op.note if isinstance(op, Attend) else "") for op in ops)
    key = (type(part).__name__, decodes, whole if exact else names)
    signatures.setdefault(key, set()).add(whole)
    if key not in by_key:
        by_key[key] = Kind(part, ops, tone(part, ops), stack=stack, decodes=decodes)
        found.kinds.append(by_key[key])
    return by_key[key]


def _unlimited(op: Op) -> Op:
    """The op without its window, by which alone two layers do not count as two kinds."""
    if isinstance(op, Attend) and op.window is not None:
        return replace(op, window=None, cache=replace(op.cache, limit=None))
    return op


def _name(kinds: list[Kind]) -> None:
    """Titles; where two kinds have one title, the mask or the width tells them apart."""
    for kind in kinds:
        title = kind.component.title.partition(",")[0]
        plain = kind.component.role == "mixer" and " " not in title and "attention" not in title
        kind.title = f"{title} mixer" if plain else title
    for kind in kinds:
        same = [k for k in kinds if k is not kind and k.title.partition(" (")[0] == kind.title]
        if same:
            kind.title = f"{kind.title} ({_difference(kind, same)})"


def _difference(kind: Kind, others: list[Kind]) -> str:
    for name in ("mask", "n_heads", "n_kv_heads", "d_ff", "d_inner", "activation", "head_dim"):
        own = getattr(kind.component, name, None)
        if own is not None and all(getattr(o.component, name, None) != own for o in others):
            return f"{name} {own}" if name != "mask" else str(own)
    total = params(kind.ops)
    if all(params(o.ops) == total and o.stack != kind.stack for o in others):
        return kind.stack
    return amount(total)


def short(component: Component, hue: Tone) -> str:
    """A name for a small cell."""
    title, kind = component.title.partition(",")[0], str(getattr(component, "kind", ""))
    words = title.replace("-", " ").split()
    if title.lower().endswith("attention") and component.role == "mixer" and len(words) > 1:
        cross = getattr(component, "mask", "") == "cross"
        letters = kind if 1 < len(kind) < 5 else "".join(w[0] for w in words)
        name = "cross-attn" if cross else letters.upper()
        window = getattr(component, "window", None)
        return f"{name}, w {window}" if window else name
    if hue is MOE:
        return MOE.name
    return title if len(title) <= 14 else kind.replace("_", " ") or title[:14]
