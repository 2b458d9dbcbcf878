"""The line of a spec that a problem stands in, with a caret under the place.

3 | d_model: eight
  |          ^
"""

import re
from pathlib import Path
from unicodedata import combining, east_asian_width

from archspec.errors import Mark, printable
from archspec.language.source import MAX_BYTES, no_plain_file

WIDEST = 100  # columns of a line that are shown, around the place
CUT = "..."
TAB = "    "
_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # where YAML sees the end of a line


def text_of(file: str) -> str | None:
    """The text of a file that a mark names; None where it is not there to be read again."""
    try:
        if no_plain_file(Path(file)):
            return None
        with open(file, "rb") as stream:
            return stream.read(MAX_BYTES).decode("utf-8", errors="replace")
    except (OSError, ValueError):
        return None


def excerpt(mark: Mark, text: str) -> list[str]:
    """The line of `text` that a mark stands in, numbered, and a caret below; nothing where there is no such place."""
    lines = _BREAK.split(text.removeprefix("\ufeff"))
    if not 0 < mark.line <= len(lines):
        return []
    line = lines[mark.line - 1]
    at = mark.column - 1
    if not line.strip() or not 0 <= at <= len(line):
        return []
    before, after = _clipped(line[:at], line[at:])
    number = f"{mark.line:>5} | "
    gutter = f"{'|':>{len(number) - 1}} "
    return [f"{number}{_shown(before)}{_shown(after)}".rstrip(), f"{gutter}{' ' * _columns(_shown(before))}^"]


def _clipped(before: str, after: str) -> tuple[str, str]:
    """What stands before and after the place, cut at both ends where the line is long."""
    if len(before) + len(after) <= WIDEST:
        return before, after
    left = max(WIDEST // 2, WIDEST - len(after))
    before = before if len(before) <= left else CUT + before[len(CUT) - left :]
    right = WIDEST - len(before)
    return before, after if len(after) <= right else after[: right - len(CUT)] + CUT


def _shown(text: str) -> str:
    """The text as it stands on a terminal: tabs as spaces, what does not show as escapes."""
    return printable(text.replace("\t", TAB))


def _columns(text: str) -> int:
    """How many columns a text takes: two for a wide character, none for one that joins the one before it."""
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)
