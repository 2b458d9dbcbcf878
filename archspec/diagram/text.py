"""Lines of text: how wide they are and how they break.

The widths are those of Helvetica, which Arial and Liberation Sans share, in thousandths of the point size.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import fsum

from archspec.diagram.words import ARROW, DOT, ELLIPSIS, MINUS, SIGMA, SQUARED, TIMES

LEADING = 1.2  # height of a line, in point sizes
SPACING = 1.0  # between the lines of a text, and around them

_REGULAR = (
    "278 278 355 556 556 889 667 191 333 333 389 584 278 333 278 278 556 556 556 556 556 556 556 556 556 556 278 "
    "278 584 584 584 556 1015 667 667 722 722 667 611 778 722 278 500 667 556 833 722 778 667 778 722 667 611 "
    "722 667 944 667 667 611 278 278 278 469 556 333 556 556 500 556 556 278 556 556 222 222 500 222 833 556 556 "
    "556 556 333 500 278 556 500 722 500 500 500 334 260 334 584"
)
_BOLD = (
    "278 333 474 556 556 889 722 238 333 333 389 584 278 333 278 278 556 556 556 556 556 556 556 556 556 556 333 "
    "333 584 584 584 611 975 722 722 722 722 667 611 778 722 278 556 722 611 833 722 778 667 778 722 667 611 722 "
    "667 944 667 667 611 333 278 333 584 556 333 556 611 556 611 556 333 611 611 278 278 556 278 889 611 611 611 "
    "611 389 556 333 611 556 778 556 556 500 389 280 389 584"
)
_OTHERS = {TIMES: 584, DOT: 333, ARROW: 1000, SIGMA: 618, MINUS: 584, SQUARED: 333, ELLIPSIS: 1000, "\u2013": 556}
_WIDTHS = {
    bold: _OTHERS | {chr(code): int(width) for code, width in enumerate(table.split(), 32)}
    for bold, table in ((False, _REGULAR), (True, _BOLD))
}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of text in one style."""

    text: str
    size: float = 8.5
    bold: bool = False
    color: str = ""

    @property
    def width(self) -> float:
        """Points from its first to its last ink."""
        return measure(self.text, self.size, self.bold)


def styled(texts: Iterable[str], size: float, color: str = "") -> tuple[Line, ...]:
    """Lines of one style."""
    return tuple(Line(text, size, color=color) for text in texts)


@lru_cache(maxsize=4096)
def measure(text: str, size: float, bold: bool = False) -> float:
    """The width of a text in points; a character that the table lacks counts as one point size."""
    widths = _WIDTHS[bold]
    return sum(widths.get(c, 1000) for c in text) * size / 1000


def extent(lines: tuple[Line, ...]) -> tuple[float, float]:
    """Width and height of lines below one another."""
    if not lines:
        return 0.0, 0.0
    height = fsum(LEADING * line.size for line in lines) + SPACING * (len(lines) + 1)
    return max(line.width for line in lines) + 4, height + 1


def wrap(text: str, size: float, width: float, bold: bool = False) -> list[str]:
    """The text in lines of at most `width` points, broken at spaces; a longer word is cut."""
    lines: list[str] = []
    for word in text.split():
        word = shorten(word, size, width, bold)
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and measure(joined, size, bold) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    return lines


def joined(parts: list[str], between: str, size: float, width: float, bold: bool = False) -> list[str]:
    """Parts joined into lines of at most `width` points; a part is broken only when it is wider than a line."""
    lines: list[str] = []
    for part in parts:
        longer = f"{lines[-1]}{between}{part}" if lines else part
        if lines and measure(longer, size, bold) <= width:
            lines[-1] = longer
        else:
            lines += wrap(part, size, width, bold)
    return lines


def shorten(text: str, size: float, width: float, bold: bool = False) -> str:
    """The text, cut with an ellipsis where it is wider than `width` points."""
    if measure(text, size, bold) <= width:
        return text
    while text and measure(text + ELLIPSIS, size, bold) > width:
        text = text[:-1]
    return text.rstrip() + ELLIPSIS
