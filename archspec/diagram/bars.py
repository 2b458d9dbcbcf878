"""The footer: parameters by class as stacked bars, total and active, and what decoding keeps."""

from dataclasses import dataclass, field

from archspec.diagram.scene import Scene, Shape, texts
from archspec.diagram.style import GREY, INK, RECURRENT, TABLE, Tone, tone
from archspec.diagram.text import Line, amount, extent, joined, measure, share, size
from archspec.graph import Step
from archspec.layers.base import Component
from archspec.layers.ops import Attend, Cache
from archspec.passes.count import cache_bytes

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
        room = width - LABELS - 3 * PAD - (notes_w + 2 * PAD if self.wide else 0)
        self.length = room - 170.0
        self.beside = [self._beside(values) for _, values in self.bars]
        self.length = room - max(extent(lines)[0] for lines in self.beside)
        self.beside = [self._beside(values) for _, values in self.bars]  # a longer bar may hold more
        self.pitch = max([PITCH, *(extent(lines)[1] + 4 for lines in self.beside)])
        bars = self.pitch * len(self.bars)
        self.height = 2 * 9 + (max(bars, notes_h) if self.wide else bars + notes_h + 4)

    def paint(self, scene: Scene, left: float, top: float, width: float) -> None:
        """Draw it below `top`."""
        bars = self.pitch * len(self.bars)
        _, notes_h = extent(self.notes)
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
        for text in (f"{piece.name} {share(value, whole)}", share(value, whole)):
            if measure(text, 9) + 10 <= w:
                return (Line(text, 9),)
        return ()

    def _beside(self, values: list[int]) -> tuple[Line, ...]:
        whole = sum(values) or 1
        small = [
            f"{p.name} {share(v, whole)}"
            for p, v in zip(self.pieces, values, strict=True)
            if v and not self._named(p, v, whole)
        ]
        return texts(joined(small, ", ", 8, 170.0), 8, GREY)

    def _named(self, piece: Piece, value: int, whole: int) -> bool:
        """Whether the name of a piece has room in its segment."""
        lines = self._inside(piece, value, whole, self.length * value / whole)
        return bool(lines) and lines[0].text.startswith(piece.name)


def _square(shape: Shape) -> Shape:
    return Shape(
        shape.x, shape.y, shape.w, shape.h, shape.lines, fill=shape.fill, border=shape.border, pen=shape.pen,
        rounded=False,
    )  # fmt: skip


def pieces(every: list[Step]) -> list[Piece]:
    """The parameters by class, the largest first."""
    found: dict[str, Piece] = {}
    classes: dict[int, tuple[str, Tone]] = {}
    for step in every:
        if not step.params:
            continue
        if id(step.component) not in classes:
            classes[id(step.component)] = _class(step.component)
        name, hue = classes[id(step.component)]
        piece = found.setdefault(name, Piece(name, hue))
        for p in step.params:
            if not p.buffer:
                piece.total += step.copies * p.count
                piece.active += step.copies * (p.count * p.active[0] // p.active[1])
    return sorted((p for p in found.values() if p.total), key=lambda p: -p.total)


def footer(every: list[Step], found: list[Piece], max_seq_len: int | None) -> Footer:
    """One bar, or two where a token does not use all parameters."""
    total, active = sum(p.total for p in found), sum(p.active for p in found)
    bars = [(f"total {amount(total, 4)}", [p.total for p in found])]
    if active != total:
        bars.append((f"active {amount(active, 4)}", [p.active for p in found]))
    return Footer(found, bars, cache_lines(every, max_seq_len))


def _class(component: Component | None) -> tuple[str, Tone]:
    if component is None:
        return TABLE.name, TABLE
    hue = tone(component)
    return (component.title.partition(",")[0] if hue is RECURRENT else hue.name), hue


def cache_lines(steps: list[Step], tokens: int | None) -> tuple[Line, ...]:
    """What one sequence keeps while it is decoded, by the last stack: the part that grows, and the fixed part."""
    steps = [s for s in steps if s.stack == steps[-1].stack]
    growing = 2 * sum((s.op.cache.per_token + s.op.cache.per_memory_token) * s.repeat for s in steps)
    fixed = sum((2 * s.op.cache.fixed + 4 * s.op.cache.exact) * s.repeat for s in steps)
    if not growing and not fixed:
        return (Line("no cache, no state", 9, color=GREY),)
    parts = []
    if growing:
        limit = growing if tokens is None else cache_bytes(steps, tokens) - fixed
        name = "KV " if any(isinstance(s.op, Attend) and s.op.cache != Cache() for s in steps) else ""
        parts.append(name + size(limit) + (" / token" if tokens is None else ""))
    if fixed:
        parts.append(f"state {size(fixed)}")
    where = "" if not growing else f"cache at T = {tokens}: " if tokens else "cache: "
    lines = [Line(where + "  +  ".join(parts), 9.5, color=INK)]
    lines.append(Line(_decoding(steps), 8.5, color=GREY))
    exact = ", recurrent states 4" if any(s.op.cache.exact for s in steps) else ""
    lines.append(Line(f"one sequence, 2 bytes a number{exact}", 8.5, color=GREY))
    return tuple(lines)


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
