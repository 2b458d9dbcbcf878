"""The experts of a mixture as a grid of small squares, those that a token runs filled dark."""

from math import ceil, sqrt

from archspec.diagram.flow import Node
from archspec.diagram.scene import Scene, Shape
from archspec.diagram.style import MOE, WHITE
from archspec.diagram.text import Line, extent

NUMBERED = 64  # experts up to which squares carry their number
MOST = 512  # squares that are drawn


def cell(n: int) -> float:
    """From one square to the next."""
    return 19.0 if n <= 16 else 15.5 if n <= NUMBERED else 8.0


def columns(n: int) -> int:
    """Squares of a row: 8 where that makes few rows, else about twice as many as rows, without a rest if possible."""
    if n <= 32:
        return min(n, 8)
    least = ceil(sqrt(2 * n))
    return next((c for c in range(least, 2 * least) if n % c == 0), least)


def grid_size(n: int, lines: tuple[Line, ...]) -> tuple[float, float]:
    """Width and height of the whole box: texts, squares and the line below them."""
    w, h = extent(lines[:-1])
    foot_w, foot_h = extent(lines[-1:])
    across = columns(n)
    return (
        max(w, foot_w, across * cell(n)) + 22,
        h + foot_h + ceil(n / across) * cell(n) + 16,
    )


def chosen(n: int, k: int) -> set[int]:
    """Which experts to fill: one of each k-th part of the grid, here and there."""
    step = n // k
    return {j * step + (13 * j * j + 7 * j + 3) % step for j in range(k)}


def draw_grid(scene: Scene, node: Node, x: float, y: float) -> Shape:
    """Draw the box, its texts and its squares."""
    n, k = node.grid
    outer = Shape(x, y, node.w, node.h, role="frame", fill=WHITE, border=node.tone.border, pen=1.6)
    scene.add(outer)
    _, head = extent(node.lines[:-1])
    _, foot = extent(node.lines[-1:])
    scene.write(x, outer.top - 4 - head / 2, *node.lines[:-1])
    scene.write(x, outer.bottom + 3 + foot / 2, *node.lines[-1:])
    step, across = cell(n), columns(n)
    top = outer.top - 8 - head
    dark = chosen(n, k)
    for i in range(n):
        row, column = divmod(i, across)
        at = (x + (column - (across - 1) / 2) * step, top - (row + 0.5) * step)
        scene.add(_square(i, at, step, i in dark, n <= NUMBERED))
    return outer


def _square(i: int, at: tuple[float, float], step: float, dark: bool, numbered: bool) -> Shape:
    color = WHITE if dark else MOE.border
    lines = (Line(str(i), 7 if step > 16 else 6, color=color),) if numbered else ()
    side = step - (2.0 if numbered else 1.6)
    fill = MOE.border if dark else MOE.fill
    return Shape(*at, side, side, lines, fill=fill, border=MOE.border, pen=0.6, rounded=False)
