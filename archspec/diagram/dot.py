"""A scene as DOT text with every place fixed, so that Graphviz only draws: `neato -n2`.

Graphviz draws in order of declaration: frames, then one invisible node that carries every line, then solids, rings.
"""

from archspec.diagram.scene import Path, Point, Scene, Shape
from archspec.diagram.style import FONT, INK
from archspec.diagram.text import Line

MARGIN = 9.0
HEAD = 5.5  # length of an arrow
CORNER = 3.5  # radius of a corner


def to_dot(scene: Scene, name: str = "model") -> str:
    """The text; equal scenes give equal texts."""
    left, bottom, right, top = scene.bounds()
    w, h = right - left + 2 * MARGIN, top - bottom + 2 * MARGIN
    canvas = Shape((left + right) / 2, (bottom + top) / 2, w, h, form="text", border="none", fill="none")
    lines = [
        f"digraph {_quoted(name)} {{",
        f'  graph [bgcolor=white pad=0 splines=line fontname="{FONT}"]',
        f'  node [fontname="{FONT}" fixedsize=true margin=0]',
        "  edge [arrowsize=0.55]",
        f"  canvas {_shape(canvas)}",
    ]
    for role in ("frame", "", "solid", "ring"):
        if role:
            lines += [f"  {role}{i} {_shape(s)}" for i, s in enumerate(scene.shapes) if s.role == role]
        else:
            lines.append(f'  ways [pos="{_place(canvas.x, canvas.y)}" shape=point width=0.01 height=0.01 style=invis]')
            ordered = sorted(scene.paths, key=lambda p: not p.under)
            lines += [f"  ways -> ways {_path(p)}" for p in ordered]
    return "\n".join([*lines, "}", ""])


def _shape(s: Shape) -> str:
    air = 8 if s.form == "text" and s.lines else 0  # nothing is drawn there, and Graphviz measures a little differently
    size = f'pos="{_place(s.x, s.y)}" width={(s.w + air) / 72:.4f} height={(s.h + air) / 72:.4f}'
    if s.form == "text":
        return f"[{size} shape=none label={_label(s.lines)}]"
    if s.form == "dot":
        return f'[{size} shape=circle style=filled fillcolor="{s.fill}" color="{s.fill}" label=""]'
    style = [*(["filled"] if s.fill != "none" else []), *(["rounded"] if s.rounded and s.form == "box" else [])]
    style += ["dashed"] if s.dashed else []
    look = f'style="{",".join(style)}" fillcolor="{s.fill}" color="{s.border}" penwidth={s.pen:g}'
    return f"[{size} shape={s.form} {look} label={_label(s.lines)}]"


def _label(lines: tuple[Line, ...]) -> str:
    if not lines:
        return '""'
    rows = "".join(f"<TR><TD>{_line(line)}</TD></TR>" for line in lines)
    return f'<<TABLE BORDER="0" CELLPADDING="0" CELLSPACING="1">{rows}</TABLE>>'


def _line(line: Line) -> str:
    text = escape(line.text)
    text = f"<B>{text}</B>" if line.bold else text
    return f'<FONT POINT-SIZE="{line.size:g}" COLOR="{line.color or INK}">{text}</FONT>'


def escape(text: str) -> str:
    """User text for an HTML label, in ASCII."""
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(character, entity)
    printable = "".join(c if c.isprintable() else " " for c in text)
    return (printable if printable.strip() else "&#160;").encode("ascii", "xmlcharrefreplace").decode()


def _quoted(name: str) -> str:
    plain = "".join(c if c.isascii() and (c.isalnum() or c in " ._-") else "_" for c in name)
    return f'"{plain}"'


def _place(x: float, y: float) -> str:
    return f"{_number(x)},{_number(y)}"


def _number(value: float) -> str:
    return f"{round(value, 2) + 0.0:g}" if abs(value) < 1000 else f"{value + 0.0:.2f}"


def _path(path: Path) -> str:
    points = _distinct(path.points)
    end = ""
    if path.arrow:
        (x0, y0), (x1, y1) = points[-2:]
        length = abs(x1 - x0) + abs(y1 - y0) if x0 == x1 or y0 == y1 else ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
        cut = min(HEAD, length * 0.8) / length
        end = f"e,{_place(x1, y1)} "
        points[-1] = (x1 - cut * (x1 - x0), y1 - cut * (y1 - y0))
    spline = " ".join(_place(*p) for p in rounded(points))
    look = f'color="{path.color}" penwidth={path.pen:g}' + (" style=dashed" if path.dashed else "")
    return f'[pos="{end}{spline}" {look}{"" if path.arrow else " arrowhead=none"}]'


def _distinct(points: tuple[Point, ...]) -> list[Point]:
    """The points without repetitions and without those in the middle of a straight run."""
    found: list[Point] = []
    for p in points:
        if found and abs(p[0] - found[-1][0]) + abs(p[1] - found[-1][1]) < 0.01:
            continue
        if len(found) > 1 and any(abs(found[-2][i] - p[i]) + abs(found[-1][i] - p[i]) < 0.01 for i in (0, 1)):
            found.pop()
        found.append(p)
    return found if len(found) > 1 else [found[0], (found[0][0], found[0][1] + 0.1)]


def rounded(points: list[Point]) -> list[Point]:
    """The control points of a Bezier curve along straight lines with small round corners."""
    curve = [points[0]]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        enter, leave = _toward(corner, before), _toward(corner, after)
        curve += [*_straight(curve[-1], enter), corner, corner, leave]
    return curve + _straight(curve[-1], points[-1])


def _toward(corner: Point, other: Point) -> Point:
    dx, dy = other[0] - corner[0], other[1] - corner[1]
    length = max((dx * dx + dy * dy) ** 0.5, 0.01)
    part = min(CORNER, length / 2) / length
    return corner[0] + dx * part, corner[1] + dy * part


def _straight(a: Point, b: Point) -> list[Point]:
    thirds = [(a[0] + (b[0] - a[0]) * t / 3, a[1] + (b[1] - a[1]) * t / 3) for t in (1, 2)]
    return [*thirds, b]
