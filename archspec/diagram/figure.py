"""The whole picture: panels (a) model, (b) one layer, (c ...) one for each kind of mixer and FFN, and the footer."""

from math import fsum
from string import ascii_lowercase

from archspec.diagram.component import component_flow
from archspec.diagram.footer import Footer, Piece, footer, pieces
from archspec.diagram.kinds import Kind, Kinds, kinds_of, main_parts
from archspec.diagram.layer import layer_flow, wiring_words
from archspec.diagram.overview import Overview
from archspec.diagram.panel import Panel, framed
from archspec.diagram.place import Placed
from archspec.diagram.scene import Path, Scene, Shape
from archspec.diagram.stacks import StackView, stacks_of
from archspec.diagram.stripes import Place
from archspec.diagram.style import GREY, HAIR
from archspec.diagram.text import styled
from archspec.diagram.words import amount
from archspec.graph import graph
from archspec.language.model import Block, Spec
from archspec.lowering import Function, lower_model

BETWEEN = 20.0
WIDEST = 1500.0  # points after which panels go into a second row
MOST_IN_A_ROW = 5
MOST_LINES = 12  # of a wiring that are printed below its panel


def draw(spec: Spec) -> Scene:
    """The figure of a spec."""
    nodes = graph(spec).nodes
    shares = pieces(nodes)
    stacks = stacks_of(lower_model(spec.taking()))
    kinds = kinds_of(stacks)
    zoom, block = _richest(stacks)
    overview = Overview(stacks, zoom, kinds)
    panels = [
        Panel(overview, spec.name, _totals(shares, kinds), size=15),
        _layer_panel(stacks, zoom, block, kinds),
        *map(_kind_panel, kinds.drawn),
    ]
    for panel, letter in zip(panels, ascii_lowercase, strict=False):
        panel.letter = letter
    return _composed(panels, overview, footer(nodes, shares, spec))


def _totals(shares: list[Piece], kinds: Kinds) -> list[str]:
    """The facts below the name of the model."""
    total, active = sum(p.total for p in shares), sum(p.active for p in shares)
    facts = [f"{amount(total, 4)} params"]
    facts += [f"{amount(active, 4)} active / token"] if active != total else []
    return facts + ([f"{kinds.left_out} rarer kinds of layers not drawn"] if kinds.left_out else [])


def _richest(stacks: list[StackView]) -> tuple[Place, Function]:
    """The layer to zoom into: with the most parts, then the most frequent, then the first; of the last stack."""
    times: dict[Function, int] = {}
    first: dict[Function, Place] = {}
    for number, period in enumerate(stacks[-1].periods):
        for i, block in enumerate(period.layers):
            times[block] = times.get(block, 0) + period.repeat
            first.setdefault(block, (len(stacks) - 1, number, i))
    best = max(times, key=lambda block: (len(list(main_parts(block))), times[block]))
    return first[best], best


def _layer_panel(stacks: list[StackView], zoom: Place, block: Function, kinds: Kinds) -> Panel:
    stack, period, i = zoom
    view = stacks[stack]
    who = f"One {view.name} layer" if len(stacks) > 1 else "One layer"
    several = sum(len(p.layers) for p in view.periods) > 1
    title = f"{who} (row {view.periods[period].start + i})" if several else who
    assert isinstance(block.of, Block)
    name, lines = wiring_words(block.of.wiring)
    flow = layer_flow(block, view.d_model, kinds)
    return Panel(Placed(flow), title, [name], foot=styled(lines[:MOST_LINES], 8, GREY))


def _kind_panel(kind: Kind) -> Panel:
    flow = component_flow(kind.ops, kind.tone, kind.d_model, kind.reach)
    return Panel(Placed(flow), kind.title, kind.facts, kind.tone)


# Putting panels together


def _composed(panels: list[Panel], overview: Overview, foot: Footer) -> Scene:
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
                _zoom(scene, overview, frame)
            left += panel.width + extra + BETWEEN
        top -= height + BETWEEN
    _footer(scene, foot, panels, top, width)
    return scene


def _footer(scene: Scene, foot: Footer, panels: list[Panel], top: float, width: float) -> None:
    foot.fit(width)
    framed(scene, 0.0, top, width, foot.height, chr(ord("a") + len(panels)))
    foot.paint(scene, 0.0, top, width)


def _zoom(scene: Scene, overview: Overview, frame: Shape) -> None:
    """Two dashed lines from the ringed row to the panel that shows it."""
    ring = overview.ring
    if ring is None:
        return
    for y0, y1 in ((ring.top - 4, frame.top - 6), (ring.bottom + 4, frame.bottom + 6)):
        scene.draw(Path(((ring.right, y0), (frame.left, y1)), HAIR, pen=0.9, dashed=True, arrow=False, under=True))


def _width(row: list[Panel]) -> float:
    return fsum(p.width for p in row) + BETWEEN * (len(row) - 1)


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
