"""The layers of a stack as stripes: one period of each segment, a row of cells a layer."""

from dataclasses import dataclass

from archspec.diagram.kinds import Kinds, main_parts
from archspec.diagram.style import TABLE, Tone
from archspec.diagram.words import DOTS, TIMES
from archspec.lowering.program import Period

PITCH = 30.0
MOST_ROWS = 16
MOST_SINGLE = 8  # rows up to which equal ones stand one by one

Place = tuple[int, int, int]  # stack, segment, layer


@dataclass
class Row:
    """A layer of a period, or several alike in a row."""

    label: str
    cells: list[tuple[str, Tone]]
    places: list[Place]
    times: int = 1


@dataclass
class Stripe:
    """One segment: its rows, and how often they stand one after another."""

    rows: list[Row]
    tag: str
    repeat: int = 1

    @property
    def h(self) -> float:
        """Its height in points."""
        return len(self.rows) * PITCH + 20


def stripes_of(stack: int, periods: tuple[Period, ...], kinds: Kinds) -> list[Stripe]:
    """The stripes of the stack of that number."""
    return _elided([_elided_rows(_stripe(stack, i, period, kinds)) for i, period in enumerate(periods)])


def _stripe(stack: int, number: int, period: Period, kinds: Kinds) -> Stripe:
    rows: list[Row] = []
    for i, block in enumerate(period.layers):
        cells = [kinds.cell(part) for part in main_parts(block)]
        place = (stack, number, i)
        if rows and rows[-1].cells == cells and len(period.layers) > MOST_SINGLE:
            rows[-1].places.append(place)
            rows[-1].times += 1
        else:
            last = period.start + period.repeat - 1
            alone = len(period.layers) == 1 and period.repeat > 1
            rows.append(Row(f"{period.start}-{last}" if alone else str(period.start + i), cells, [place]))
    tag = f"{TIMES} {period.repeat}" if period.repeat > 1 else ""
    tag += ", one set of weights" if period.shared and period.repeat > 1 else ""
    return Stripe(rows, tag, period.repeat)


def _elided_rows(stripe: Stripe) -> Stripe:
    """A stripe without its middle, where its period is very long."""
    if len(stripe.rows) <= MOST_ROWS:
        return stripe
    low = MOST_ROWS // 2
    gone = stripe.rows[low : 1 - low]
    return Stripe([*stripe.rows[:low], _more(gone, 1), *stripe.rows[1 - low :]], stripe.tag, stripe.repeat)


def _elided(stripes: list[Stripe]) -> list[Stripe]:
    """A stack without its middle, where it has very many segments."""
    if sum(len(s.rows) + 1.5 for s in stripes) <= 1.5 * MOST_ROWS:
        return stripes
    first, last = _until(stripes, 0.7 * MOST_ROWS), _until(stripes[::-1], 0.4 * MOST_ROWS)[::-1]
    gone = stripes[len(first) : len(stripes) - len(last)]
    if len(gone) < 2:
        return stripes
    rows = [_more(s.rows, s.repeat) for s in gone]
    merged = Row(DOTS, [(f"{sum(r.times for r in rows)} more layers", TABLE)], [p for r in rows for p in r.places])
    return [*first, Stripe([merged], ""), *last]


def _until(stripes: list[Stripe], room: float) -> list[Stripe]:
    """The first stripes, as many as fill the room."""
    kept: list[Stripe] = []
    while not kept or room > 0:
        kept.append(stripes[len(kept)])
        room -= len(kept[-1].rows) + 1.5
    return kept


def _more(rows: list[Row], repeat: int) -> Row:
    """One row in the place of many."""
    n = repeat * sum(r.times for r in rows)
    return Row(DOTS, [(f"{n} more", TABLE)], [p for r in rows for p in r.places], n)
