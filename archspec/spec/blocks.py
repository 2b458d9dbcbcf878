"""The layers of a stack: named blocks, patterns, repeats, sharing and overrides, written out as one node a layer."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from archspec.errors import Fault, Problem, suggest
from archspec.spec.pattern import parse_pattern
from archspec.spec.source import Node, assign, merge

MOST_LAYERS = 4096
BLOCK_KEYS = ("mixer", "cross", "ffn", "norm", "wiring", "dropout", "modules", "extends")
ITEM_KEYS = ("repeat", "pattern", "share")
OVERRIDE = re.compile(r"(?:(?P<stack>[A-Za-z_]\w*)\.)?layers\[(?P<index>[^\]]*)\](?P<rest>(?:\.[A-Za-z_]\w*)*)")


@dataclass(frozen=True, eq=False)
class Place:
    """One layer before resolution: its node, where that stands, its name, and its share group."""

    node: Node
    path: str
    label: str = ""
    group: int | None = None


class Expander:
    """Writes out the layers of one stack and keeps the problems."""

    def __init__(self, define: Mapping[str, Place], problems: list[Problem]):
        self.define, self.problems = define, problems
        self.groups = 0

    def problem(self, node: Node, path: str, message: str) -> None:
        """Remember one mistake."""
        self.problems.append(Problem(node.mark, path, message))

    def expand(self, node: Node, path: str) -> list[Place]:
        """The layers of a `blocks` entry: a list of items, or one pattern as text."""
        items = node.value if isinstance(node.value, list) else [node]
        if isinstance(node.value, list) and not items:
            self.problem(node, path, "needs at least one block")
        places: list[Place] = []
        for i, item in enumerate(items):
            places += self._item(item, f"{path}[{i}]" if isinstance(node.value, list) else path)
            if len(places) > MOST_LAYERS:
                self.problem(item, path, f"more than {MOST_LAYERS} layers")
                return places[:1]
        return places

    def _item(self, node: Node, path: str) -> list[Place]:
        if isinstance(node.value, str):
            return self._pattern(node, path)
        if not isinstance(node.value, dict):
            self.problem(node, path, f"must be a block or the name of one, not {node.kind_name()}")
            return []
        if not set(node.value) & set(ITEM_KEYS):
            return [Place(node, path)]
        repeat = self._repeat(node, path)
        period = self._period(node, path)
        if repeat * len(period) > MOST_LAYERS:
            self.problem(node.value["repeat"], f"{path}.repeat", f"more than {MOST_LAYERS} layers")
            return period
        share = node.value.get("share")
        if share is not None and not isinstance(share.value, bool):
            self.problem(share, f"{path}.share", f"share must be true or false, not {share.kind_name()}")
        if share is None or share.value is not True:
            return period * repeat
        if repeat == 1:
            self.problem(
                share, f"{path}.share", "share has no effect when repeat is 1; remove it, or repeat the blocks"
            )
        self.groups += 1
        return [Place(p.node, p.path, p.label, self.groups) for p in period] * repeat

    def _repeat(self, node: Node, path: str) -> int:
        assert isinstance(node.value, dict)
        repeat = node.value.get("repeat")
        if repeat is None:
            return 1
        if isinstance(repeat.value, int) and not isinstance(repeat.value, bool) and repeat.value >= 1:
            return repeat.value
        found = repr(repeat.value) if isinstance(repeat.value, int | float | str) else repeat.kind_name()
        self.problem(repeat, f"{path}.repeat", f"repeat = {found} must be a whole number, at least 1")
        return 1

    def _period(self, node: Node, path: str) -> list[Place]:
        assert isinstance(node.value, dict)
        pattern = node.value.get("pattern")
        rest = {k: v for k, v in node.value.items() if k not in ITEM_KEYS}
        if pattern is None:
            return [Place(Node(rest, node.mark, node.keys), path)]
        for key in rest:
            mark = node.keys.get(key, node.mark)
            message = f"{key} cannot stand beside pattern; put it into the blocks that the pattern names"
            self.problems.append(Problem(mark, f"{path}.{key}", message))
        if isinstance(pattern.value, list):
            return [p for i, item in enumerate(pattern.value) for p in self._item(item, f"{path}.pattern[{i}]")]
        if isinstance(pattern.value, str):
            return self._pattern(pattern, f"{path}.pattern")
        self.problem(
            pattern, f"{path}.pattern", f"must be a list or text over the defined names, not {pattern.kind_name()}"
        )
        return []

    def _pattern(self, node: Node, path: str) -> list[Place]:
        try:
            return [self.define[name] for name in parse_pattern(str(node.value), self.define)]
        except Fault as fault:
            self.problem(node, path, str(fault))
            return []


def definitions(node: Node | None, problems: list[Problem]) -> dict[str, Place]:
    """The named blocks, with `extends` between them resolved."""
    if node is None:
        return {}
    if not isinstance(node.value, dict):
        problems.append(Problem(node.mark, "define", f"must map names to blocks, not {node.kind_name()}"))
        return {}
    found: dict[str, Place] = {}
    for name, body in node.value.items():
        path = f"define.{name}"
        if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) or re.fullmatch(r"x\d+", name):
            message = f"a block's name is letters, digits and _, and not x with digits (a repeat); found {name!r}"
            problems.append(Problem(node.keys.get(name, body.mark), path, message))
        elif not isinstance(body.value, dict):
            problems.append(Problem(body.mark, path, f"must be a block (mixer, ffn, ...), not {body.kind_name()}"))
        else:
            merged = _extended(name, node.value, (), problems)
            if merged is not None:
                found[name] = Place(merged, path, name)
    return found


def _extended(name: str, bodies: Mapping[str, Node], seen: Sequence[str], problems: list[Problem]) -> Node | None:
    body = bodies[name]
    if not isinstance(body.value, dict) or "extends" not in body.value:
        return body
    base = body.value["extends"]
    path = f"define.{name}.extends"
    if not isinstance(base.value, str) or base.value not in bodies:
        problems.append(
            Problem(base.mark, path, f"no block {base.value!r} is defined{suggest(str(base.value), bodies)}")
        )
        return None
    if base.value in (*seen, name):
        cycle = " -> ".join([*seen, name, base.value])
        problems.append(Problem(base.mark, path, f"extends itself: {cycle}"))
        return None
    parent = _extended(base.value, bodies, (*seen, name), problems)
    own = Node({k: v for k, v in body.value.items() if k != "extends"}, body.mark, body.keys)
    return None if parent is None else merge(parent, own)


def override(places: list[Place], node: Node | None, path: str, stack: str, problems: list[Problem]) -> list[Place]:
    """The layers after the `overrides` of a stack; layers that were one node and are changed alike stay one node."""
    if node is None:
        return places
    if not isinstance(node.value, list):
        problems.append(Problem(node.mark, path, f"must be a list of {{at: ..., set: ...}}, not {node.kind_name()}"))
        return places
    for i, item in enumerate(node.value):
        try:
            places = _override_one(places, item, stack)
        except Fault as fault:
            problems.append(Problem(item.mark, f"{path}[{i}]", str(fault)))
    return places


def _override_one(places: list[Place], item: Node, stack: str) -> list[Place]:
    fields = item.value if isinstance(item.value, dict) else {}
    if set(fields) not in ({"at", "set"}, {"at", "replace"}):
        raise Fault('an override is {at: "layers[0:3].ffn", set: {...}} or {at: ..., replace: {...}}')
    at, rest = _selected(fields["at"], len(places), stack)
    changed: dict[int, Place] = {}
    out = list(places)
    for index in at:
        place = places[index]
        if id(place) not in changed:
            changed[id(place)] = _change(place, rest, fields)
        out[index] = changed[id(place)]
    return out


def _change(place: Place, rest: str, fields: Mapping[str, Node]) -> Place:
    new = fields["set"] if "set" in fields else fields["replace"]
    target = place.node
    for key in rest.split(".") if rest else []:
        inner = target.value.get(key) if isinstance(target.value, dict) else None
        target = inner if inner is not None else Node({}, new.mark)
    if "set" in fields and isinstance(target.value, dict):
        new = merge(target, new)
    node = assign(place.node, rest, new) if rest else new
    return Place(node, place.path, place.label, place.group)


def _selected(at: Node, n: int, stack: str) -> tuple[list[int], str]:
    match = OVERRIDE.fullmatch(at.value) if isinstance(at.value, str) else None
    if match is None:
        raise Fault(f"at = {at.value!r} must be like layers[3], layers[0:3].ffn or layers[::6].mixer")
    if match["stack"] not in (None, stack):
        raise Fault(f"at = {at.value!r} names the stack {match['stack']!r}; this one is {stack!r}")
    try:
        parts = [int(p) if p.strip() else None for p in match["index"].split(":")]
    except ValueError:
        raise Fault(f"at = {at.value!r}: an index is a whole number or a slice start:stop:step") from None
    if len(parts) > 3 or parts == [None] or (len(parts) == 3 and parts[2] == 0):
        raise Fault(f"at = {at.value!r}: an index is a whole number or a slice start:stop:step")
    if len(parts) == 1:
        index = parts[0]
        assert index is not None
        if not -n <= index < n:
            raise Fault(f"at = {at.value!r} selects no layer; there are {n}, from 0 to {n - 1}")
        return [index % n], match["rest"].removeprefix(".")
    chosen = list(range(n))[slice(*parts)]
    if not chosen:
        raise Fault(f"at = {at.value!r} selects no layer; there are {n}, from 0 to {n - 1}")
    return chosen, match["rest"].removeprefix(".")
