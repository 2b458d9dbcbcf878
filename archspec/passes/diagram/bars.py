"""The footer: parameters by class as stacked bars, total and active, and what decoding keeps."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from archspec.graph import Step
from archspec.layers.base import Component
from archspec.passes.count import Count
from archspec.passes.diagram.scene import Scene, Shape, texts
from archspec.passes.diagram.style import GREY, INK, MOE, RECURRENT, TABLE, Tone, tone
from archspec.passes.diagram.text import ELLIPSIS, Line, amount, extent, measure, share, size, wrap

BAR, PITCH, LABELS = 20.0, 34.0, 100.0
PAD = 14.0


@dataclass
class Piece:
    """A class of parameters and its share of both bars."""

    name: str
    tone: Tone
    total: int = 0
    active: int = 0


@dataclass
class Footer:
    """The bars and the lines beside or below them, for a width that is given at the end."""

    pieces: list[Piece]
    bars: list[tuple[str, list[int]]]
    notes: tuple[Line, ...]
    height: float = 0.0
    wide: bool = True
    beside: list[tuple[Line, ...]] = field(default_factory=list)

    def fit(self, width: float) -> None:
        """Settle heights for a width."""
        notes_w, notes_h = extent(self.notes)
        self.wide = width >= 620 + notes_w
        self.rest = 190.0 if self.wide else 150.0
        self.length = width - LABELS - self.rest - 3 * PAD - (notes_w + 2 * PAD if self.wide else 0)
        self.beside = [self._beside(values) for _, values in self.bars]
        self.pitch = max([PITCH, *(extent(lines)[1] + 4 for lines in self.beside)])
        bars = self.pitch * len(self.bars)
        self.height = 2 * 9 + (max(bars, notes_h) if self.wide else bars + notes_h + 4)

    def paint(self, scene: Scene, left: float, top: float, width: float) -> None:
        """Draw it below `top`."""
        bars = self.pitch * len(self.bars)
        notes_w, notes_h = extent(self.notes)
        inner = self.height - 18
        first = top - 9 - (max(inner - bars, 0) / 2 if self.wide else 0)
        for i, (label, values) in enumerate(self.bars):
            y = first - self.pitch * (i + 0.5)
            scene.text(left + LABELS, y, Line(label, 9.5, True), anchor="right")
            self._bar(scene, left + LABELS + PAD, y, values)
            if self.beside[i]:
                scene.text(left + LABELS + 2 * PAD + self.length, y, *self.beside[i], anchor="left")
        if self.wide:
            scene.text(left + width - PAD, top - self.height / 2, *self.notes, anchor="right")
        else:
            scene.text(left + width / 2, top - self.height + 9 + notes_h / 2, *self.notes)

    def _bar(self, scene: Scene, x: float, y: float, values: list[int]) -> None:
        whole = sum(values) or 1
        for piece, value in zip(self.pieces, values, strict=True):
            w = self.length * value / whole
            if w <= 0:
                continue
            label = self._inside(piece, value, whole, w)
            if w >= 0.3:
                shape = Shape(x + w / 2, y, w, BAR, label, fill=piece.tone.fill, border=piece.tone.border, pen=0.8)
                scene.add(_square(shape))
            x += w

    def _inside(self, piece: Piece, value: int, whole: int, w: float) -> tuple[Line, ...]:
        long = f"{piece.name} {share(value, whole)}"
        return (Line(long, 9),) if measure(long, 9) + 10 <= w else ()

    def _beside(self, values: list[int]) -> tuple[Line, ...]:
        whole = sum(values) or 1
        small = [
            f"{p.name} {share(v, whole)}"
            for p, v in zip(self.pieces, values, strict=True)
            if v and not self._inside(p, v, whole, self.length * v / whole)
        ]
        lines = _listed(small, self.rest - PAD)
        return texts(lines, 8, GREY)


def _listed(parts: list[str], width: float) -> list[str]:
    """Parts with commas in lines, none broken inside."""
    lines: list[str] = []
    for part in parts:
        joined = f"{lines[-1]}, {part}" if lines else part
        if lines and measure(joined, 8) <= width:
            lines[-1] = joined
        else:
            lines.append(part)
    return lines if len(lines) <= 4 else [*lines[:3], f"{lines[3]} {ELLIPSIS}"]


def _square(shape: Shape) -> Shape:
    return Shape(
        shape.x, shape.y, shape.w, shape.h, shape.lines, fill=shape.fill, border=shape.border, pen=shape.pen,
        rounded=False,
    )  # fmt: skip


def footer(every: list[Step], counted: Count, max_seq_len: int | None, titles: dict[int, str]) -> Footer:
    """Sort the parameters into classes, the largest first."""
    pieces: dict[str, Piece] = {}
    for step in every:
        name, hue = _class(step.component, titles)
        piece = pieces.setdefault(name, Piece(name, hue))
        for p in step.params:
            if not p.buffer:
                piece.total += step.copies * p.count
                piece.active += step.copies * (p.count * p.active[0] // p.active[1])
    ordered = sorted((p for p in pieces.values() if p.total), key=lambda p: -p.total)
    bars = [(f"total {amount(counted.total, 4)}", [p.total for p in ordered])]
    if counted.active != counted.total:
        bars.append((f"active {amount(counted.active, 4)}", [p.active for p in ordered]))
    return Footer(ordered, bars, cache_lines(every, counted, max_seq_len))


def _class(component: Component | None, titles: dict[int, str]) -> tuple[str, Tone]:
    if component is None:
        return TABLE.name, TABLE
    hue = titles_tone(component)
    if hue is RECURRENT:
        return component.title.partition(",")[0], hue
    return ("MoE" if hue is MOE else hue.name), hue


def titles_tone(component: Component) -> Tone:
    """The hue of a component."""
    return tone(component)


def cache_lines(every: Iterable[Step], counted: Count, tokens: int | None) -> tuple[Line, ...]:
    """What one sequence keeps while it is decoded: the part that grows, and the fixed part."""
    steps = list(every)
    if not counted.kv_bytes_per_token and not counted.state_bytes:
        return (Line("keeps nothing between tokens", 9, color=INK), Line("no cache, no state", 8.5, color=GREY))
    parts = []
    if counted.kv_bytes_per_token:
        limit = counted.kv_bytes_per_token if tokens is None else _grown(steps, tokens)
        parts.append(f"KV {size(limit)}" + (" / token" if tokens is None else ""))
    if counted.state_bytes:
        parts.append(f"state {size(counted.state_bytes)}")
    where = f"cache at T = {tokens}: " if tokens and counted.kv_bytes_per_token else "cache: "
    lines = [Line(where + "  +  ".join(parts), 9.5, color=INK)]
    lines.append(Line(_decoding(steps), 8.5, color=GREY))
    lines.append(Line("one sequence, 2 bytes a number, recurrent states 4", 8.5, color=GREY))
    return tuple(lines)


def _grown(steps: list[Step], tokens: int) -> int:
    caches = [(s.repeat, s.op.cache) for s in steps]
    return 2 * sum(n * c.per_token * (tokens if c.limit is None else min(tokens, c.limit)) for n, c in caches)


def _decoding(steps: list[Step]) -> str:
    """On how many layers a decoded token costs more the more there are before it."""
    kinds: dict[tuple[str, int, int], str] = {}
    repeat: dict[tuple[str, int, int], int] = {}
    for step in steps:
        key = (step.stack, step.segment, step.layer)
        if step.segment < 0:
            continue
        repeat[key] = step.repeat
        cache = step.op.cache
        grade = ("O(T)" if cache.limit is None else "O(window)") if cache.per_token else "O(1)"
        kinds[key] = max(kinds.get(key, "O(1)"), grade, key=("O(1)", "O(window)", "O(T)").index)
    totals: dict[str, int] = {}
    for key, grade in kinds.items():
        totals[grade] = totals.get(grade, 0) + repeat[key]
    return "decode: " + ", ".join(
        f"{g} on {totals[g]} layer{'s' if totals[g] != 1 else ''}" for g in ("O(T)", "O(window)", "O(1)") if g in totals
    )


__all__ = ["Footer", "footer", "wrap"]
