"""The footer: parameters by class as stacked bars, total and active, and what decoding keeps beside them."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from archspec.diagram.kinds import name_of
from archspec.diagram.memory import model_words
from archspec.diagram.scene import Scene, Shape
from archspec.diagram.style import GREY, RECURRENT, TABLE, Tone, tone
from archspec.diagram.text import Line, extent, joined, measure, styled
from archspec.diagram.words import amount, share
from archspec.graph import Node
from archspec.language.model import Spec
from archspec.layers.base import Component

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
            scene.write(left + LABELS, y, Line(label, 9.5, True), anchor="right")
            self._bar(scene, left + LABELS + PAD, y, values)
            if self.beside[i]:
                scene.write(left + LABELS + 2 * PAD + self.length, y, *self.beside[i], anchor="left")
        if self.wide:
            scene.write(left + width - PAD, top - self.height / 2, *self.notes, anchor="right")
        else:
            scene.write(left + width / 2, top - self.height + 9 + notes_h / 2, *self.notes)

    def _bar(self, scene: Scene, x: float, y: float, values: list[int]) -> None:
        whole = sum(values) or 1
        for piece, value in zip(self.pieces, values, strict=True):
            w = self.length * value / whole
            if w <= 0:
                continue
            label = self._inside(piece, value, whole, w)
            if w >= 0.3:
                fill, border = piece.tone.fill, piece.tone.border
                scene.add(Shape(x + w / 2, y, w, BAR, label, fill=fill, border=border, pen=0.8, rounded=False))
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
        return styled(joined(small, ", ", 8, 170.0), 8, GREY)

    def _named(self, piece: Piece, value: int, whole: int) -> bool:
        """Whether the name of a piece has room in its segment."""
        lines = self._inside(piece, value, whole, self.length * value / whole)
        return bool(lines) and lines[0].text.startswith(piece.name)


def pieces(nodes: Iterable[Node]) -> list[Piece]:
    """The parameters by class, the largest first."""
    found: dict[str, Piece] = {}
    classes: dict[int, tuple[str, Tone]] = {}
    for node in (n for n in nodes if n.params):
        if id(node.component) not in classes:
            classes[id(node.component)] = _class(node.component)
        name, hue = classes[id(node.component)]
        piece = found.setdefault(name, Piece(name, hue))
        for p in node.params:
            if not p.buffer:
                piece.total += node.copies * p.numel
                piece.active += node.copies * (p.numel * p.active[0] // p.active[1])
    return sorted((p for p in found.values() if p.total), key=lambda p: -p.total)


def footer(nodes: Iterable[Node], found: list[Piece], spec: Spec) -> Footer:
    """One bar, or two where a token does not use all parameters."""
    total, active = sum(p.total for p in found), sum(p.active for p in found)
    bars = [(f"total {amount(total, 4)}", [p.total for p in found])]
    if active != total:
        bars.append((f"active {amount(active, 4)}", [p.active for p in found]))
    decoding = [node for node in nodes if node.stack == spec.main.name]
    return Footer(found, bars, model_words(decoding, spec.max_seq_len))


def _class(component: Component | None) -> tuple[str, Tone]:
    if component is None:
        return TABLE.name, TABLE
    hue = tone(component)
    return (name_of(component) if hue is RECURRENT else hue.name), hue
