"""A table that is wider than the terminal: notes of sums go first, then cells are folded, then columns stand below.

The fold is the one of the fewest lines that is found by making one column narrower at a time. Numbers are never folded:
where they alone are too wide, the table is cut into several, each with the first column.
"""

from collections.abc import Collection, Sequence
from itertools import zip_longest

from archspec.report.width import longest_word, wrapped

Line = tuple[str, ...]
GAP = 2
LEAST, LONGEST_WORD = 10, 13  # columns of a cell that is folded, and of a word in it that is not cut


def without_sum_notes(lines: Sequence[Line], unruled: str) -> list[Line]:
    """The table without the remarks on rows that only add others up, which the first column does not number."""
    if lines[0][-1] != unruled:
        return list(lines)
    kept = [lines[0], *((*line[:-1], "" if not line[0] else line[-1]) for line in lines[1:])]
    return kept if any(line[-1] for line in kept[1:]) else [line[:-1] for line in kept]


def width_of(lines: Sequence[Line]) -> int:
    """The columns that a table takes."""
    return _sum(_natural(lines))


def fit(lines: Sequence[Line], right: Collection[str], columns: int) -> list[int] | None:
    """Widths at which the columns of a table fit, where cells are folded; None where they cannot."""
    widths = _natural(lines)
    least = [
        max(LEAST, *(min(LONGEST_WORD, longest_word(cell)) for cell in column)) for column in zip(*lines, strict=True)
    ]
    free = [i for i, name in enumerate(lines[0]) if name not in right]
    while _sum(widths) > columns:
        able = [i for i in free if widths[i] > least[i]]
        if not able:
            return None
        over = _sum(widths) - columns
        smaller = {i: max(least[i], widths[i] - max(1, min(over, widths[i] // 8))) for i in able}
        best = min(able, key=lambda i: (_height(lines, [*widths[:i], smaller[i], *widths[i + 1 :]]), -widths[i]))
        widths[best] = smaller[best]
    return widths


def apart(lines: Sequence[Line], right: Collection[str], columns: int) -> list[list[Line]]:
    """The table as several that fit, each with what names a row; a single column may be too wide even so."""
    header, widths = lines[0], _natural(lines)
    lead = range(1 + next((i for i, name in enumerate(header) if name not in right), 0))
    widths[lead[-1]] = min(widths[lead[-1]], max(LEAST, columns // 3))
    named = sum(widths[i] + GAP for i in lead)
    groups: list[list[int]] = [[]]
    for i in range(len(lead), len(header)):
        if header[i] not in right:
            widths[i] = min(widths[i], max(LEAST, columns - named))
        if groups[-1] and named + sum(GAP + widths[j] for j in [*groups[-1], i]) - GAP > columns:
            groups.append([])
        groups[-1].append(i)
    return [[tuple(line[i] for i in (*lead, *group)) for line in lines] for group in groups]


def rows(line: Line, widths: Sequence[int]) -> list[Line]:
    """A line of the table as the lines that its folded cells take."""
    cells = [wrapped(cell, width) for cell, width in zip(line, widths, strict=True)]
    return [tuple(row) for row in zip_longest(*cells, fillvalue="")]


def _natural(lines: Sequence[Line]) -> list[int]:
    return [max(map(len, column)) for column in zip(*lines, strict=True)]


def _sum(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _height(lines: Sequence[Line], widths: Sequence[int]) -> int:
    """Lines of the folded table."""
    return sum(max(len(wrapped(cell, w)) for cell, w in zip(line, widths, strict=True)) for line in lines)
