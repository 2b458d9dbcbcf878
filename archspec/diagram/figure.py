"""The whole picture: panels (a) model, (b) one layer, (c ...) one for each kind of mixer and FFN, and the footer."""

from dataclasses import dataclass
from typing import Protocol

from archspec.diagram.bars import Footer, footer, pieces
from archspec.diagram.catalog import Catalog, Kind, catalog, main_parts
from archspec.diagram.component import component_flow
from archspec.diagram.macro import Macro, Place
from archspec.diagram.place import Placed
from archspec.diagram.scene import Path, Scene, Shape, texts
from archspec.diagram.style import GREY, HAIR, PANEL, Tone
from archspec.diagram.text import DOT, Line, amount, extent, joined, wrap
from archspec.diagram.wired import layer_flow, wiring_lines, wiring_name
from archspec.graph import lower, steps
from archspec.language.model import Block, Spec

PAD, BETWEEN = 16.0, 20.0
HEADER_GAP = 14.0
WIDEST = 1500.0  # points after which panels go into a second row
MOST_IN_A_ROW = 5


class Content(Protocol):
    """What fills a panel: it knows its smallest size and draws itself into any larger room."""

    @property
    def width(self) -> float:
        """Points it needs across."""

    @property
    def height(self) -> float:
        """Points it needs upwards."""

    def paint(self, scene: Scene, left: float, bottom: float, width: float, height: float) -> object:
        """Draw it."""


@dataclass
class Panel:
    """A framed part of the figure with a letter and a header."""

    content: Content
    title: str
    facts: list[str]
    tone: Tone = PANEL
    foot: tuple[Line, ...] = ()
    letter: str = ""

    def __post_init__(self) -> None:
        size = 15 if isinstance(self.content, Macro) else 12.5
        titles = wrap(self.title, size, max(self.content.width - 24, 260), True)[:3]
        self.heading: tuple[Line, ...] = tuple(Line(t, size, True) for t in titles)
        least = max(self.content.width + 2 * PAD, extent(self.heading)[0] + 56, 150)
        room = max(least - 2 * PAD, 190)
        self.heading += texts(joined(self.facts, f" {DOT} ", 9, room), 9, GREY)
        foot = extent(self.foot)
        self.width = max(least, extent(self.heading[len(titles) :])[0] + 40, foot[0] + 2 * PAD)
        self.header = extent(self.heading)[1] + 8
        self.height = self.header + HEADER_GAP + self.content.height + foot[1] + (6 if self.foot else 0) + PAD

    def paint(self, scene: Scene, left: float, top: float, width: float, height: float, header: float) -> Shape:
        """Draw it below `top`; all headers of a row are of one height."""
        x = left + width / 2
        frame = Shape(x, top - height / 2, width, height, role="frame", fill=PANEL.fill, border=self.tone.border, pen=1)
        scene.add(frame)
        if self.tone is not PANEL:
            band = Shape(x, top - header / 2, width, header, role="frame", fill=self.tone.fill, border=self.tone.border)
            scene.add(band)
        scene.text(x, top - header / 2, *self.heading)
        scene.text(left + 7, top - 11, Line(self.letter, 11, True), anchor="left")
        foot_h = extent(self.foot)[1] + (6 if self.foot else 0)
        if self.foot:
            scene.text(x, top - height + PAD / 2 + extent(self.foot)[1] / 2, *self.foot)
        bottom = top - height + PAD / 2 + foot_h
        room = height - header - HEADER_GAP / 2 - PAD / 2 - foot_h
        self.content.paint(scene, left, bottom, width, room)
        return frame


def draw(spec: Spec) -> Scene:
    """The figure of a spec."""
    every = list(steps(lower(spec)))
    shares = pieces(every)
    total, active = sum(p.total for p in shares), sum(p.active for p in shares)
    kinds = catalog(spec)
    zoom, block = _richest(spec)
    macro = Macro(spec, zoom, kinds)
    facts = [f"{amount(total, 4)} params"]
    facts += [f"{amount(active, 4)} active / token"] if active != total else []
    facts += [f"{kinds.left_out} rarer kinds of layers not drawn"] if kinds.left_out else []
    panels = [
        Panel(macro, spec.name, facts),
        _layer_panel(spec, zoom, block, kinds),
        *(_kind_panel(spec, kind) for kind in kinds.kinds),
    ]
    for panel, letter in zip(panels, "abcdefghijklmnopqrstuvwxyz", strict=False):
        panel.letter = letter
    return _composed(panels, macro, footer(every, shares, spec.max_seq_len))


