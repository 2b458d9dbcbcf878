"""The whole model: input, embedding, one period of each segment as a stripe of cells, norm, head.

Several stacks stand side by side, with an arrow from the one that is read to the one that reads it.
"""

from dataclasses import dataclass, field

from archspec.diagram.catalog import Catalog, main_parts
from archspec.diagram.describe import counted, factor, params, spelled
from archspec.diagram.flow import PAD_X
from archspec.diagram.scene import Path, Scene, Shape, texts
from archspec.diagram.style import DARK, FRAME, GREY, INK, NORM, RAIL, TABLE, Tone
from archspec.diagram.text import ARROW, DOTS, TIMES, Line, extent, measure, shape_text, shorten
from archspec.language.model import Segment, Spec, Stack
from archspec.layers.ops import Embedding, Linear

CELL, PITCH, ARROWS, COLUMN_GAP = 23.0, 30.0, 20.0, 46.0
MOST_ROWS = 16

Place = tuple[int, int, int]  # stack, segment, layer


@dataclass
class Row:
    """A layer of a period, or several alike in a row."""

    label: str
    cells: list[tuple[str, Tone]]
    places: list[Place]
    times: int = 1


@dataclass
class Stripe:
    """One segment: its rows, and how often they stand one after another."""

    rows: list[Row]
    tag: str
    repeat: int = 1
    h: float = 0.0


@dataclass
class Column:
    """One stack, from its input up."""

    stack: Stack
    stripes: list[Stripe]
    embedding: tuple[Line, ...]
    head: tuple[Line, ...]
    output: str
    name: str = ""
    cell: float = 60.0
    index: float = 10.0
    w: float = 0.0
    shapes: dict[str, Shape] = field(default_factory=dict)

    @property
    def stripe_width(self) -> float:
        """Width of the dashed boxes."""
        widest = max(len(r.cells) for s in self.stripes for r in s.rows)
        times = any(r.times > 1 and r.label != DOTS for s in self.stripes for r in s.rows)
        return 26 + self.index + widest * (self.cell + 7) + (24 if times else 6)


