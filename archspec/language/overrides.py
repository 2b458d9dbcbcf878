"""Changes of single layers: `{at: "layers[0:3].ffn", set: {d_ff: 64}}`, or `replace` for a whole node."""

import re
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from archspec.errors import Fault, Problem, suggest
from archspec.language.blocks import Place
from archspec.language.keys import unknown
from archspec.language.source import REPLACE, Node, assign, merge
from archspec.language.values import shown

KEYS = ("at", "set", "replace")
MOST_CHANGES = 4096
MOST_SELECTED = 1 << 19
FORM = re.compile(r"(?:(?P<stack>[A-Za-z_]\w*)\.)?layers\[(?P<index>[^\]]*)\](?P<rest>(?:\.[A-Za-z_]\w*)*)")
USE = 'write {at: "layers[0:3].ffn", set: {...}} or {at: ..., replace: {...}}'


def override(
    places: list[Place],
    node: Node | None,
    path: str,
    stack: str,
    problems: list[Problem],
    define: Mapping[str, Place] = MappingProxyType({}),
) -> list[Place]:
    """The layers after the `overrides` of a stack; layers that were one node and are changed alike stay one node."""
    if node is None:
        return places
    if not isinstance(node.value, list):
        problems.append(Problem(node.mark, path, f"must be a list of {{at: ..., set: ...}}, not {node.kind_name()}"))
        return places
    work = _Overrides(places, stack, problems, define)
    for i, item in enumerate(node.value):
        work.take(item, f"{path}[{i}]")
    return work.places


