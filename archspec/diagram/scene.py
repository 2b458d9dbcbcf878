"""A picture as plain values: boxes, texts, circles and lines at fixed places, in points, y upwards.

`frame`s may hold other things; `solid`s may not touch one another; `ring`s are drawn over everything.
"""

from dataclasses import dataclass, field
from typing import Literal

from archspec.diagram.style import INK, WHITE
from archspec.diagram.text import Line, extent

Point = tuple[float, float]
CIRCLE = 15.0


@dataclass(frozen=True, slots=True)
class Shape:
    """A box, circle, dot or bare text around its centre."""

    x: float
    y: float
    w: float
    h: float
    lines: tuple[Line, ...] = ()
    form: Literal["box", "circle", "dot", "text"] = "box"
    role: Literal["frame", "solid", "ring"] = "solid"
    fill: str = WHITE
    border: str = INK
    pen: float = 1.2
    dashed: bool = False
    rounded: bool = True

    @property
    def left(self) -> float:
        """Its left end."""
        return self.x - self.w / 2

    @property
    def right(self) -> float:
        """Its right end."""
        return self.x + self.w / 2

    @property
    def bottom(self) -> float:
        """Its lower end."""
        return self.y - self.h / 2

    @property
    def top(self) -> float:
        """Its upper end."""
        return self.y + self.h / 2


@dataclass(frozen=True, slots=True)
class Path:
    """A line through points, with rounded corners and perhaps an arrow at its end; `under` may be drawn over."""

    points: tuple[Point, ...]
    color: str = INK
    pen: float = 1.0
    dashed: bool = False
    arrow: bool = True
    under: bool = False


@dataclass
class Scene:
    """What is drawn, in the order in which it was added."""

    shapes: list[Shape] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)

    def add(self, *shapes: Shape) -> None:
        """Add shapes."""
        self.shapes += shapes

    def draw(self, *paths: Path) -> None:
        """Add lines."""
        self.paths += paths

    def write(self, x: float, y: float, *lines: Line, anchor: Literal["left", "centre", "right"] = "centre") -> Shape:
        """Add a bare text whose left end, centre or right end is at x, and whose middle is at y."""
        w, h = extent(lines)
        shift = {"left": w / 2, "centre": 0.0, "right": -w / 2}[anchor]
        found = Shape(x + shift, y, w, h, lines, form="text", fill="none", border="none")
        self.add(found)
        return found

    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right and top of all shapes."""
        return (
            min(s.left for s in self.shapes),
            min(s.bottom for s in self.shapes),
            max(s.right for s in self.shapes),
            max(s.top for s in self.shapes),
        )


def dot(x: float, y: float) -> Shape:
    """The dot where a line branches."""
    return Shape(x, y, 3.4, 3.4, form="dot", fill=INK)
