"""Several heads on one stack: the line that leaves the layers parts, and each head stands on a branch of its own."""

from collections.abc import Sequence
from dataclasses import replace
from math import fsum

from archspec.diagram.ends import head_lines, output_text
from archspec.diagram.flow import box_size
from archspec.diagram.scene import Path, Scene, Shape, dot
from archspec.diagram.style import GREY, TABLE
from archspec.diagram.text import Line, shorten
from archspec.diagram.words import DOTS
from archspec.language.model import Head

MOST = 4  # heads that are drawn one by one
NARROW, APART, LINE = 96.0, 16.0, 13.5
WIDEST_NAME = 130.0


class Branch:
    """One head: the lines of its box, if it computes anything, and what comes out of it."""

    def __init__(self, lines: tuple[Line, ...], above: tuple[str, ...]):
        self.lines, self.above = lines, tuple(Line(text, 8.5, color=GREY) for text in above)
        self.box_w, self.h = box_size(lines, NARROW) if lines else (0.0, 0.0)
        self.w = max([self.box_w, NARROW, *(line.width + 6 for line in self.above)])


class Branches:
    """The heads side by side; of very many the first few, and how many there are beside them."""

    def __init__(self, heads: Sequence[tuple[Head, str]]):
        shown = heads if len(heads) <= MOST else heads[: MOST - 1]
        self.branches = [_branch(head, gives) for head, gives in shown]
        if more := len(heads) - len(shown):
            self.branches.append(Branch((Line(f"{DOTS} {more} more heads", 9.5, True),), ()))
        self.w = fsum(b.w for b in self.branches) + APART * (len(self.branches) - 1)
        self.h = max(b.h for b in self.branches) + LINE * (max(len(b.above) for b in self.branches) - 1)

    def paint(self, scene: Scene, x: float, y: float, gap: float) -> None:
        """Draw them around x, from the top y of what they read, with arrows of that length."""
        bottom, top = y + gap, y + gap + max(b.h for b in self.branches) + gap
        left = x - self.w / 2
        for branch in self.branches:
            at = left + branch.w / 2
            straight = abs(at - x) < branch.w / 6
            at = x if straight else at
            end = bottom if branch.lines else top
            scene.draw(
                Path(((x, y), (x, end)) if straight else ((x, y), (x, y + gap / 2), (at, y + gap / 2), (at, end)))
            )
            self._above(scene, branch, at, bottom, top)
            left += branch.w + APART
        if len(self.branches) > 1:
            scene.add(dot(x, y + gap / 2))

    def _above(self, scene: Scene, branch: Branch, x: float, bottom: float, top: float) -> None:
        """The box of a head, and what comes out of it."""
        if branch.lines:
            y, tone = bottom + branch.h / 2, TABLE
            scene.add(Shape(x, y, branch.box_w, branch.h, branch.lines, fill=tone.fill, border=tone.border))
        if branch.lines and branch.above:
            scene.draw(Path(((x, bottom + branch.h), (x, top))))
        for i, line in enumerate(reversed(branch.above)):
            scene.write(x, top + 8 + LINE * i, line)


def _branch(head: Head, gives: str) -> Branch:
    """A head, its box headed by its name."""
    lines = head_lines(head.component)
    name = shorten(f"{head.name}, of {head.reads}" if head.reads else head.name, 10, WIDEST_NAME, True)
    said = output_text(head.component, "").strip()
    above = (gives, said) if lines else (name, gives, said)
    if lines:
        lines = (replace(lines[0], text=name), replace(lines[0], text=lines[0].text, size=9, bold=False), *lines[1:])
    return Branch(lines, above)
