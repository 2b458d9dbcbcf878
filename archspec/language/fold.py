"""Finding the repeats: a list of layers as the fewest written layers, in segments of (period, repeat)."""

from collections.abc import Sequence
from itertools import groupby

from archspec.language.model import Layer, Segment

LONGEST_PERIOD = 32


def fold(layers: Sequence[Layer]) -> tuple[Segment, ...]:
    """Segments that, written out, are the layers again; layers that share weights stay among themselves."""
    segments: list[Segment] = []
    start = 0
    for group, members in groupby(layers, key=lambda layer: layer.group):
        run = list(members)
        if group is not None:  # one set of weights for each place of the period, equal ones included
            period = group[1]
            segments.append(Segment(start, tuple(run[:period]), len(run) // period, shared=len(run) > period))
            start += len(run)
            continue
        numbers: dict[Layer, int] = {}
        keys = [numbers.setdefault(layer, len(numbers)) for layer in run]
        for at, period, repeat in periods(keys):
            segments.append(Segment(start + at, tuple(run[at : at + period]), repeat))
        start += len(run)
    return tuple(segments)


def periods(keys: Sequence[int]) -> list[tuple[int, int, int]]:
    """(start, period, repeat) of each segment: the fewest keys written, then the fewest segments.

    >>> periods([0, 0, 0, 1, 0, 1, 0, 1])
    [(0, 1, 2), (2, 2, 3)]
    """
    n = len(keys)
    best: list[tuple[int, int, int, int]] = [(0, 0, 0, 0)] * (n + 1)  # written, segments, period, repeat from here on
    same = [0] * (LONGEST_PERIOD + 1)  # same[p]: how many keys from here on equal the key p further on
    for i in range(n - 1, -1, -1):
        options = [(best[i + 1][0] + 1, best[i + 1][1] + 1, 1, 1)]
        kept: list[int] = []
        for period in range(1, min(LONGEST_PERIOD, n - i - 1) + 1):
            if keys[i] != keys[i + period]:
                same[period] = 0
                continue
            same[period] += 1
            most = 1 + same[period] // period
            if most == 1 or any(period % p == 0 and same[p] >= same[period] + period - p for p in kept):
                continue  # it never repeats, or a shorter period that divides it repeats all the way
            kept.append(period)
            for repeat in range(max(2, most - 1), most + 1):
                written, segments, _, _ = best[i + period * repeat]
                options.append((written + period, segments + 1, period, repeat))
        best[i] = min(options)
    found, i = [], 0
    while i < n:
        _, _, period, repeat = best[i]
        found.append((i, period, repeat))
        i += period * repeat
    return found
