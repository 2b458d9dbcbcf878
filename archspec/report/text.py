"""Tables in columns and in Markdown, and numbers as people say them."""

from collections.abc import Collection, Iterable, Sequence

from archspec.report.fitting import Line as Line
from archspec.report.fitting import apart, fit, rows, width_of, without_sum_notes
from archspec.report.width import limit


def human(n: int) -> str:
    """A large number as people say it, to three digits: 46_702_792_704 is `46.7B`; nothing below a million."""
    for size, unit in ((10**12, "T"), (10**9, "B"), (10**6, "M")):
        if n >= 0.9995 * size:
            return f"{n / size:#.3g}".rstrip(".") + unit
    return ""


def human_bytes(n: int) -> str:
    """A number of bytes with the largest binary unit that fits it: `131,072 bytes (128 KiB)`."""
    for size, unit in ((2**60, "EiB"), (2**50, "PiB"), (2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if n >= size:
            return f"{n:,} bytes ({n / size:.4g} {unit})"
    return f"{n:,} bytes"


def human_flops(n: int) -> str:
    """A number of FLOPs, and as people say it: `6,903,086,186,496 (6.90 TFLOP)`."""
    for size, unit in ((10**21, "Z"), (10**18, "E"), (10**15, "P"), (10**12, "T"), (10**9, "G"), (10**6, "M")):
        if n >= 0.9995 * size:
            return f"{n:,} ({f'{n / size:#.3g}'.rstrip('.')} {unit}FLOP)"
    return f"{n:,} FLOP"


def in_columns(lines: Sequence[Line], right: Collection[str], unruled: str = "") -> list[str]:
    """A table as text: the header and the last line between rules, columns called as in `right` flush right.

    The rules do not reach under a last column of the name `unruled`, which holds remarks. On a terminal that is too
    narrow the remarks on sums are left out; what is too wide even so is folded, or stands in several tables.
    """
    columns = limit()
    if columns is not None and width_of(lines) > columns:
        lines = without_sum_notes(lines, unruled)
        if (widths := fit(lines, right, columns)) is not None:
            return _table(lines, right, unruled, widths)
        tables = [_table(part, right, unruled, fit(part, right, columns)) for part in apart(lines, right, columns)]
        return [line for i, table in enumerate(tables) for line in (*([""] if i else []), *table)]
    return _table(lines, right, unruled)


def _table(
    lines: Sequence[Line], right: Collection[str], unruled: str, widths: Sequence[int] | None = None
) -> list[str]:
    widths = widths or [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1) - (widths[-1] if lines[0][-1] == unruled else 0))
    head, *body, last = ([_columns(row, widths, lines[0], right) for row in rows(line, widths)] for line in lines)
    return [*head, rule, *(row for line in body for row in line), rule, *last]


def _columns(line: Line, widths: Sequence[int], header: Line, right: Collection[str]) -> str:
    cells = [c.rjust(w) if h in right else c.ljust(w) for c, w, h in zip(line, widths, header, strict=True)]
    return "  ".join(cells).rstrip()


def in_markdown(lines: Sequence[Line], right: Collection[str]) -> list[str]:
    """The same as a Markdown table."""
    rule = "|".join("---:" if name in right else "---" for name in lines[0])
    rows = [f"| {' | '.join(line)} |" for line in lines]
    return [rows[0], f"|{rule}|", *rows[1:]]


def aligned(lines: Sequence[Line], right: Collection[int] = ()) -> list[str]:
    """Columns without a header, those of the numbers in `right` flush right; the last one is as long as it is."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    cells = [
        [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
        for line in lines
    ]
    return ["  ".join(line).rstrip() for line in cells]


def indented(lines: Iterable[str], by: int = 2) -> list[str]:
    """Lines further right; empty ones are left out."""
    return [f"{' ' * by}{line}" for line in lines if line]
