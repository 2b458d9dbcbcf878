"""How wide a text may be: as wide as it is in a pipe or a file, no wider than the terminal on one.

Whoever prints says so once (`with within(80): ...`); tables ask for the `limit` and fit themselves to it (`fitting`),
and what else is too long is `folded`.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from textwrap import wrap

_LIMIT: ContextVar[int | None] = ContextVar("limit", default=None)
_UNITS = re.compile(r"(?<=[,;]) "), re.compile(r" (?=[+=] )"), re.compile(" ")  # a list, a formula, and words
_CELLS = re.compile(r"\S+(?: \S+)*")  # what stands between two wide gaps
_INSIDE = re.compile(r"(?<=[.,_/])")  # where a long name is best broken
_TERM = re.compile(r" [+=] ")
DEEPEST = 0.45  # of the width: the furthest right that the rest of a line may hang


@contextmanager
def within(columns: int | None) -> Iterator[None]:
    """Text that is made here fits this many columns, where it can; None lets it be as wide as it is."""
    token = _LIMIT.set(columns)
    try:
        yield
    finally:
        _LIMIT.reset(token)


def limit() -> int | None:
    """The columns that there are, or None where a text may be as wide as it is."""
    return _LIMIT.get()


def folded(text: str, columns: int | None) -> str:
    """A text whose long lines go on in the next one, below the cell in which they were broken."""
    if columns is None:
        return text
    return "\n".join(part for line in text.split("\n") for part in _folded_line(line, columns))


def _folded_line(line: str, columns: int) -> list[str]:
    if len(line) <= columns or not line.strip(" -"):
        return [line[:columns] if line.strip() else line]
    if len(line) - len(line.lstrip()) > columns * DEEPEST:  # a remark under a cell that stands too far right
        line = f"    {line.lstrip()}"
    starts = [cell.start() for cell in _CELLS.finditer(line)]
    at = max((at for at in starts if at <= columns * DEEPEST), default=starts[0])
    hang = at if line[:at].strip() else at + 2  # running text hangs a little
    if len(starts) == 1 and not _TERM.search(line):
        return wrap(line, columns, subsequent_indent=" " * hang, break_long_words=False, break_on_hyphens=False)
    first, *more = _broken(line[at:], columns - hang)
    return [f"{line[:at]}{first}", *(f"{' ' * hang}{part}" for part in more)]


def _broken(text: str, columns: int) -> list[str]:
    """A text over several lines; cells and the terms of formulas stay whole where they can."""
    columns = max(columns, 1)
    lines = [""]
    for gap, cell in re.findall(r"( *)(\S+(?: \S+)*)", text):
        if len(lines[-1]) + len(gap) + len(cell) <= columns:
            lines[-1] += gap + cell
        elif len(cell) <= columns and lines[-1]:
            lines.append(cell)
        else:
            lines += wrapped(cell, columns)
    return [line for line in lines if line]


def wrapped(cell: str, columns: int) -> list[str]:
    """The lines of a cell in a column of that width: broken between units, else words, else inside of a name."""
    if len(cell) <= columns:
        return [cell]
    lines = [""]
    for part in _parts(cell, columns, 0):
        if lines[-1] and len(lines[-1]) + 1 + len(part) <= columns:
            lines[-1] += f" {part}"
        else:
            lines.append(part)
    return lines[1:]


def _parts(text: str, columns: int, kind: int) -> list[str]:
    """The text in units that fit, as large ones as there are."""
    if len(text) <= columns:
        return [text]
    if kind == len(_UNITS):
        return _cut(text, columns)
    return [part for unit in _UNITS[kind].split(text) for part in _parts(unit, columns, kind + 1)]


def _cut(word: str, columns: int) -> list[str]:
    """A word in pieces that fit, if possible cut behind a dot or the like."""
    pieces: list[str] = []
    for part in _INSIDE.split(word) if len(word) > columns else [word]:
        if pieces and len(pieces[-1]) + len(part) <= columns:
            pieces[-1] += part
        else:
            pieces += [part[i : i + columns] for i in range(0, len(part), columns)]
    return pieces


def longest_word(cell: str) -> int:
    """The length of what could only be broken in the middle."""
    return max(len(piece) for word in cell.split(" ") for piece in _INSIDE.split(word))


def reflowed(text: str, columns: int | None) -> str:
    """Running text whose paragraphs are broken anew; what is indented, and lists, stay as they are."""
    if columns is None:
        return text
    lines: list[str] = []
    for line in text.split("\n"):
        runs_on = line[:1] not in ("", " ", "-") and lines and lines[-1][:1] not in ("", " ", "-")
        lines[-1:] = [f"{lines[-1]} {line}"] if runs_on else [*lines[-1:], line]
    return "\n".join(part for line in lines for part in (wrap(line, columns) if line[:1].strip("- ") else [line]))


def folded_yaml(text: str, columns: int | None) -> str:
    """A YAML text without comments and literal blocks that says the same: a long value goes on further right."""
    if columns is None:
        return text
    return "\n".join(part for line in text.split("\n") for part in _folded_value(line, columns))


def _folded_value(line: str, columns: int) -> Sequence[str]:
    indent = len(line) - len(line.lstrip(" -"))
    lines = [line]
    while len(lines[-1]) > columns:
        last = lines[-1]
        spaces = [m.start() for m in re.finditer(r"(?<=[^ \-]) (?=[^ ])", last) if m.start() > indent + 4]
        able = [i for i in spaces if i <= columns]
        listed = [i for i in able if last[i - 1] == "," and 2 * i > columns]  # between the fields of a mapping
        at = max(listed or able, default=min(spaces, default=0))
        if not at:
            break
        lines[-1:] = [last[:at], " " * (indent + 4) + last[at + 1 :]]
    return lines
