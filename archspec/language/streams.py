"""`streams` of a stack: several values of d_model numbers a token that go from layer to layer, in place of x.

    streams:
      start: [a = x, b = x]            # what each is before the first layer; x is the embedding
      end: [x = 1/2 * (a + b)]         # what is made of them after the last

Wirings read and write them by name: `a = a + mixer(norm1(b))`. One that a layer does not assign stays as it is.
"""

from collections.abc import Mapping
from typing import NamedTuple

from archspec.language.wiring import Wiring


class Streams(NamedTuple):
    """The streams of a stack: how they start and end."""

    start: Wiring
    end: Wiring

    @property
    def names(self) -> tuple[str, ...]:
        """Their names, in the order in which they are started."""
        return tuple(dict.fromkeys(step.target for step in self.start.steps))


def named(streams: Streams | None) -> tuple[str, ...]:
    """What the layers of a stack pass on: its streams, or x."""
    return ("x",) if streams is None else streams.names


def shown(streams: Streams) -> Mapping[str, list[str]]:
    """As a spec has it."""
    return {"start": list(streams.start.lines()), "end": list(streams.end.lines())}
