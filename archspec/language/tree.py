"""The tree of a spec: values with their places, and how one tree changes another (`extends`, overrides, `--set`)."""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, NoReturn

from archspec.errors import Fault, Mark, Problem, SpecError, suggest
from archspec.layers.registry import DECLARED, kinds

MAX_DEPTH = 50
MAX_NODES = 50_000
MAX_DIGITS = 30
REPLACE = "__replace__"
LONGEST_SHOWN = 60

_STEP = re.compile(r"\.?([^.\[\]]+)|\[(-?[0-9]{1,9})\]")
_KINDS = {dict: "a mapping", list: "a list", str: "text", bool: "true or false", type(None): "nothing"}
Steps = list[str | int]


@dataclass(slots=True, eq=False)
class Node:
    """One value of a file and its place; treat it as frozen, for aliases share nodes."""

    value: "bool | int | float | str | list[Node] | dict[str, Node] | None"
    mark: Mark
    keys: dict[str, Mark] = field(default_factory=dict)

    @property
    def fields(self) -> "dict[str, Node]":
        """What a mapping holds; nothing where this is none."""
        return self.value if isinstance(self.value, dict) else {}

    def plain(self) -> Any:
        """The value as ordinary Python data."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def kind_name(self) -> str:
        """What the value is, in words for a message."""
        return _KINDS.get(type(self.value), "a number")

    def key_mark(self, key: str) -> Mark:
        """Where a key of this mapping stands."""
        return self.keys.get(key, self.mark)

    def only(self, keys: Collection[str]) -> "Node":
        """This mapping with no other keys than these."""
        return Node({k: v for k, v in self.fields.items() if k in keys}, self.mark, self.keys)

    def without(self, keys: Collection[str]) -> "Node":
        """This mapping without these keys."""
        return self.only([k for k in self.fields if k not in keys]) if self.fields.keys() & set(keys) else self


def refuse(mark: Mark, message: str) -> NoReturn:
    """Gives a whole file up for one mistake."""
    raise SpecError([Problem(mark, "", message)], mark.file)


def clipped(text: str) -> str:
    """A text, cut where it is long."""
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 3]}..."


def from_plain(data: Any, mark: Mark) -> Node:
    """A tree from Python data, each node at `mark`; raises SpecError for what YAML cannot hold, cycles and bombs."""
    return _Builder(mark).node(data, 1)


class _Builder:
    """Python data to nodes at one mark."""

    def __init__(self, mark: Mark) -> None:
        self.mark, self.count = mark, 0

    def node(self, data: Any, depth: int) -> Node:
        """The node of `data`, which stands `depth` levels down."""
        self.count += 1
        if self.count > MAX_NODES or depth > MAX_DEPTH:
            refuse(self.mark, f"the data holds more than {MAX_NODES} values or {MAX_DEPTH} levels, or holds itself")
        if isinstance(data, dict):
            for key in data:
                if not isinstance(key, str):
                    refuse(self.mark, f"a key must be text, found one of type {type(key).__name__}")
            value = {key: self.node(child, depth + 1) for key, child in data.items()}
            return Node(value, self.mark, dict.fromkeys(value, self.mark))
        if isinstance(data, (list, tuple)):
            return Node([self.node(item, depth + 1) for item in data], self.mark)
        if data is not None and not isinstance(data, (bool, int, float, str)):
            found = f"found one of type {type(data).__name__}"
            refuse(self.mark, f"a spec holds text, numbers, lists and mappings, {found}")
        if isinstance(data, int) and abs(data) >= 10**MAX_DIGITS:
            refuse(self.mark, f"a number of more than {MAX_DIGITS} digits")
        return Node(data, self.mark)


def merge(base: Node, over: Node) -> Node:
    """`over` on top of `base`: mappings merge, all else is replaced; marks of `over` win and nothing is changed.

    A mapping replaces instead of merging when it says `__replace__: true` (the key is dropped) or when its `kind` is
    another than that of the base, since fields of one kind mean nothing for another. A kind by its bare name, `lm`, is
    `{kind: lm}`. Raises SpecError when `__replace__` is neither true nor false.
    """
    if not isinstance(over.value, dict):
        return over
    base = _of_kind(base)
    if not isinstance(base.value, dict) or _replaces(base.value, over.value):
        return _without_marker(over)
    value = dict(base.value)
    for key, child in over.value.items():
        if key != REPLACE:
            value[key] = merge(value[key], child) if key in value else _without_marker(child)
    return Node(value, over.mark, base.keys | over.keys)


def _of_kind(node: Node) -> Node:
    """A component that is written as its bare kind, as a mapping; all else as it is."""
    if not isinstance(node.value, str) or not any(node.value in kinds(role) for role in DECLARED):
        return node
    return Node({"kind": node}, node.mark, {"kind": node.mark})


def _replaces(base: dict[str, Node], over: dict[str, Node]) -> bool:
    if _marked(over):
        return True
    return "kind" in base and "kind" in over and base["kind"].value != over["kind"].value


def _marked(mapping: dict[str, Node]) -> bool:
    marker = mapping.get(REPLACE)
    if marker is not None and not isinstance(marker.value, bool):
        refuse(marker.mark, f"{REPLACE} must be true or false, found {marker.kind_name()}")
    return marker is not None and marker.value is True


def _without_marker(node: Node) -> Node:
    """The node with every `__replace__` dropped from it and from the mappings in it."""
    if not isinstance(node.value, dict):
        return node
    _marked(node.value)
    return Node({k: _without_marker(v) for k, v in node.value.items() if k != REPLACE}, node.mark, node.keys)


def assign(root: Node, path: str, value: Node) -> Node:
    """A new tree in which `value` is merged in at a path such as `blocks[0].mixer.kind`, as by `merge`.

    Missing mappings are created, and an empty mapping replaces what was there. Raises Fault for a path that cannot be
    read, an index that the list does not have and a step into something that is neither a mapping nor a list.
    """
    steps = _steps(path)
    if len(steps) > MAX_DEPTH:
        raise Fault(f"a path has at most {MAX_DEPTH} steps, found {len(steps)}")
    return _assign(root, steps, 0, value)


def remove(root: Node, path: str) -> Node:
    """A new tree without what stands at a path: a key of a mapping, or an item of a list.

    Raises Fault for a path that cannot be read, and where nothing stands there.
    """
    steps = _steps(path)
    *before, last = steps
    holder = root
    for at, step in enumerate(before):
        holder = _child(holder, step, steps[:at])
    _child(holder, last, before)
    if isinstance(last, str):
        less = holder.without((last,))
    else:
        items = list(holder.value) if isinstance(holder.value, list) else []
        del items[last]
        less = Node(items, holder.mark)
    return _put(root, before, less)


def _child(node: Node, step: str | int, before: Steps) -> Node:
    """What stands one step further; raises Fault where nothing does."""
    here = _written(before)
    if isinstance(step, str) and step in node.fields:
        return node.fields[step]
    if isinstance(step, int) and isinstance(node.value, list) and -len(node.value) <= step < len(node.value):
        return node.value[step]
    known = suggest(step, node.fields) if isinstance(step, str) else ""
    what = f"no {step!r}" if isinstance(step, str) else f"no item [{step}]"
    raise Fault(f"{here} has {what}, so there is nothing to remove{known}")


def _put(root: Node, steps: Steps, node: Node) -> Node:
    """A tree with another node at a place that it has."""
    if not steps:
        return node
    step, *rest = steps
    if isinstance(step, str):
        return Node({**root.fields, step: _put(root.fields[step], rest, node)}, root.mark, root.keys)
    items = list(root.value) if isinstance(root.value, list) else []
    items[step] = _put(items[step], rest, node)
    return Node(items, root.mark)


def _steps(path: str) -> Steps:
    """`a.b[3]` as `['a', 'b', 3]`; raises Fault for anything else."""
    steps: Steps = []
    at = 0
    while at < len(path):
        found = _STEP.match(path, at)
        if found is None or (found[0][0] == ".") != (at > 0 and found[1] is not None):
            break
        steps.append(found[1] if found[2] is None else int(found[2]))
        at = found.end()
    if at < len(path) or not steps:
        raise Fault(f"{clipped(path)!r} is not a path; write for example blocks[0].mixer.n_heads")
    return steps


def _assign(node: Node, steps: Steps, at: int, value: Node) -> Node:
    if at == len(steps):
        return value if value.value == {} else merge(node, value)
    step, here = steps[at], _written(steps[:at])
    if isinstance(step, str):
        node = _of_kind(node)
        if node.value is not None and not isinstance(node.value, dict):
            raise Fault(f"{here} is {node.kind_name()} and has no field {step!r}")
        child = _assign(node.fields.get(step) or Node(None, value.mark), steps, at + 1, value)
        over = Node({step: child}, node.mark, {step: value.mark})
        if _replaces(node.fields, over.fields):  # a new `kind` drops the fields of the old one
            return over
        return Node(node.fields | over.fields, node.mark, node.keys | over.keys)
    if not isinstance(node.value, list):
        raise Fault(f"{here} is {node.kind_name()}, not a list; [{step}] needs a list")
    if not -len(node.value) <= step < len(node.value):
        raise Fault(f"{here} has {len(node.value)} items; there is no [{step}]")
    items = list(node.value)
    items[step] = _assign(items[step], steps, at + 1, value)
    return Node(items, node.mark)


def _written(steps: Steps) -> str:
    """The path of some steps, as a person writes it."""
    return "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in steps).removeprefix(".") or "the spec"