class Macro:
    """The macro view of a spec; `zoom` is the layer that another panel shows."""

    def __init__(self, spec: Spec, zoom: Place | None, kinds: Catalog):
        self.spec, self.zoom = spec, zoom
        self.columns = [_column(spec, i, stack, kinds) for i, stack in enumerate(spec.stacks)]
        self.width = sum(c.w for c in self.columns) + COLUMN_GAP * (len(self.columns) - 1)
        self.gaps = max(_gaps(c) for c in self.columns)
        self.height = max(_height(c) for c in self.columns)
        self.ring: Shape | None = None

    def paint(self, scene: Scene, left: float, bottom: float, width: float, height: float) -> None:
        """Draw it in the middle of a room, its arrows stretched to fill the height."""
        x = left + (width - self.width) / 2
        spare = min(max(height - self.height, 0) / self.gaps, 36)
        y = bottom + (height - self.height - spare * self.gaps) / 2
        for column in self.columns:
            self._paint(scene, column, x + column.w / 2, y, spare)
            x += column.w + COLUMN_GAP
        for column in self.columns:
            self._memory(scene, column)

    def _paint(self, scene: Scene, c: Column, x: float, y: float, spare: float) -> None:
        gap = ARROWS + spare
        if c.name:
            y = scene.text(x, y + 8, Line(c.name, 11, True)).top
        below = scene.text(x, y + 8, Line(_input(c.stack), 9, color=GREY)).top
        below = self._box(scene, c, "embedding", c.embedding, TABLE, x, below, gap)
        for i, stripe in enumerate(c.stripes):
            room = gap + 9 if i == 0 else gap
            scene.draw(Path(((x, below), (x, below + room))))
            if i == 0:
                shape = shape_text(("B", "T", c.stack.d_model))
                scene.text(x + 8, below + room / 2, Line(shape, 8.5, color=GREY), anchor="left")
            below = self._stripe(scene, c, i, stripe, x, below + room)
        if c.stack.final_norm is not None:
            name = spelled(str(getattr(c.stack.final_norm, "kind", "norm")))
            below = self._box(scene, c, "norm", (Line(name, 9.5, True),), NORM, x, below, gap)
        if c.head:
            below = self._box(scene, c, "head", c.head, TABLE, x, below, gap)
        scene.draw(Path(((x, below), (x, below + gap))))
        c.shapes["output"] = scene.text(x, below + gap + 8, Line(c.output, 9, color=GREY))

    def _box(
        self, scene: Scene, c: Column, key: str, lines: tuple[Line, ...], hue: Tone, x: float, below: float, gap: float
    ) -> float:
        w, h = extent(lines)
        h += 7
        w = max(w + PAD_X, 150 if key != "norm" else 100)
        scene.draw(Path(((x, below), (x, below + gap))))
        c.shapes[key] = Shape(x, below + gap + h / 2, w, h, lines, fill=hue.fill, border=hue.border)
        scene.add(c.shapes[key])
        return below + gap + h

    def _stripe(self, scene: Scene, c: Column, index: int, stripe: Stripe, x: float, bottom: float) -> float:
        w = c.stripe_width
        frame = Shape(
            x, bottom + stripe.h / 2, w, stripe.h, role="frame", fill="#FFFFFF", border=FRAME, pen=1.3, dashed=True
        )
        scene.add(frame)
        c.shapes[f"stripe{index}"] = frame
        if len(stripe.rows) > 1:
            up = frame.left + 9
            scene.draw(Path(((up, frame.bottom + 12), (up, frame.top - 14)), RAIL))
        for i, row in enumerate(stripe.rows):
            self._row(scene, c, row, frame, frame.bottom + 10 + PITCH * (i + 0.5))
        if stripe.tag:
            tw = measure(stripe.tag, 11, True) + 16
            tag = Shape(
                frame.right - 4, frame.top, tw, 19, (Line(stripe.tag, 11, True, "#FFFFFF"),), fill=DARK.fill,
                border=DARK.border, pen=1,
            )  # fmt: skip
            scene.add(tag)
        return frame.top

    def _row(self, scene: Scene, c: Column, row: Row, frame: Shape, y: float) -> None:
        x = frame.left + 18
        scene.text(x + c.index / 2, y, Line(row.label, 8.5, color=GREY))
        x += c.index + 6
        widest = max(len(r.cells) for s in c.stripes for r in s.rows)
        step = c.cell + 7
        x += (widest - len(row.cells)) * step / 2
        first = x
        for i, (name, hue) in enumerate(row.cells):
            if i:
                scene.draw(Path(((x - 7, y), (x, y)), INK, arrow=False))
            scene.add(Shape(x + c.cell / 2, y, c.cell, CELL, (Line(name, 9, True),), fill=hue.fill, border=hue.border))
            x += step
        if row.times > 1 and row.label != DOTS:
            scene.text(first + len(row.cells) * step - 2, y, Line(f"{TIMES}{row.times}", 9, True), anchor="left")
        if self.zoom in row.places and row.cells:
            end = first + len(row.cells) * step - 7
            self.ring = Shape((first + end) / 2, y, end - first + 8, CELL + 6, role="ring", fill="none", pen=1.1)
            if sum(len(s.rows) for col in self.columns for s in col.stripes) > 1:
                scene.add(self.ring)

    def _memory(self, scene: Scene, c: Column) -> None:
        if c.stack.memory is None:
            return
        source = next(o for o in self.columns if o.stack.name == c.stack.memory)
        out, target = source.shapes["output"], c.shapes["stripe0"]
        reach = [i for i, s in enumerate(c.stripes) if s.rows]
        target = c.shapes[f"stripe{reach[len(reach) // 2]}"]
        lane = source.shapes["stripe0"].right + (target.left - source.shapes["stripe0"].right) / 2
        lane = max(lane, out.right + 8)
        scene.draw(Path(((out.right + 2, out.y), (lane, out.y), (lane, target.y), (target.left, target.y)), pen=1.2))


