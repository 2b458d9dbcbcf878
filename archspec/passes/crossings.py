"""Where one cost begins to be more than another one, exactly: by searching whole numbers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations

MOST = 2**32  # tokens, beyond which nobody looks
RATIO = 1.25  # of neighbouring lengths that are looked at first


@dataclass(frozen=True, order=True)
class Crossing:
    """From `at` tokens on `more` costs more than `less`, which it did not before."""

    at: int
    more: str
    less: str


def crossings(
    costs: Mapping[str, Callable[[int], int]], bends: Sequence[int] = (), wave: int = 1, most: int = MOST
) -> list[Crossing]:
    """Every pair of costs whose order changes with the length, by length.

    Args:
        costs: by name, of a length.
        bends: lengths after which a cost changes its form.
        wave: tokens to a multiple of which costs are rounded up (chunks): an order may change back and forth with
            these for a while, and what is told is where it no longer does.
        most: the longest length that is looked at.
    """
    found = []
    marks = _marks(bends, wave, most)
    known = {name: cache(cost) for name, cost in costs.items()}  # each is compared with all others
    for first, second in combinations(costs, 2):
        for at, sign in _changes(_Order(known[first], known[second], wave), marks):
            found.append(Crossing(at, *((first, second) if sign > 0 else (second, first))))
    return sorted(found)


@dataclass(frozen=True)
class _Order:
    """The order of two costs: 1 where the first is more, -1 where the second is, 0 where they are equal."""

    first: Callable[[int], int]
    second: Callable[[int], int]
    wave: int

    def at(self, n: int) -> int:
        """At one length."""
        a, b = self.first(n), self.second(n)
        return (a > b) - (a < b)

    def around(self, n: int) -> int:
        """At the last length of a wave and at the first of the next, where waves reach furthest; 0 if they differ."""
        found = self.at(n)
        return found if self.wave == 1 or n < self.wave or found == self.at(n + 1) else 0

    def settled(self, low: int, high: int, sign: int) -> int:
        """The first length from which the order is `sign`, which it is not at `low` and is from `high` on."""
        while high - low > self.wave:
            middle = (low + high) // 2 // self.wave * self.wave
            low, high = (low, middle) if self.around(middle) == sign else (middle, high)
        return 1 + max((n for n in range(low, high + self.wave) if self.at(n) != sign), default=low)


def _changes(order: _Order, marks: Sequence[int]) -> list[tuple[int, int]]:
    """Lengths from which the order is another one than before, with that order."""
    found: list[tuple[int, int]] = []
    low, last = marks[0], order.around(marks[0])
    for n in marks[1:]:
        now = order.around(n)
        if now not in (0, last):
            found.append((order.settled(low, n, now), now))
            last = now
        low = n
    return found


def _marks(bends: Sequence[int], wave: int, most: int) -> list[int]:
    """Lengths to look at first, ends of waves: a row that grows by a ratio, and both sides of each bend."""
    found, n = {*range(1, wave), most, *(b + i for b in bends for i in (0, wave))}, float(wave)
    while n < most:
        found.add(int(n))
        n = max(n + wave, n * RATIO)
    return sorted({n if n < wave else n // wave * wave for n in found if 1 <= n <= most})
