"""Changes of single layers: `{at: "layers[0:3].ffn", set: {d_ff: 64}}`, or `replace` for a whole node."""

import re
from collections.abc import Mapping
from dataclasses import replace

from archspec.errors import Fault, suggest
from archspec.language.places import Place
from archspec.language.problems import Problems
from archspec.language.rules import shown
from archspec.language.topics import see
from archspec.language.tree import REPLACE, Node, assign, merge

KEYS = ("at", "set", "replace")
MOST_CHANGES = 4096
MOST_SELECTED = 1 << 19
FORM = re.compile(r"(?:(?P<stack>[A-Za-z_]\w*)\.)?layers\[(?P<index>[^\]]*)\](?P<rest>(?:\.[A-Za-z_]\w*)*)")
USE = f'write {{at: "layers[0:3].ffn", set: {{...}}}} or {{at: ..., replace: {{...}}}}{see("overrides")}'


class Overrides:
    """The layers of a stack while they are changed; those that were one node and are changed alike stay one node."""

    def __init__(self, places: list[Place], stack: str, problems: Problems, define: Mapping[str, Place]):
        self.places, self.stack, self.problems, self.define = list(places), stack, problems, define
        self.changes = self.selected = 0

    def apply(self, node: Node, path: str) -> list[Place]:
        """The layers after all changes of a list."""
        if not isinstance(node.value, list):
            self.problems.tell(node, path, f"must be a list of {{at: ..., set: ...}}, not {node.kind_name()}")
            return self.places
        for i, item in enumerate(node.value):
            if self.changes <= MOST_CHANGES and self.selected <= MOST_SELECTED:  # which is told
                self._take(item, f"{path}[{i}]")
        return self.places

    def _take(self, item: Node, path: str) -> None:
        """One change."""
        fields, node = item.fields, item
        if not isinstance(item.value, dict):
            self.problems.tell(item, path, f"must be a mapping, not {item.kind_name()}; {USE}")
            return
        if fields.keys() not in ({"at", "set"}, {"at", "replace"}):
            self.problems.unknown(item, KEYS, path, "an override")
            if fields.keys() <= set(KEYS):
                self.problems.tell(item, path, f"needs `at`, and one of `set` and `replace`; {USE}")
            return
        verb, where = "set" if "set" in fields else "replace", path
        try:
            node, where = fields["at"], f"{path}.at"
            chosen, rest = self._selected(node)
            if not rest:
                node, where = fields[verb], f"{path}.{verb}"
                self._check_block(verb, node)
            node, where = item, path
            self._change(chosen, rest, fields[verb] if verb == "set" else _replacing(fields[verb]))
        except Fault as fault:
            self.problems.tell(node, where, str(fault))

    def _check_block(self, verb: str, new: Node) -> None:
        """Refuses what is no block, where a whole layer is changed."""
        if isinstance(new.value, dict):
            return
        if not isinstance(new.value, str):
            named = " or the name of a defined one" if verb == "replace" else ""
            raise Fault(f"must be a block (mixer, ffn, ...){named}, not {new.kind_name()}")
        if new.value not in self.define:
            raise Fault(f"no block {shown(new)} is defined{suggest(new.value[:60], self.define)}")
        if verb == "set":
            raise Fault(f"a whole block takes the place of a layer: write replace: {new.value}")

    def _change(self, chosen: list[int], rest: str, new: Node) -> None:
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
            self._check_shared()

    def _changed(self, place: Place, rest: str, new: Node) -> Place:
        """The layer with one change, or the same object where it changes nothing."""
        if not rest and isinstance(new.value, str):
            whole = self.define[new.value]
            return place if whole.node is place.node else replace(whole, group=place.group)
        if place.broken or not isinstance(place.node.value, dict):
            return place
        node = assign(place.node, rest, new) if rest else merge(place.node, new)
        return place if node.plain() == place.node.plain() else replace(place, node=node)

    def _check_shared(self) -> None:
        """Refuses to change one of several layers that share one set of weights."""
        first: dict[tuple[int, int], int] = {}
        for index, place in enumerate(self.places):
            if place.group is not None:
                start = first.setdefault(place.group, index)
                twin = start + (index - start) % place.group[1]
                if place is not self.places[twin]:
                    raise Fault(
                        f"layers {twin} and {index} share one set of weights; change all of them or none{see('share')}"
                    )

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
            wish = f"layers[3], layers[0:3].ffn or layers[::6].mixer{see('overrides')}"
            raise Fault(f"at = {shown(at)} must be like {wish}")
        if match["stack"] not in (None, self.stack):
            where = f"this is the stack {self.stack!r}; leave the name out" if self.stack else "there are no stacks"
            raise Fault(f"at = {shown(at)} names the stack {match['stack']!r}; {where}")
        parts, every = _numbers(at, match["index"]), range(len(self.places))
        start = parts[0]
        if len(parts) > 1:
            chosen = list(every[slice(*parts)])
        else:
            chosen = [every[start]] if start is not None and -len(every) <= start < len(every) else []
        if every and not chosen:  # where there is no layer, what is wrong with the blocks is told already
            raise Fault(f"at = {shown(at)} selects no layer; there are {len(every)}, from 0 to {len(every) - 1}")
        return chosen, match["rest"].removeprefix(".")


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