def _column(spec: Spec, index: int, stack: Stack, kinds: Catalog) -> Column:
    stripes = [_stripe(index, i, s, kinds) for i, s in enumerate(stack.segments)]
    stripes = _elided([_elided_rows(s) for s in stripes])
    main = stack is spec.main
    column = Column(stack, stripes, _embedding(stack), _head(spec) if main else (), _output(spec) if main else "memory")
    column.name = shorten(stack.name, 11, 150, True) if len(spec.stacks) > 1 else ""
    names = [name for s in stripes for r in s.rows for name, _ in r.cells]
    column.cell = max([58.0, *(measure(n, 9, True) + 16 for n in names)])
    column.index = max(measure(r.label, 8.5) for s in stripes for r in s.rows) + 4
    widths = [extent(lines)[0] + PAD_X for lines in (column.embedding, column.head)]
    tags = max((measure(s.tag, 11, True) + 8 for s in stripes if s.tag), default=0)
    column.w = max([150, column.stripe_width + tags, *widths])
    return column


def _stripe(stack: int, number: int, segment: Segment, kinds: Catalog) -> Stripe:
    rows: list[Row] = []
    for i, layer in enumerate(segment.layers):
        cells = [kinds.cell(part) for _, part in main_parts(layer.block)]
        place = (stack, number, i)
        if rows and rows[-1].cells == cells and len(segment.layers) > 8:
            rows[-1].places.append(place)
            rows[-1].times += 1
        else:
            last = segment.start + segment.repeat - 1
            alone = len(segment.layers) == 1 and segment.repeat > 1
            rows.append(Row(f"{segment.start}-{last}" if alone else str(segment.start + i), cells, [place]))
    tag = f"{TIMES} {segment.repeat}" if segment.repeat > 1 else ""
    tag += ", one set of weights" if segment.shared and segment.repeat > 1 else ""
    return _sized(Stripe(rows, tag, segment.repeat))


def _sized(stripe: Stripe) -> Stripe:
    stripe.h = len(stripe.rows) * PITCH + 20
    return stripe


def _elided_rows(stripe: Stripe) -> Stripe:
    """A stripe without its middle, where its period is very long."""
    if len(stripe.rows) <= MOST_ROWS:
        return stripe
    low = MOST_ROWS // 2
    gone = stripe.rows[low : 1 - low]
    return _sized(Stripe([*stripe.rows[:low], _more(gone, 1), *stripe.rows[1 - low :]], stripe.tag, stripe.repeat))


def _elided(stripes: list[Stripe]) -> list[Stripe]:
    """A stack without its middle, where it has very many segments."""
    if sum(len(s.rows) + 1.5 for s in stripes) <= 1.5 * MOST_ROWS:
        return stripes
    ends: list[list[Stripe]] = []
    for part, room in ((stripes, 0.7 * MOST_ROWS), (stripes[::-1], 0.4 * MOST_ROWS)):
        kept: list[Stripe] = []
        while not kept or room > 0:
            kept.append(part[len(kept)])
            room -= len(kept[-1].rows) + 1.5
        ends.append(kept)
    first, last = ends[0], ends[1][::-1]
    gone = stripes[len(first) : len(stripes) - len(last)]
    if len(gone) < 2:
        return stripes
    rows = [_more(s.rows, s.repeat) for s in gone]
    merged = Row(DOTS, [(f"{sum(r.times for r in rows)} more layers", TABLE)], [p for r in rows for p in r.places])
    return [*first, _sized(Stripe([merged], "")), *last]


def _more(rows: list[Row], repeat: int) -> Row:
    """One row in the place of many."""
    n = repeat * sum(r.times for r in rows)
    return Row(DOTS, [(f"{n} more", TABLE)], [p for r in rows for p in r.places], n)


