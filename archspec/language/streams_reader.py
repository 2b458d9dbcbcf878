"""What a spec says under `streams`, read and checked."""

from collections.abc import Iterable, Iterator, Sequence

from archspec.errors import Fault
from archspec.language.factors import Value, with_factors
from archspec.language.names import bad_argument
from archspec.language.section import Section, read_wiring
from archspec.language.streams import Streams
from archspec.language.topics import see
from archspec.language.tree import Node, clipped
from archspec.language.wiring import Call, Name, PerLayer, Wiring, walk
from archspec.layers.arguments import ARGUMENTS

KEYS = {
    "start": "lines that assign each stream, over x, the embedding",
    "end": "lines over the streams, of which the last assigns x: what the final norm and the heads read",
}
MOST = 16


class StreamsReader(Section):
    """The `streams` of one stack on their way."""

    def __init__(self, stack: Section, node: Node):
        super().__init__(stack.resolver, node, f"{stack.path}.streams".removeprefix("."), stack.scope)

    def streams(self) -> Streams | None:
        """The streams, or None where something is wrong with them."""
        if not isinstance(self.node.value, dict):
            example = "{start: [a = x, b = x], end: [x = a + b]}"
            self.tell("", f"must be how they start and end, {example}, not {self.node.kind_name()}{see('streams')}")
            return None
        errors = len(self.problems)
        self.problems.unknown(self.node, KEYS, self.path, "streams")
        for key in [key for key in KEYS if key not in self.fields]:
            self.tell("", f"streams need {key}: {KEYS[key]}{see('streams')}")
        if len(self.problems) > errors:
            return None
        start, end = self._lines("start", ("x",)), None
        if start is not None:
            names = tuple(dict.fromkeys(step.target for step in start.steps))
            self._check_names(names)
            end = self._lines("end", names)
            if end is not None and end.steps[-1].target != "x":
                self.tell("end", f"the last line assigns {end.steps[-1].target!r}, and must assign x")
        if start is None or end is None or len(self.problems) > errors:
            return None
        return Streams(start, end)

    def _lines(self, key: str, given: Sequence[str]) -> Wiring | None:
        """The lines of one of the keys, over these names."""
        try:
            found = read_wiring(self.fields[key])
            if not isinstance(found, Wiring):
                raise Fault(f"must be lines such as {'a = x' if key == 'start' else 'x = a + b'}")
            sizes = {*self.scope.numbers, *self.scope.broken} - {*given}
            found = with_factors(found, sizes, self._size)
            for message in _wrong(found, given, set(given) if key == "start" else {"x"}):
                raise Fault(message)
            return found
        except Fault as fault:
            if str(fault):
                self.tell(key, str(fault))
            return None

    def _size(self, name: str) -> Value:
        return self.resolver.size(self.scope, name)

    def _check_names(self, names: Sequence[str]) -> None:
        if len(names) > MOST:
            self.tell("start", f"at most {MOST} streams are allowed, found {len(names)}")
        for name in names:
            wrong = bad_argument(name) or ("is an argument of layers; choose another" if name in ARGUMENTS else "")
            if wrong:
                self.tell("start", f"{clipped(name)!r} {wrong}")

    def check_use(self, streams: Streams, wirings: Iterable[Wiring]) -> None:
        """Tell the streams that nothing reads."""
        read = {part.name for wiring in (*wirings, streams.end) for part in _parts(wiring) if isinstance(part, Name)}
        for name in streams.names:
            if name not in read:
                self.tell("start", f"neither a layer nor the end reads {name!r}; read it, or remove it")


def _parts(wiring: Wiring) -> Iterator[object]:
    return (part for step in wiring.steps for part in walk(step.value))


def _wrong(wiring: Wiring, given: Sequence[str], last: set[str]) -> Iterator[str]:
    """What is wrong with lines that call nothing."""
    known = dict.fromkeys(given)
    for number, step in enumerate(wiring.steps, 1):
        for part in walk(step.value):
            if isinstance(part, Call):
                yield f"line {number} calls {part.module!r}; streams start and end without parts"
            elif isinstance(part, PerLayer):
                yield f"line {number} names layer, and stands outside the layers"
            elif isinstance(part, Name) and part.name not in known:
                yield f"line {number} reads {part.name!r}, which is not there; known: {', '.join(known)}"
        if not any(isinstance(part, Name) for part in walk(step.value)):
            yield f"line {number} gives {step.target!r} a number; a line needs a tensor"
        known[step.target] = None