def _richest(spec: Spec) -> tuple[Place, Block]:
    """The layer to zoom into: with the most parts, then the most frequent, then the first; of the main stack."""
    times: dict[Block, int] = {}
    first: dict[Block, Place] = {}
    for s, segment in enumerate(spec.main.segments):
        for i, layer in enumerate(segment.layers):
            times[layer.block] = times.get(layer.block, 0) + segment.repeat
            first.setdefault(layer.block, (len(spec.stacks) - 1, s, i))
    best = max(times, key=lambda block: (len(list(main_parts(block))), times[block]))
    return first[best], best


def _layer_panel(spec: Spec, zoom: Place, block: Block, kinds: Catalog) -> Panel:
    stack, segment, i = zoom
    start = spec.stacks[stack].segments[segment].start + i
    several = sum(len(s.layers) for s in spec.stacks[stack].segments) > 1
    who = f"One {spec.stacks[stack].name} layer" if len(spec.stacks) > 1 else "One layer"
    title = f"{who} (row {start})" if several else who
    name = wiring_name(block)
    lines = wiring_lines(block) if name.startswith("custom") else []
    flow = layer_flow(block, spec.stacks[stack].d_model, kinds)
    return Panel(Placed(flow), title, [name], foot=texts(lines[:12], 8, GREY))


def _kind_panel(spec: Spec, kind: Kind) -> Panel:
    d_model = getattr(kind.component, "d_model", spec.main.d_model)
    flow = component_flow(kind.component, kind.tone, d_model, kind.reach, kind.ops)
    return Panel(Placed(flow), kind.title, kind.facts, kind.tone)


# Putting panels together


def _composed(panels: list[Panel], macro: Macro, foot: Footer) -> Scene:
    scene, top = Scene(), 0.0
    rows = _split(panels)
    width = max([_width(row) for row in rows] + [560.0])
    for row in rows:
        header, height = max(p.header for p in row), max(p.height - p.header for p in row)
        height += header
        extra = (width - _width(row)) / len(row)
        left = 0.0
        for panel in row:
            frame = panel.paint(scene, left, top, panel.width + extra, height, header)
            if panel is panels[1]:
                _zoom(scene, macro, frame)
            left += panel.width + extra + BETWEEN
        top -= height + BETWEEN
    _footer(scene, foot, panels, top, width)
    return scene


def _footer(scene: Scene, foot: Footer, panels: list[Panel], top: float, width: float) -> None:
    foot.fit(width)
    frame = Shape(
        width / 2, top - foot.height / 2, width, foot.height, role="frame", fill=PANEL.fill, border=PANEL.border, pen=1
    )
    scene.add(frame)
    scene.text(7, top - 11, Line(chr(ord("a") + len(panels)), 11, True), anchor="left")
    foot.paint(scene, 0.0, top, width)


def _zoom(scene: Scene, macro: Macro, frame: Shape) -> None:
    """Two dashed lines from the ringed row to the panel that shows it."""
    ring = macro.ring
    if ring is None:
        return
    for y0, y1 in ((ring.top - 4, frame.top - 6), (ring.bottom + 4, frame.bottom + 6)):
        scene.draw(Path(((ring.right, y0), (frame.left, y1)), HAIR, pen=0.9, dashed=True, arrow=False, under=True))


def _width(row: list[Panel]) -> float:
    return sum(p.width for p in row) + BETWEEN * (len(row) - 1)


def _split(panels: list[Panel]) -> list[list[Panel]]:
    """One row, or as many as keep each narrow enough, as even as they can be."""
    rows = 1
    while rows < len(panels):
        parts = _even(panels, rows)
        if all(_width(p) <= WIDEST and len(p) <= MOST_IN_A_ROW for p in parts):
            return parts
        rows += 1
    return _even(panels, rows)


def _even(panels: list[Panel], rows: int) -> list[list[Panel]]:
    """The panels in that many rows, in order, the widest row as narrow as possible; (a) and (b) stay together."""
    if rows == 1:
        return [panels]
    options = [[panels[:at], *_even(panels[at:], rows - 1)] for at in range(2, len(panels) - rows + 2)] or [[panels]]
    return min(options, key=lambda o: (round(max(_width(r) for r in o) / 50), -len(o[0])))
