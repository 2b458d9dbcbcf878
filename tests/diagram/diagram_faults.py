"""What is wrong with a picture: shapes that overlap, leave their panel or cut off their text, lines through boxes."""

from itertools import combinations, pairwise

from archspec.diagram.scene import Path as Way
from archspec.diagram.scene import Scene, Shape
from archspec.diagram.text import extent

TOUCH = 0.6  # points that neighbours may share


def overlap(a: Shape, b: Shape) -> bool:
    return min(a.right, b.right) - max(a.left, b.left) > TOUCH and min(a.top, b.top) - max(a.bottom, b.bottom) > TOUCH


def inside(inner: Shape, outer: Shape) -> bool:
    return (
        inner.left >= outer.left - TOUCH
        and inner.right <= outer.right + TOUCH
        and inner.bottom >= outer.bottom - TOUCH
        and inner.top <= outer.top + TOUCH
    )


def crosses(way: Way, shape: Shape) -> bool:
    """Whether a right-angled line runs through the inside of a shape."""
    for (x0, y0), (x1, y1) in pairwise(way.points):
        low_x, high_x, low_y, high_y = min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)
        if (
            high_x > shape.left + 1.5
            and low_x < shape.right - 1.5
            and high_y > shape.bottom + 1.5
            and low_y < shape.top - 1.5
        ):
            return True
    return False


def told(shape: Shape) -> str:
    text = " / ".join(line.text for line in shape.lines)
    return f"{shape.form} {text!r} at {shape.x:.0f},{shape.y:.0f} of {shape.w:.0f} x {shape.h:.0f}"


def faults(found: Scene) -> list[str]:
    solids = [s for s in found.shapes if s.role == "solid"]
    frames = [s for s in found.shapes if s.role == "frame"]
    out = [f"{told(a)} overlaps {told(b)}" for a, b in combinations(solids, 2) if overlap(a, b)]
    out += [
        f"frames cross: {told(a)}, {told(b)}"
        for a, b in combinations(frames, 2)
        if overlap(a, b) and not inside(a, b) and not inside(b, a)
    ]
    panels = [f for f in frames if not any(inside(f, other) for other in frames if other is not f)]
    out += [f"{told(s)} leaves its panel" for s in solids if not any(inside(s, p) for p in panels)]
    for s in found.shapes:
        w, h = extent(s.lines)
        if s.lines and (w - 4 > s.w + TOUCH or h > s.h + 2 + TOUCH) and s.form != "circle":
            out.append(f"{told(s)} is too small for its text of {w:.0f} x {h:.0f}")
    opaque = [s for s in solids if s.form != "dot" and not s.dashed]
    out += [
        f"a line {way.points} runs through {told(s)}"
        for way in found.paths
        if not way.under
        for s in opaque
        if crosses(way, s)
    ]
    return out