def _gaps(c: Column) -> int:
    """Arrows of a column."""
    return 2 + len(c.stripes) + (c.stack.final_norm is not None) + bool(c.head)


def _height(c: Column) -> float:
    boxes = [c.embedding, *([c.head] if c.head else [])]
    norm = [(Line("norm", 9.5, True),)] if c.stack.final_norm is not None else []
    inner = sum(extent(lines)[1] + 7 for lines in [*boxes, *norm])
    return 2 * 16 + (18 if c.name else 0) + inner + sum(s.h for s in c.stripes) + _gaps(c) * ARROWS + 9


def _input(stack: Stack) -> str:
    """What a stack reads, and its shape."""
    component = stack.embedding
    reads, kind = str(getattr(component, "reads", "tokens")), getattr(component, "kind", "")
    fields = {"patch": ("channels", "image_size", "image_size"), "features": ("T", "d_input")}.get(kind, ("T",))
    shape = tuple(f if f == "T" else getattr(component, f, f) for f in fields)
    return f"{reads} {shape_text(('B', *shape))}"


def _embedding(stack: Stack) -> tuple[Line, ...]:
    component = stack.embedding
    ops = component.ops()
    kind = str(getattr(component, "kind", ""))
    names = {"token": "Token embedding", "patch": "Patch embedding", "features": "Linear embedding"}
    first = next((op for op in ops if isinstance(op, Embedding)), None)
    size = f"{first.rows} {TIMES} {first.dim}" if first and kind == "token" else ""
    patch = [str(getattr(component, f)) for f in ("patch_size", "patch_size", "channels")] if kind == "patch" else []
    size = f"patches of {f' {TIMES} '.join(patch)}" if patch else size
    extra = [o for o in ("position", "norm") if getattr(component, o, None) is not None]
    words = [spelled(str(getattr(getattr(component, o), "kind", o))) for o in extra]
    words = [f"{w} positions" if o == "position" else w for o, w in zip(extra, words, strict=True)]
    words += ["token types"] if getattr(component, "token_types", None) else []
    tied = f"shared with the {stack.tie_embedding}" if stack.tie_embedding else ""
    total = params(ops) - (params(first) if first and stack.tie_embedding else 0)
    token = {"first": "class token first", "middle": "class token in the middle"}
    own = token.get(getattr(component, "class_token", ""), "")
    scale = [f"rows {f}" for f in factor(component, "scale", first.dim if first else 0)]
    subs = [s for s in (counted(size, total), *scale, own, tied, f"with {', '.join(words)}" if words else "") if s]
    return (Line(names.get(kind, component.title), 10, True), *texts([shorten(s, 8, 200) for s in subs], 8, GREY))


def _head(spec: Spec) -> tuple[Line, ...]:
    head = spec.head
    ops = head.ops()
    names = {"lm": "LM head", "masked_lm": "Masked-LM head", "classification": "Classification head"}
    kind = str(getattr(head, "kind", ""))
    names |= {"regression": "Regression head"}
    last = next((op for op in reversed(ops) if isinstance(op, Linear)), None)
    size = f"{last.d_in} {ARROW} {last.d_out}" if last else ""
    tied = "tied to the token embedding" if getattr(head, "tied", False) else ""
    cap = getattr(head, "softcap", None)
    facts = [f"logits {f}" for f in factor(head, "scale")] + ([f"soft-cap {cap:.4g}"] if cap else [])
    subs = [s for s in (counted(size, params(ops)), tied, ", ".join(facts)) if s]
    if kind == "none":
        return ()
    return (Line(names.get(kind, head.title), 10, True), *texts(subs, 8, GREY))


def _output(spec: Spec) -> str:
    kind = str(getattr(spec.head, "kind", ""))
    shape = spec.head.ops()[-1].shape
    word = {"lm": "logits", "masked_lm": "logits", "classification": "scores", "none": "hidden states"}.get(kind, "")
    return f"{word} {shape_text(shape)}".strip()
