"""A framed part of the figure: a letter, a header, what fills it, and lines at its foot."""

from dataclasses import dataclass
from typing import Protocol

from archspec.diagram.scene import Scene, Shape
from archspec.diagram.style import GREY, PANEL, Tone
from archspec.diagram.text import Line, extent, joined, styled, wrap
from archspec.diagram.words import DOT

PAD, HEADER_GAP = 16.0, 14.0


def framed(
    scene: Scene, left: float, top: float, width: float, height: float, letter: str, border: str = PANEL.border
) -> Shape:
    """Draw a frame with a letter in its corner."""
    frame = Shape(
        left + width / 2, top - height / 2, width, height, role="frame", fill=PANEL.fill, border=border, pen=1
    )
    scene.add(frame)
    scene.write(left + 7, top - 11, Line(letter, 11, True), anchor="left")
    return frame


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
    size: float = 12.5
    letter: str = ""

    def __post_init__(self) -> None:
        size = self.size
        titles = wrap(self.title, size, max(self.content.width - 24, 260), True)[:3]
        self.heading: tuple[Line, ...] = tuple(Line(t, size, True) for t in titles)
        least = max(self.content.width + 2 * PAD, extent(self.heading)[0] + 56, 150)
        room = max(least - 2 * PAD, 190)
        self.heading += styled(joined(self.facts, f" {DOT} ", 9, room), 9, GREY)
        foot, self.foot_h = extent(self.foot)
        self.width = max(least, extent(self.heading[len(titles) :])[0] + 40, foot + 2 * PAD)
        self.header = extent(self.heading)[1] + 8
        self.below = PAD / 2 + self.foot_h + (6 if self.foot else 0)
        self.height = self.header + HEADER_GAP + self.content.height + self.below + PAD / 2

    def paint(self, scene: Scene, left: float, top: float, width: float, height: float, header: float) -> Shape:
        """Draw it below `top`; all headers of a row are of one height."""
        frame = framed(scene, left, top, width, height, self.letter, self.tone.border)
        if self.tone is not PANEL:
            y, tone = top - header / 2, self.tone
            scene.add(Shape(frame.x, y, width, header, role="frame", fill=tone.fill, border=tone.border))
        scene.write(frame.x, top - header / 2, *self.heading)
        if self.foot:
            scene.write(frame.x, top - height + PAD / 2 + self.foot_h / 2, *self.foot)
        room = height - header - HEADER_GAP / 2 - self.below
        self.content.paint(scene, left, top - height + self.below, width, room)
        return frame
