"""The whole model: input, embedding, one period of each segment as a stripe of cells, norm, heads.

Several stacks stand side by side, with an arrow from the one that is read to the one that reads it.
"""

from dataclasses import dataclass, field
from math import fsum

from archspec.diagram.branches import Branches
from archspec.diagram.ends import embedding_lines, head_lines, input_text, norm_lines, output_text
from archspec.diagram.flow import box_size
from archspec.diagram.kinds import Kinds
from archspec.diagram.scene import Path, Scene, Shape
from archspec.diagram.stacks import StackView
from archspec.diagram.stripes import PITCH, Place, Row, Stripe, stripes_of
from archspec.diagram.style import DARK, FRAME, GREY, INK, NORM, RAIL, TABLE, WHITE, Tone
from archspec.diagram.text import Line, measure, shorten
from archspec.diagram.words import DOTS, TIMES, shape_text
from archspec.layers.base import EmbeddingComponent, NormComponent
from archspec.lowering.program import Layers

CELL, ARROWS, COLUMN_GAP = 23.0, 20.0, 46.0
FIRST = 9.0  # by which the arrow into the layers is longer, as a shape stands beside it
MOST_SPARE = 36.0  # by which an arrow may be stretched
WIDE, NARROW = 150.0, 100.0  # least widths of boxes


@dataclass
class Box:
    """What stands around the layers."""

    lines: tuple[Line, ...]
    tone: Tone
    least: float = WIDE

    def __post_init__(self) -> None:
        self.w, self.h = box_size(self.lines, self.least)


@dataclass
class Column:
    """One stack, from its input up: boxes and stripes in the order in which they run."""

    view: StackView
    input: str
    pieces: list[Box | Stripe]
    output: str
    name: str = ""
    branches: Branches | None = None  # several heads in place of one output
    frames: list[Shape] = field(default_factory=list)  # of the stripes, once drawn
    top: Shape | None = None  # the text of the output, once drawn

    def __post_init__(self) -> None:
        self.stripes = [p for p in self.pieces if isinstance(p, Stripe)]
        rows = [row for stripe in self.stripes for row in stripe.rows]
        self.cell = max([58.0, *(measure(name, 9, True) + 16 for row in rows for name, _ in row.cells)])
        self.index = max(measure(row.label, 8.5) for row in rows) + 4
        self.most = max(len(row.cells) for row in rows)
        times = any(row.times > 1 and row.label != DOTS for row in rows)
        self.stripe_width = 26 + self.index + self.most * (self.cell + 7) + (24 if times else 6)
        tags = max((measure(s.tag, 11, True) + 8 for s in self.stripes if s.tag), default=0)
        ends = [measure(text, 9) + 4 for text in (self.input, self.output)]
        boxes = [p.w for p in self.pieces if isinstance(p, Box)]
        self.w = max([WIDE, self.stripe_width + tags, *boxes, *ends, self.branches.w if self.branches else 0.0])

    @property
    def arrows(self) -> int:
        """How many there are."""
        return len(self.pieces) + (2 if self.branches else 1)

    @property
    def h(self) -> float:
        """Its height in points, at its tightest."""
        heads = self.branches.h if self.branches else 0.0
        return 2 * 16 + (18 if self.name else 0) + fsum(p.h for p in self.pieces) + heads + self.arrows * ARROWS + FIRST


