"""Where the lines of a spec stand: layers that are alike together, and what is outside of the layers."""

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from archspec.graph import Node
from archspec.language.model import Spec
from archspec.passes.work import Line

_MOST_RANGES, _MOST_LISTED = 5, 12


@dataclass(frozen=True)
class Place:
    """Layers of a stack that are alike, or a part outside of them, with the lines of one of them.

    Attributes:
        stack: its name.
        part: the part outside of the layers; nothing for layers.
        layers: their numbers in the stack.
        times: how often its lines run.
        copies: sets of weights that they have.
        lines: of one layer.
    """

    stack: str
    part: str
    layers: tuple[int, ...]
    times: int
    copies: int
    lines: tuple[Line, ...]

    def below(self, name: str, line: Line) -> str:
        """The name of an op or a tensor below its part: `q_proj.weight`; the part itself where it is all of it."""
        return below(name, line.node)


def below(name: str, node: Node) -> str:
    """The name of an op or a tensor below the part of a node; the part itself where it is all of it."""
    return within(name, node.stack).removeprefix(node.part).removeprefix(".") or node.part


def within(name: str, stack: str) -> str:
    """The name of an op or a tensor below its layer: `mixer.q_proj`."""
    return re.sub(rf"^({re.escape(stack)}\.)?(blocks\.\d+\.)?", "", name)


def places(spec: Spec, every: Iterable[Line], alike: Callable[[Line], Hashable]) -> list[Place]:
    """The places of a spec's lines in order; layers of equal blocks whose lines are `alike` stand once."""
    found: dict[Hashable, Place] = {}
    for (stack, segment, layer, part), members in groupby(every, key=lambda line: line.layer):
        lines = tuple(members)
        if segment < 0:
            found[stack, part, lines[0].node.name] = Place(stack, part, (), 1, 1, lines)
            continue
        whole = next(s for s in spec.stacks if s.name == stack).segments[segment]
        node = lines[0].node
        numbers = tuple(range(whole.start + layer, whole.start + whole.n_layers, node.period))
        key = (
            stack,
            whole.layers[layer].block,
            tuple(map(alike, lines)),
            node.copies < node.repeat and (segment, layer),
        )
        known = found.get(key)
        found[key] = Place(
            stack,
            "",
            tuple(sorted((*(known.layers if known else ()), *numbers))),
            node.repeat + (known.times if known else 0),
            node.copies + (known.copies if known else 0),
            known.lines if known else lines,
        )
    return list(found.values())


def ranges(layers: Sequence[int]) -> str:
    """`0-2,4-6`; `0,2..30` of equal steps; `0,2,6,+8..30` of a period of 8; of more than a dozen only the ends."""
    steps = {b - a for a, b in pairwise(layers)}
    if len(steps) == 1 and steps != {1} and len(layers) > 2:
        return f"{layers[0]},{layers[1]}..{layers[-1]}"
    texts = _runs(layers)
    if len(texts) > _MOST_RANGES and (period := _period(layers)):
        return f"{','.join(_runs([i for i in layers if i < layers[0] + period]))},+{period}..{layers[-1]}"
    return ",".join(texts) if len(texts) <= _MOST_LISTED else f"{','.join(texts[:3])},...,{texts[-1]}"


def _runs(layers: Sequence[int]) -> list[str]:
    """Each run of layers that follow one another."""
    runs = [[i for _, i in run] for _, run in groupby(enumerate(layers), key=lambda pair: pair[1] - pair[0])]
    return [f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs]


def _period(layers: Sequence[int]) -> int:
    """After how many layers the same ones come again, at least once more and up to the last; 0 where they do not."""
    first, last, every = layers[0], layers[-1], set(layers)
    for period in range(2, (last - first) // 2 + 1):
        again = all((i in every) == (i + period in every) for i in range(first, last - period + 1))
        if again and len(_runs([i for i in layers if i < first + period])) <= _MOST_RANGES:
            return period
    return 0
