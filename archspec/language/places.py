"""The layers of a stack: named blocks, patterns, repeats and sharing written out as one node a layer."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from archspec.errors import Fault, Problem, suggest
from archspec.language.document import BLOCK_KEYS, ITEM_KEYS, PLAIN
from archspec.language.names import bad_block_name
from archspec.language.pattern import MAX_LAYERS, UnknownBlock, parse_pattern
from archspec.language.problems import Problems, join
from archspec.language.rules import must_be, shown
from archspec.language.scope import Value, number
from archspec.language.topics import see
from archspec.language.tree import Node, clipped, merge

MOST_EXTENDS = 16


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


def definitions(node: Node | None, problems: Problems) -> dict[str, Place]:
    """The named blocks, each over those that it extends; one that is wrong is a broken place, so that it is known."""
    bodies = _Bodies(problems.mapping(node, "define", "names to blocks"), problems)
    found: dict[str, Place] = {}
    for name, body in bodies.bodies.items():
        path = f"define.{clipped(name)}"
        wrong = bad_block_name(name)
        if node is not None and wrong:
            problems.tell(node.key_mark(name), path, f"{clipped(name)!r} {wrong}")
        merged = bodies.whole(name)
        if not re.fullmatch(r"x\d+", name):  # which a pattern could not tell from a repeat
            found[name] = Place(merged or body, path, name, broken=merged is None or bool(wrong))
    return found


def at_home(problem: Problem, define: Node | None) -> Problem:
    """The problem with the path of the definition in which it stands, where another that extends it was looked at."""
    found = re.match(r"define\.(\w+)", problem.path)
    if define is None or found is None or not problem.mark.line:
        return problem
    before = [(mark, name) for name, mark in define.keys.items() if mark.file == problem.mark.file]
    _, owner = max((pair for pair in before if pair[0] <= problem.mark), default=(None, ""))
    if owner not in _extended(found[1], define):
        return problem
    return replace(problem, path=f"define.{owner}{problem.path[found.end() :]}")


def _extended(name: str, define: Node) -> list[str]:
    """The blocks that a block extends, nearest first."""
    chain: list[str] = []
    here: object = name
    while isinstance(here, str) and here in define.fields and here not in chain:
        chain.append(here)
        base = define.fields[here].fields.get("extends")
        here = base.value if base is not None else None
    return chain[1:]


class _Bodies:
    """Blocks by name, each over the one that it extends."""

    def __init__(self, bodies: dict[str, Node], problems: Problems):
        self.bodies, self.problems = bodies, problems
        self.done: dict[str, Node | None] = {}

    def whole(self, name: str) -> Node | None:
        """The block with all that it extends merged in, or None when something is wrong with either."""
        chain: list[str] = []
        here: str | None = name
        while here is not None and here not in self.done:
            chain.append(here)
            here = self._base(chain)
        for at in reversed(chain):
            if at not in self.done:
                self.done[at] = self._over(self.bodies[at])
        return self.done[name]

    def _over(self, body: Node) -> Node | None:
        if "extends" not in body.fields:
            return body
        base = self.done[str(body.fields["extends"].value)]
        return None if base is None else merge(base, body.without(("extends",)))

    def _base(self, chain: list[str]) -> str | None:
        """The name that the last block of a chain extends, if any; what is wrong ends the chain."""
        name = chain[-1]
        body = self.bodies[name]
        base = body.fields.get("extends")
        others = self.bodies.keys() - {name}
        if not isinstance(body.value, dict):
            wrong, base = f"must be a block (mixer, ffn, ...), not {body.kind_name()}", None
        elif base is None:
            return None
        elif not isinstance(base.value, str) or base.value not in self.bodies:
            wrong = f"no block {shown(base)} is defined{suggest(str(base.value), others)}"
        elif base.value in chain:
            circle = " -> ".join([*chain[chain.index(base.value) :], base.value])
            wrong = f"the blocks extend one another in a circle: {circle}{see('extends')}"
        elif len(chain) > MOST_EXTENDS:
            wrong = f"more than {MOST_EXTENDS} blocks extend one another"
        else:
            return base.value
        self.problems.tell(base or body, join(f"define.{clipped(name)}", "extends" if base else ""), wrong)
        self.done[name] = None
        return None


class Expander:
    """Writes out the layers of one stack and keeps the problems; `failed` when it is unknown how many there are."""

    def __init__(self, define: Mapping[str, Place], problems: Problems, size: Callable[[str], Value]):
        self.define, self.problems, self.size = define, problems, size
        self.groups = 0
        self.failed = False

    def refuse(self, node: Node, path: str, message: str) -> list[Place]:
        """Tells a mistake, after which the layers are not known."""
        self.failed = True
        if message:
            self.problems.tell(node, path, message)
        return []

    def expand(self, node: Node, path: str) -> list[Place]:
        """The layers of a `blocks` entry: a list of items, or one pattern as text."""
        hint = "; put '- ' before it" if isinstance(node.value, dict) else ""
        return self._several(
            node, path, f"must be a list of blocks, or a pattern as text, not {{}}{hint}{see('blocks')}"
        )

    def _several(self, node: Node, path: str, wish: str) -> list[Place]:
        """The layers of a list or a pattern."""
        if isinstance(node.value, str):
            try:
                return [self.define[name] for name in parse_pattern(node.value, self.define)]
            except Fault as fault:
                link = "" if isinstance(fault, UnknownBlock) else see("pattern")
                return self.refuse(node, path, f"{fault}{link}")
        if not isinstance(node.value, list):
            return self.refuse(node, path, wish.format(node.kind_name()))
        if not node.value:
            self.refuse(node, path, "needs at least one block")
        places: list[Place] = []
        for i, item in enumerate(node.value):
            more = self._item(item, f"{path}[{i}]")
            if len(places) + len(more) > MAX_LAYERS:
                self.refuse(item, path, f"more than {MAX_LAYERS} layers")
                return places
            places += more
        return places

    def _item(self, node: Node, path: str) -> list[Place]:
        if isinstance(node.value, str):
            return self._several(node, path, "")
        if not isinstance(node.value, dict):
            return self.refuse(node, path, f"must be a block or the name of one, not {node.kind_name()}")
        if not node.value.keys() & ITEM_KEYS.keys():
            return [Place(node, path)]
        repeat = self._repeat(node, path)
        period = self._period(node, path) if "pattern" in node.value else self._block(node, path)
        if repeat is None:
            return period
        if repeat * len(period) > MAX_LAYERS:
            self.refuse(node.value["repeat"], f"{path}.repeat", f"more than {MAX_LAYERS} layers")
            return period
        return self._repeated(node, path, period, repeat)

    def _repeated(self, node: Node, path: str, period: list[Place], repeat: int) -> list[Place]:
        """The period as often as it repeats, all with one set of weights where the item says so."""
        share = node.fields.get("share")
        if share is None or share.value is False:
            return [place for _ in range(repeat) for place in self._anew(period)]
        if not PLAIN["share"].holds(share.value):
            self.refuse(share, f"{path}.share", must_be("share", share, PLAIN["share"].wanted()))
        elif repeat == 1:
            self.problems.warn(share, f"{path}.share", "share has no effect when repeat is 1")
        self.groups += 1
        return [replace(p, group=(self.groups, len(period))) for p in period] * repeat

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
        """How often an item repeats its period; None where that is wrong."""
        repeat = node.fields.get("repeat")
        if repeat is None:
            return 1
        try:
            if isinstance(repeat.value, dict):
                raise Fault(must_be("repeat", repeat, PLAIN["repeat"].wanted()))
            value = number("repeat", repeat, PLAIN["repeat"], self.size)
        except Fault as fault:
            self.refuse(repeat, f"{path}.repeat", str(fault))
            return None
        return None if value is None else int(value)

    def _period(self, node: Node, path: str) -> list[Place]:
        """The layers of a pattern, beside which no part of a block can stand."""
        beside = [key for key in node.fields if key in BLOCK_KEYS and key not in ITEM_KEYS]
        self.problems.unknown(node, ITEM_KEYS, path, "an entry with a pattern", beside)
        for key in beside:
            message = f"{key} cannot stand beside pattern; put it into the blocks that the pattern names"
            self.problems.tell(node.key_mark(key), f"{path}.{key}", message)
        wish = "must be a list or text over the defined names, not {}"
        return self._several(node.fields["pattern"], f"{path}.pattern", wish)

    def _block(self, node: Node, path: str) -> list[Place]:
        """One block written in place, beside `repeat`."""
        block = node.without(ITEM_KEYS)
        if not block.value:
            return self.refuse(node, path, "repeats nothing; give it a pattern, or a mixer or an ffn")
        if not block.fields.keys() & BLOCK_KEYS.keys():
            self.problems.unknown(block, [*BLOCK_KEYS, *ITEM_KEYS], path, "an entry of blocks")
            return self.refuse(node, path, "")
        return [Place(block, path)]