class Overview:
    """The view of a whole model; `zoom` is the layer that another panel shows."""

    def __init__(self, stacks: list[StackView], zoom: Place | None, kinds: Kinds):
        self.zoom = zoom
        self.columns = [_column(stacks, i, kinds) for i in range(len(stacks))]
        self.width = fsum(c.w for c in self.columns) + COLUMN_GAP * (len(self.columns) - 1)
        self.arrows = max(c.arrows for c in self.columns)
        self.height = max(c.h for c in self.columns)
        self.ring: Shape | None = None

    def paint(self, scene: Scene, left: float, bottom: float, width: float, height: float) -> None:
        """Draw it in the middle of a room, its arrows stretched to fill the height."""
        x = left + (width - self.width) / 2
        spare = min(max(height - self.height, 0) / self.arrows, MOST_SPARE)
        y = bottom + (height - self.height - spare * self.arrows) / 2
        for column in self.columns:
            self._paint(scene, column, x + column.w / 2, y, ARROWS + spare)
            x += column.w + COLUMN_GAP
        for column in self.columns:
            self._reads(scene, column)

    def _paint(self, scene: Scene, c: Column, x: float, y: float, gap: float) -> None:
        """Draw a column around x, from y up, with arrows of that length."""
        if c.name:
            y = scene.write(x, y + 8, Line(c.name, 11, True)).top
        y = scene.write(x, y + 8, Line(c.input, 9, color=GREY)).top
        for piece in c.pieces:
            room = gap
            if isinstance(piece, Stripe) and not c.frames:
                room += FIRST
                shape = Line(shape_text(("B", "T", c.view.d_model)), 8.5, color=GREY)
                scene.write(x + 8, y + room / 2, shape, anchor="left")
            scene.draw(Path(((x, y), (x, y + room))))
            y += room
            if isinstance(piece, Stripe):
                self._stripe(scene, c, piece, x, y)
            else:
                tone = piece.tone
                scene.add(Shape(x, y + piece.h / 2, piece.w, piece.h, piece.lines, fill=tone.fill, border=tone.border))
            y += piece.h
        if c.branches is not None:
            c.branches.paint(scene, x, y, gap)
            return
        scene.draw(Path(((x, y), (x, y + gap))))
        c.top = scene.write(x, y + gap + 8, Line(c.output, 9, color=GREY))

    def _stripe(self, scene: Scene, c: Column, stripe: Stripe, x: float, bottom: float) -> None:
        """Draw the dashed box of a segment, its rows and how often it stands there."""
        frame = Shape(
            x, bottom + stripe.h / 2, c.stripe_width, stripe.h, role="frame", border=FRAME, pen=1.3, dashed=True
        )
        scene.add(frame)
        c.frames.append(frame)
        if len(stripe.rows) > 1:
            up = frame.left + 9
            scene.draw(Path(((up, frame.bottom + 12), (up, frame.top - 14)), RAIL))
        for i, row in enumerate(stripe.rows):
            self._row(scene, c, row, frame, frame.bottom + 10 + PITCH * (i + 0.5))
        if stripe.tag:
            line = Line(stripe.tag, 11, True, WHITE)
            w = line.width + 16
            scene.add(Shape(frame.right - 4, frame.top, w, 19, (line,), fill=DARK.fill, border=DARK.border, pen=1))

    def _row(self, scene: Scene, c: Column, row: Row, frame: Shape, y: float) -> None:
        """Draw the cells of a layer."""
        left = frame.left + 18
        scene.write(left + c.index / 2, y, Line(row.label, 8.5, color=GREY))
        step = c.cell + 7
        left += c.index + 6 + (c.most - len(row.cells)) * step / 2
        for i, (name, hue) in enumerate(row.cells):
            x = left + i * step
            if i:
                scene.draw(Path(((x - 7, y), (x, y)), INK, arrow=False))
            scene.add(Shape(x + c.cell / 2, y, c.cell, CELL, (Line(name, 9, True),), fill=hue.fill, border=hue.border))
        right = left + len(row.cells) * step
        if row.times > 1 and row.label != DOTS:
            scene.write(right - 2, y, Line(f"{TIMES}{row.times}", 9, True), anchor="left")
        if self.zoom in row.places and row.cells:
            w = right - 7 - left
            self.ring = Shape(left + w / 2, y, w + 8, CELL + 6, role="ring", fill="none", pen=1.1)
            if sum(len(s.rows) for column in self.columns for s in column.stripes) > 1:
                scene.add(self.ring)

    def _reads(self, scene: Scene, c: Column) -> None:
        """Draw the lines from the outputs of the stacks that a column reads."""
        for _, name in c.view.reads:
            source = next(o for o in self.columns if o.view.name == name)
            out, target = source.top, c.frames[len(c.frames) // 2]
            assert out is not None
            left = source.frames[0].right
            edge = target.left if c.branches is None else min(target.left, target.x - c.branches.w / 2)
            lane = max(left + (edge - left) / 2, out.right + 8)
            way = ((out.right + 2, out.y), (lane, out.y), (lane, target.y), (target.left, target.y))
            scene.draw(Path(way, pen=1.2))


def _column(stacks: list[StackView], index: int, kinds: Kinds) -> Column:
    view = stacks[index]
    pieces: list[Box | Stripe] = []
    into, out = "", _passed_on(stacks, view)
    for step in view.steps:
        match step:
            case Layers(periods=periods):
                pieces += stripes_of(index, periods, kinds)
            case EmbeddingComponent():
                into = input_text(step)
                pieces.append(Box(embedding_lines(step, view.stack.tie_embedding), TABLE))
            case NormComponent():
                pieces.append(Box(norm_lines(step), NORM, NARROW))
    name = shorten(view.name, 11, 150, True) if len(stacks) > 1 else ""
    if any(head.name for head, _ in view.heads):
        return Column(view, into, pieces, "", name, Branches(view.heads))
    for head, gives in view.heads:
        out, lines = output_text(head.component, gives), head_lines(head.component)
        pieces += [Box(lines, TABLE)] if lines else []
    return Column(view, into, pieces, out, name)


def _passed_on(stacks: list[StackView], view: StackView) -> str:
    """Under what name another stack reads the output of this one."""
    return next((name for other in stacks for name, source in other.reads if source == view.name), "")
