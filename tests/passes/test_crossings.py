"""Crossing points, held against every length one after another."""

from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from random import Random

import pytest

from archspec import load
from archspec.graph import graph
from archspec.language.model import Spec
from archspec.layers.ops import How
from archspec.passes.complexity import complexity
from archspec.passes.crossings import Crossing, crossings
from archspec.passes.spec_formulas import comparable, kind_of_work
from archspec.passes.work import lines
from archspec.passes.workload import Phase, Workload

MOST = 3000


def changes(f: Callable[[int], int], g: Callable[[int], int], most: int = MOST) -> list[tuple[int, int]]:
    """Lengths from which the order of two costs is another one, and whether the first is then more (1)."""
    found: list[tuple[int, int]] = []
    last = 0
    for n in range(1, most + 1):
        sign = (f(n) > g(n)) - (f(n) < g(n))
        if sign not in (0, last):
            found += [(n, sign)] if last or n > 1 else []
            last = sign
    return found


@pytest.mark.parametrize("seed", range(20))
def test_polynomials_cross_where_a_walk_over_all_lengths_says(seed: int) -> None:
    draw = Random(seed)
    a, b, c, d = (draw.randint(1, 9) for _ in range(4))
    window = draw.randint(2, 900)
    costs = {
        "square": lambda n: a * n * n,
        "line": lambda n: 97 * b * n + 31,
        "window": lambda n: c * n * min(n, window),
        "constant": lambda n: 5001 * d,
    }
    wanted = [
        Crossing(at, *((f, g) if sign > 0 else (g, f)))
        for i, f in enumerate(costs)
        for g in list(costs)[i + 1 :]
        for at, sign in changes(costs[f], costs[g])
    ]
    assert crossings(costs, [window], most=MOST) == sorted(wanted)


@pytest.mark.parametrize("seed", range(20))
def test_costs_in_waves_cross_where_the_order_no_longer_changes(seed: int) -> None:
    draw = Random(seed)
    chunk, a, b = draw.choice((4, 16, 64)), draw.randint(20, 60), draw.randint(1, 3)

    def chunks(n: int) -> int:
        return a * -(-n // chunk) * chunk

    def square(n: int) -> int:
        return b * n * n

    found = [c for c in crossings({"chunks": chunks, "square": square}, wave=chunk, most=MOST) if c.at > chunk]
    last = max(n for n in range(1, MOST) if square(n) <= chunks(n))
    assert found == ([Crossing(last + 1, "square", "chunks")] if last >= chunk else [])


def test_costs_that_keep_their_order_do_not_cross() -> None:
    assert crossings({"a": lambda n: n, "b": lambda n: n + 1, "c": lambda n: n + 1}) == []


def work(spec: Spec, phase: Phase, n: int) -> dict[str, int]:
    """FLOPs that are needed by kind of work, from the rules on numbers."""
    runs = Workload(phase, 1, 1 if phase == "decode" else n, n, n).runs(spec)
    found: dict[str, int] = {}
    for line in lines(graph(spec), runs, How(), phase):
        if line.needed:
            label = kind_of_work(line)
            found[label] = found.get(label, 0) + line.times * line.needed
    return found


@pytest.mark.parametrize("name", ["gpt2", "jamba_v0_1", "gemma2_2b", "striped_hyena", "t5_small"])
def test_models_cross_where_their_work_does(name: str) -> None:
    spec = load(Path(f"specs/{name}.yaml"))
    found = complexity(spec)
    every: list[tuple[Phase, Crossing]] = [("prefill", c) for c in found.crossings]
    every += [("decode", c) for c in found.decoding_crossings]
    assert every
    for phase, c in every:
        for n in range(max(1, c.at - 2), c.at + 3):
            costs = work(spec, phase, n)
            assert (costs[c.more] > costs[c.less]) == (n >= c.at), (phase, c, n)


def test_images_of_one_size_cross_nowhere() -> None:
    assert not complexity(load(Path("specs/vit_base.yaml"))).crossings


def test_what_does_not_cross_keeps_its_order() -> None:
    spec = load(Path("specs/jamba_v0_1.yaml"))
    crossed = {frozenset((c.more, c.less)) for c in complexity(spec).crossings}
    first, last = work(spec, "prefill", 1), work(spec, "prefill", 2**30)
    turned = {frozenset(p) for p in permutations(first, 2) if (first[p[0]] > first[p[1]]) != (last[p[0]] > last[p[1]])}
    assert crossed == {pair for pair in turned if comparable(*pair)}
    assert crossed < turned
