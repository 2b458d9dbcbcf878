"""The operations that must follow one another: the longest way through a graph, each op as long as its steps."""

from collections.abc import Iterable
from functools import reduce

from archspec.formulas.functions import greatest
from archspec.graph import Graph
from archspec.passes.work import Line


def sequential_steps(found: Graph, every: Iterable[Line]) -> int:
    """Steps of the longest way; repeats of a layer follow one another. A formula where the steps of lines are."""
    reached = _reached(found, every)
    return reduce(greatest, reached.values(), 0)


def longest_way(found: Graph, every: Iterable[Line]) -> list[Line]:
    """The lines on the longest way, in order; of ways of the same length the one that comes first."""
    lines = {line.node.name: line for line in every}
    reached, before = _reached(found, lines.values()), found.sources
    name, way = max(reached, key=lambda n: reached[n], default=""), list[Line]()
    while name:
        way += [lines[name]] if name in lines else []
        name = max((n for n in before.get(name, ()) if n in reached), key=lambda n: reached[n], default="")
    return way[::-1]


def _reached(found: Graph, every: Iterable[Line]) -> dict[str, int]:
    """The steps after which each op is done, from the first to the last line: no way leaves these and returns."""
    steps = {line.node.name: line.times * line.steps for line in every}
    places = [found.order[name] for name in steps]
    longest: dict[str, int] = {}
    for node in found.nodes[min(places) : max(places) + 1] if places else ():
        ready = reduce(greatest, (longest[n] for n in found.sources.get(node.name, ()) if n in longest), 0)
        longest[node.name] = ready + steps.get(node.name, 0)
    return longest
