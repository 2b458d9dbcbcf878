"""The layers of a stack: patterns, repeats and sharing written out as one node a layer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from archspec.errors import Fault, Problem
from archspec.language.arithmetic import evaluate
from archspec.language.document import BLOCK_KEYS, ITEM_KEYS
from archspec.language.keys import unknown
from archspec.language.pattern import MAX_LAYERS, parse_pattern
from archspec.language.scope import Silent
from archspec.language.source import Node
from archspec.language.values import Value, empty, fit, must_be, shown, whole_number


@dataclass(frozen=True, eq=False)
class Place:
    """One layer before resolution: its node, where that stands, its name, and its share group (number, period).

    A broken place is a layer of which only this is known: that something is wrong with it, and told.
    """

    node: Node
    path: str
    label: str = ""
    group: tuple[int, int] | None = None
    broken: bool = False


class Expander:
    """Writes out the layers of one stack and keeps the problems; `failed` when it is unknown how many there are."""

    def __init__(
        self, define: Mapping[str, Place], problems: list[Problem], size: Callable[[str], Value] | None = None
    ):
        self.define, self.problems, self.size = define, problems, size
        self.groups = 0
        self.failed = False

    def problem(self, node: Node, path: str, message: str) -> None:
        """Remember one mistake, after which the layers are not known."""
        self.failed = True
        self.problems.append(Problem(node.mark, path, message))

    def expand(self, node: Node, path: str) -> list[Place]:
        """The layers of a `blocks` entry: a list of items, or one pattern as text."""
        if isinstance(node.value, str):
            return self._pattern(node, path)
        if not isinstance(node.value, list):
            hint = "; put '- ' before it" if isinstance(node.value, dict) else ""
            self.problem(node, path, f"must be a list of blocks, or a pattern as text, not {node.kind_name()}{hint}")
            return []
        if not node.value:
            self.problem(node, path, "needs at least one block")
        return self._items(node.value, path)

    def _items(self, items: list[Node], path: str) -> list[Place]:
        places: list[Place] = []
        for i, item in enumerate(items):
            more = self._item(item, f"{path}[{i}]")
            if len(places) + len(more) > MAX_LAYERS:
                self.problem(item, path, f"more than {MAX_LAYERS} layers")
                return places
            places += more
        return places

    def _item(self, node: Node, path: str) -> list[Place]:
        if isinstance(node.value, str):
            return self._pattern(node, path)
        if not isinstance(node.value, dict):
            self.problem(node, path, f"must be a block or the name of one, not {node.kind_name()}")
            return []
        if not node.value.keys() & ITEM_KEYS.keys():
            return [Place(node, path)]
        repeat, period = self._repeat(node, path), self._period(node, path)
        if repeat is None:
            return period
        if repeat * len(period) > MAX_LAYERS:
            self.problem(node.value["repeat"], f"{path}.repeat", f"more than {MAX_LAYERS} layers")
            return period
        return self._shared(node, path, period, repeat)

    def _shared(self, node: Node, path: str, period: list[Place], repeat: int) -> list[Place]:
        """The period as often as it repeats, all with one set of weights where the item says so."""
        assert isinstance(node.value, dict)
        share = node.value.get("share")
        if share is None or share.value is False:
            return [place for _ in range(repeat) for place in self._anew(period)]
        if share.value is not True:
            self.problem(share, f"{path}.share", must_be("share", share, "true or false"))
        elif repeat == 1:
            message = "share has no effect when repeat is 1; remove it, or repeat the blocks"
            self.problem(share, f"{path}.share", message)
        self.groups += 1
        group = (self.groups, len(period))
        return [Place(p.node, p.path, p.label, group, p.broken) for p in period] * repeat

    def _anew(self, period: list[Place]) -> list[Place]:
        """The period once more, with sets of weights of its own for what is shared inside it."""
        fresh: dict[tuple[int, int], tuple[int, int]] = {}
        found = []
        for place in period:
            if place.group is not None and place.group not in fresh:
                self.groups += 1
                fresh[place.group] = (self.groups, place.group[1])
            found.append(place if place.group is None else replace(place, group=fresh[place.group]))
        return found

    def _repeat(self, node: Node, path: str) -> int | None:
        assert isinstance(node.value, dict)
        repeat = node.value.get("repeat")
        if repeat is None:
            return 1
        if isinstance(repeat.value, int) and not isinstance(repeat.value, bool) and repeat.value >= 1:
            return repeat.value
        if isinstance(repeat.value, str) and self.size is not None and not empty(repeat):
            return self._computed(repeat, f"{path}.repeat", repeat.value)
        self.problem(repeat, f"{path}.repeat", must_be("repeat", repeat, whole_number(repeat.value)))
        return None

    def _computed(self, node: Node, path: str, text: str) -> int | None:
        """A repeat as arithmetic on named sizes."""
        assert self.size is not None
        try:
            value = evaluate(text, self.size)
        except Silent:
            self.failed = True
            return None
        except Fault as fault:
            wanted = "a whole number above 0, or arithmetic on named sizes"
            self.problem(node, path, f"repeat = {shown(node)} must be {wanted}; {fault}")
            return None
        try:
            value = fit("repeat", text, value, True)
            if value >= 1:
                return int(value)
            self.problem(node, path, f"repeat = {text} = {value} must be {whole_number(value)}")
        except Fault as fault:
            self.problem(node, path, str(fault))
        return None

    def _period(self, node: Node, path: str) -> list[Place]:
        assert isinstance(node.value, dict)
        pattern = node.value.get("pattern")
        rest = {k: v for k, v in node.value.items() if k not in ITEM_KEYS}
        if pattern is None:
            return self._block(Node(rest, node.mark, node.keys), path)
        beside = [key for key in rest if key in BLOCK_KEYS]
        unknown(node, [*ITEM_KEYS], path, "an entry with a pattern", self.problems, beside)
        for key in beside:
            message = f"{key} cannot stand beside pattern; put it into the blocks that the pattern names"
            self.problems.append(Problem(node.keys.get(key, node.mark), f"{path}.{key}", message))
        if isinstance(pattern.value, list):
            if not pattern.value:
                self.problem(pattern, f"{path}.pattern", "needs at least one block")
            return self._items(pattern.value, f"{path}.pattern")
        if isinstance(pattern.value, str):
            return self._pattern(pattern, f"{path}.pattern")
        message = f"must be a list or text over the defined names, not {pattern.kind_name()}"
        self.problem(pattern, f"{path}.pattern", message)
        return []

    def _block(self, node: Node, path: str) -> list[Place]:
        """One block written in place, beside `repeat`."""
        assert isinstance(node.value, dict)
        if not node.value:
            self.problem(node, path, "repeats nothing; give it a pattern, or a mixer or an ffn")
            return []
        if not node.value.keys() & BLOCK_KEYS.keys():
            unknown(node, [*BLOCK_KEYS, *ITEM_KEYS], path, "an entry of blocks", self.problems)
            self.failed = True
            return []
        return [Place(node, path)]

    def _pattern(self, node: Node, path: str) -> list[Place]:
        try:
            return [self.define[name] for name in parse_pattern(str(node.value), self.define)]
        except Fault as fault:
            self.problem(node, path, str(fault))
            return []