class _Overrides:
    """The layers while they are changed."""

    def __init__(self, places: list[Place], stack: str, problems: list[Problem], define: Mapping[str, Place]):
        self.places, self.stack, self.problems, self.define = list(places), stack, problems, define
        self.changes = self.selected = 0

    def take(self, item: Node, path: str) -> None:
        """One override."""
        if self.changes > MOST_CHANGES or self.selected > MOST_SELECTED:  # which is told
            return
        if not isinstance(item.value, dict):
            self.problems.append(Problem(item.mark, path, f"must be a mapping, not {item.kind_name()}; {USE}"))
            return
        if item.value.keys() not in ({"at", "set"}, {"at", "replace"}):
            unknown(item, KEYS, path, "an override", self.problems)
            if item.value.keys() <= set(KEYS):
                self.problems.append(Problem(item.mark, path, f"needs `at`, and one of `set` and `replace`; {USE}"))
            return
        try:
            chosen, rest = self._selected(item.value["at"])
        except Fault as fault:
            self.problems.append(Problem(item.value["at"].mark, f"{path}.at", str(fault)))
            return
        verb = "set" if "set" in item.value else "replace"
        if not rest and (wrong := self._bad_block(verb, item.value[verb])):
            self.problems.append(Problem(item.value[verb].mark, f"{path}.{verb}", wrong))
            return
        try:
            self._change(chosen, rest, item.value)
        except Fault as fault:
            self.problems.append(Problem(item.mark, path, str(fault)))

    def _bad_block(self, verb: str, new: Node) -> str:
        """What is wrong with what a whole layer is changed by; nothing when it is right."""
        if isinstance(new.value, dict):
            return ""
        if not isinstance(new.value, str):
            named = " or the name of a defined one" if verb == "replace" else ""
            return f"must be a block (mixer, ffn, ...){named}, not {new.kind_name()}"
        if new.value not in self.define:
            return f"no block {shown(new)} is defined{suggest(new.value[:60], self.define)}"
        return f"a whole block takes the place of a layer: write replace: {new.value}" if verb == "set" else ""

    def _change(self, chosen: list[int], rest: str, fields: Mapping[str, Node]) -> None:
        verb = "set" if "set" in fields else "replace"
        new = fields[verb] if verb == "set" else _replacing(fields[verb])
        changed: dict[int, Place] = {}
        self._count(selected=len(chosen))
        idle = bool(chosen)
        for index in chosen:
            place = self.places[index]
            if id(place) not in changed:
                self._count(changes=1)
                changed[id(place)] = self._changed(place, rest, new)
            idle = idle and changed[id(place)] is place and not place.broken
            self.places[index] = changed[id(place)]
        if idle:
            raise Fault("changes nothing; remove it")
        if any(self.places[index].group for index in chosen):
            self._still_shared()

    def _still_shared(self) -> None:
        """Refuse to change one of several layers that share one set of weights."""
        first: dict[tuple[int, int], int] = {}
        for index, place in enumerate(self.places):
            if place.group is None:
                continue
            start, period = first.setdefault(place.group, index), place.group[1]
            twin = start + (index - start) % period
            if place is not self.places[twin]:
                raise Fault(f"layers {twin} and {index} share one set of weights; change all of them or none")

    def _changed(self, place: Place, rest: str, new: Node) -> Place:
        if not rest and isinstance(new.value, str):
            whole = self.define[new.value]
            return place if whole.node is place.node else replace(whole, group=place.group)
        return _changed(place, rest, new)

    def _count(self, changes: int = 0, selected: int = 0) -> None:
        self.changes += changes
        self.selected += selected
        if self.changes > MOST_CHANGES:
            raise Fault(f"the overrides change different layers more than {MOST_CHANGES} times")
        if self.selected > MOST_SELECTED:
            raise Fault(f"the overrides select layers more than {MOST_SELECTED} times; write fewer of them")

    def _selected(self, at: Node) -> tuple[list[int], str]:
        """The layers that `at` names, and the path in each of them."""
        match = FORM.fullmatch(at.value) if isinstance(at.value, str) else None
        if match is None:
            raise Fault(f"at = {shown(at)} must be like layers[3], layers[0:3].ffn or layers[::6].mixer")
        if match["stack"] not in (None, self.stack):
            where = f"this is the stack {self.stack!r}; leave the name out" if self.stack else "there are no stacks"
            raise Fault(f"at = {shown(at)} names the stack {match['stack']!r}; {where}")
        return self._layers(at, _numbers(at, match["index"])), match["rest"].removeprefix(".")

    def _layers(self, at: Node, parts: list[int | None]) -> list[int]:
        n = len(self.places)
        if not n:  # what is wrong with the blocks is told already
            return []
        if len(parts) == 1 and parts[0] is not None:
            chosen = [parts[0] % n] if -n <= parts[0] < n else []
        else:
            chosen = list(range(n))[slice(*parts)]
        if not chosen:
            raise Fault(f"at = {shown(at)} selects no layer; there are {n}, from 0 to {n - 1}")
        return chosen


def _numbers(at: Node, index: str) -> list[int | None]:
    """The parts of an index or slice, as whole numbers."""
    texts = [part.strip() for part in index.split(":")]
    right = all(re.fullmatch(r"-?[0-9]{1,9}|", text) for text in texts)
    if not right or len(texts) > 3 or texts == [""] or (len(texts) == 3 and texts[2] and int(texts[2]) == 0):
        raise Fault(f"at = {shown(at)}: an index is a whole number, or a slice start:stop:step")
    return [int(text) if text else None for text in texts]


def _replacing(new: Node) -> Node:
    """The node, marked so that merging puts it in the place of what was there."""
    if not isinstance(new.value, dict):
        return new
    return Node({**new.value, REPLACE: Node(True, new.mark)}, new.mark, new.keys)


def _changed(place: Place, rest: str, new: Node) -> Place:
    """The layer with one change, or the same object where it changes nothing."""
    if place.broken or not isinstance(place.node.value, dict):
        return place
    node = assign(place.node, rest, new) if rest else merge(place.node, new)
    same = node.plain() == place.node.plain()
    return place if same else Place(node, place.path, place.label, place.group)
