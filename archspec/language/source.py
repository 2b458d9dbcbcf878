"""YAML with places: text to a tree of `Node`, each of which knows its line and column.

Only libyaml's scanner is used; the tree is put together here, because a spec comes from strangers. Tags, several
documents, merge keys, repeated keys and keys that are not text are refused, and depth and size are bounded with every
alias counted as often as it is used. Scalars follow the core schema of YAML 1.2 (`yes` and `on` are text), and
integers may hold underscores.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from archspec.errors import Fault, Mark, Problem, SpecError

MAX_BYTES = 1 << 20
MAX_DEPTH = 50
MAX_NODES = 50_000
MAX_DIGITS = 30
MAX_PROBLEMS = 50
REPLACE = "__replace__"

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CONTROL = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_INT = re.compile(r"[-+]?[0-9]+(?:_[0-9]+)*|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_STEP = re.compile(r"\.?([^.\[\]]+)|\[(-?[0-9]{1,9})\]")
_NUMERIC_START = frozenset("+-.0123456789")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_ADVICE = (
    ("mapping values are not allowed", "a ':' cannot stand here; quote the text, or start a new line"),
    ("expected ',' or ']'", "the list is not closed; a ',' or a ']' is missing before this place"),
    ("expected ',' or '}'", "the mapping is not closed; a ',' or a '}' is missing before this place"),
    ("could not find expected ':'", "a key has no ':' after it; write `key: value`"),
    ("did not find expected key", "this line fits no mapping above it; check its indentation and its quotes"),
    ("did not find expected '-'", "this line fits no list above it; each item starts with '- ' in the same column"),
    ("did not find expected node content", "a value is missing here, or a bracket before it is not closed"),
    ("unexpected end of stream", "a quote is not closed"),
    ("document separator", "a quote is not closed"),
    ("<document start>", "nothing may follow the end of the value; one file holds one mapping"),
    ("undefined tag handle", "tags such as !name are not allowed; write plain values"),
    ("unknown escape character", "unknown escape in a double-quoted text; use single quotes or write \\\\"),
)


@dataclass(slots=True, eq=False)
class Node:
    """One value of a file and its place; treat it as frozen, for aliases share nodes."""

    value: "bool | int | float | str | list[Node] | dict[str, Node] | None"
    mark: Mark
    keys: dict[str, Mark] = field(default_factory=dict)

    def plain(self) -> Any:
        """The value as ordinary Python data."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def kind_name(self) -> str:
        """What the value is, in words for a message."""
        names = {dict: "a mapping", list: "a list", str: "text", bool: "true or false", type(None): "nothing"}
        return names.get(type(self.value), "a number")


def parse(text: str, file: str) -> Node:
    """The tree of one YAML document; raises SpecError with every mistake that the tree can be built around."""
    text = text.removeprefix("\ufeff")
    if len(text) > MAX_BYTES:
        _refuse(Mark(file), f"larger than {MAX_BYTES} characters; a spec is a page of text")
    if found := _CONTROL.search(text):
        _refuse(_mark_at(text, found.start(), file), f"the character U+{ord(found[0]):04X} is not allowed in YAML")
    composer = _Composer(file)
    try:
        for event in _events(text):
            composer.take(event)
    except yaml.YAMLError as error:
        composer.refuse(_place(error, file), _sentence(error, text))
    return composer.result()


def read(path: Path, file: str) -> Node:
    """The tree of a file; raises SpecError when it cannot be read, is larger than 1 MiB or is not UTF-8."""
    try:
        if not path.is_file():
            _refuse(Mark(file), _absence(path))
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        _refuse(Mark(file), f"cannot be read: {getattr(error, 'strerror', None) or error}")
    if len(data) > MAX_BYTES:
        _refuse(Mark(file), f"larger than {MAX_BYTES} bytes; a spec is a page of text")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        _refuse(_mark_at(before, len(before), file), f"byte 0x{data[error.start]:02x} is not UTF-8; save it as UTF-8")
    return parse(text, file)


def from_plain(data: Any, mark: Mark) -> Node:
    """A tree from Python data, each node at `mark`; raises SpecError for what YAML cannot hold, cycles and bombs."""
    return _Builder(mark).build(data, 1)


def merge(base: Node, over: Node) -> Node:
    """`over` on top of `base`: mappings merge, all else is replaced; marks of `over` win and nothing is changed.

    A mapping replaces instead of merging when it says `__replace__: true` (the key is dropped) or when its `kind` is
    another than that of the base, since fields of one kind mean nothing for another. Raises SpecError when
    `__replace__` is neither true nor false.
    """
    if not isinstance(over.value, dict):
        return over
    if not isinstance(base.value, dict) or _replaces(base.value, over.value):
        return _without_marker(over)
    value = dict(base.value)
    for key, child in over.value.items():
        if key != REPLACE:
            value[key] = merge(value[key], child) if key in value else _without_marker(child)
    keys = base.keys | over.keys
    keys.pop(REPLACE, None)
    return Node(value, over.mark, keys)


def assign(root: Node, path: str, value: Node) -> Node:
    """A new tree in which `value` is merged in at a path such as `blocks[0].mixer.kind`, as by `merge`.

    Missing mappings are created, and an empty mapping replaces what was there. Raises Fault for a path that cannot be
    read, an index that the list does not have and a step into something that is neither a mapping nor a list.
    """
    steps = _steps(path)
    if len(steps) > MAX_DEPTH:
        raise Fault(f"a path has at most {MAX_DEPTH} steps, found {len(steps)}")
    return _assign(root, steps, 0, value)


def _events(text: str) -> Iterator[yaml.Event]:
    return yaml.parse(text, Loader=_LOADER)


def _refuse(mark: Mark, message: str) -> NoReturn:
    raise SpecError([Problem(mark, "", message)], mark.file)


def _mark_at(text: str, offset: int, file: str) -> Mark:
    return Mark(file, text.count("\n", 0, offset) + 1, offset - (text.rfind("\n", 0, offset) + 1) + 1)


def _absence(path: Path) -> str:
    if path.is_dir():
        return "is a directory; name a YAML file"
    return "is not an ordinary file" if path.exists() else "no such file"


def _place(error: yaml.YAMLError, file: str) -> Mark:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return Mark(file, mark.line + 1, mark.column + 1) if mark else Mark(file)


def _sentence(error: yaml.YAMLError, text: str) -> str:
    """What libyaml found, in words that say what to do, and where the broken thing began."""
    found = str(getattr(error, "problem", None) or "the text cannot be read")
    start, end = getattr(error, "context_mark", None), getattr(error, "problem_mark", None)
    if "cannot start any token" in found and end:
        return f"not valid YAML: {_wrong_start(text.splitlines()[end.line][end.column])}"
    advice = next((advice for sign, advice in _ADVICE if sign in found), found)
    begun = f" (it begins in line {start.line + 1})" if start and end and start.line != end.line else ""
    return f"not valid YAML: {advice}{begun}"


def _wrong_start(character: str) -> str:
    if character == "\t":
        return "a tab cannot indent; use spaces"
    return f"{character!r} cannot start a value; put the text in quotes"


@dataclass(slots=True)
class _Frame:
    """A list or mapping that is still open, with its expanded size and height for the aliases to it."""

    node: Node
    anchor: str | None
    size: int = 1
    height: int = 1
    key: str | None = None
    key_mark: Mark | None = None


class _Composer:
    """Events in, one tree out; keeps its own stack, so that no depth of nesting can exhaust Python's."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.frames: list[_Frame] = []
        self.anchors: dict[str, tuple[Node, int, int] | None] = {}
        self.root: Node | None = None
        self.documents = 0
        self.count = 0

    def take(self, event: yaml.Event) -> None:
        """One event of the stream."""
        if isinstance(event, yaml.ScalarEvent):
            self.scalar(event)
        elif isinstance(event, yaml.CollectionStartEvent):
            self.open(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self.close()
        elif isinstance(event, yaml.AliasEvent):
            self.alias(event)
        elif isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                self.refuse(self.mark(event), "a second document starts here; one file holds one spec")

    def result(self) -> Node:
        """The finished tree; raises SpecError with all that was found wrong."""
        if self.problems:
            raise SpecError(self.problems, self.file)
        if self.root is None:
            _refuse(Mark(self.file), "the file is empty")
        return self.root

    def scalar(self, event: yaml.ScalarEvent) -> None:
        """A single value, or a key where a mapping waits for one."""
        mark = self.mark(event)
        self.untagged(event, mark)
        node = Node(self.resolved(event, mark), mark)
        self.grow(1, 1, mark)
        if event.anchor:
            self.anchors[event.anchor] = (node, 1, 1)
        frame = self.frames[-1] if self.frames else None
        if frame is not None and isinstance(frame.node.value, dict) and frame.key is None:
            self.key(frame, node, event.value)
        else:
            self.place(node, 1, 1)

    def resolved(self, event: yaml.ScalarEvent, mark: Mark) -> bool | int | float | str | None:
        """The value of a scalar; quoted ones are text, but may not smuggle in control characters by escapes."""
        try:
            if event.implicit[0]:
                return _resolve(event.value)
        except Fault as fault:
            self.report(mark, str(fault))
        if event.style == '"' and (found := _CONTROL.search(event.value)):
            self.report(mark, f"the character U+{ord(found[0]):04X} is not allowed")
        return event.value

    def open(self, event: yaml.CollectionStartEvent) -> None:
        """A list or a mapping starts."""
        mark = self.mark(event)
        self.untagged(event, mark)
        self.grow(1, 1, mark)
        if self.frames and isinstance(self.frames[-1].node.value, dict) and self.frames[-1].key is None:
            self.refuse(mark, "a key must be text, found a list or a mapping")
        if event.anchor:
            self.anchors[event.anchor] = None
        node = Node({} if isinstance(event, yaml.MappingStartEvent) else [], mark)
        self.frames.append(_Frame(node, event.anchor))

    def close(self) -> None:
        """The innermost list or mapping ends and goes to its place."""
        frame = self.frames.pop()
        if frame.anchor:
            self.anchors[frame.anchor] = (frame.node, frame.size, frame.height)
        self.place(frame.node, frame.size, frame.height)

    def alias(self, event: yaml.AliasEvent) -> None:
        """An earlier node once more; it counts with its whole size and height."""
        mark, name = self.mark(event), event.anchor or ""
        if name not in self.anchors:
            self.refuse(mark, f"the alias *{_shown(name)} has no anchor &{_shown(name)} before it")
        known = self.anchors[name]
        if known is None:
            self.refuse(mark, f"the alias *{_shown(name)} stands inside the value that it names")
        if self.frames and isinstance(self.frames[-1].node.value, dict) and self.frames[-1].key is None:
            self.refuse(mark, "a key must be text, found an alias")
        node, size, height = known
        self.grow(size, height, mark)
        self.place(node, size, height)

    def key(self, frame: _Frame, node: Node, text: str) -> None:
        """Keeps a key until its value comes; a wrong key is reported and its value goes in under its text."""
        if not isinstance(node.value, str):
            self.report(node.mark, f"a key must be text, found {node.kind_name()}: {_shown(text)}; put it in quotes")
        elif text == "<<":
            self.report(node.mark, "merge keys (<<) are not allowed; use `extends` to build on another block or file")
        elif text in frame.node.keys:
            first = frame.node.keys[text]
            self.report(node.mark, f"the key {_shown(text)!r} stands twice, first in line {first.line}; keep one")
        frame.key, frame.key_mark = text, node.mark

    def place(self, node: Node, size: int, height: int) -> None:
        """Puts a finished node into the open list or mapping, or makes it the root."""
        if not self.frames:
            self.root = node
            return
        frame = self.frames[-1]
        frame.size += size
        frame.height = max(frame.height, height + 1)
        if isinstance(frame.node.value, list):
            frame.node.value.append(node)
        elif isinstance(frame.node.value, dict) and frame.key is not None and frame.key_mark is not None:
            frame.node.value.setdefault(frame.key, node)
            frame.node.keys.setdefault(frame.key, frame.key_mark)
            frame.key = None

    def grow(self, size: int, height: int, mark: Mark) -> None:
        """Counts new nodes; refuses what is too large or too deep once aliases are written out."""
        self.count += size
        if self.count > MAX_NODES:
            self.refuse(mark, f"more than {MAX_NODES} values once aliases are written out; a spec is a page of text")
        if len(self.frames) + height > MAX_DEPTH:
            self.refuse(mark, f"nested more than {MAX_DEPTH} levels deep")

    def untagged(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent, mark: Mark) -> None:
        """Reports an explicit tag."""
        if event.tag is not None:
            tag = _shown(event.tag.replace("tag:yaml.org,2002:", "!!", 1))
            self.report(mark, f"the tag {tag} is not allowed; write plain values")

    def mark(self, event: yaml.Event) -> Mark:
        """The place where the event starts."""
        start = event.start_mark
        return Mark(self.file, start.line + 1, start.column + 1) if start else Mark(self.file)

    def report(self, mark: Mark, message: str) -> None:
        """Notes a mistake that the rest of the file can be read in spite of."""
        self.problems.append(Problem(mark, "", message))
        if len(self.problems) >= MAX_PROBLEMS:
            raise SpecError(self.problems, self.file)

    def refuse(self, mark: Mark, message: str) -> NoReturn:
        """Gives up, with all that was noted before."""
        raise SpecError([*self.problems, Problem(mark, "", message)], self.file)


def _shown(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def _resolve(text: str) -> bool | int | float | str | None:
    """The value of an unquoted scalar; raises Fault for numbers of absurd length."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMERIC_START:
        return text
    if _INT.fullmatch(text):
        if len(text.replace("_", "").lstrip("+-")) > MAX_DIGITS:
            raise Fault(f"a number of more than {MAX_DIGITS} digits: {_shown(text)}; put it in quotes if it is text")
        return int(text, {"0x": 16, "0o": 8}.get(text[:2], 10))
    if _FLOAT.fullmatch(text):
        if len(text) > 2 * MAX_DIGITS:
            raise Fault(f"a number of more than {2 * MAX_DIGITS} characters: {_shown(text)}")
        return float(text)
    return float(text.replace(".", "", 1)) if _NOT_FINITE.fullmatch(text) else text


class _Builder:
    """Python data to nodes at one mark."""

    def __init__(self, mark: Mark) -> None:
        self.mark = mark
        self.count = 0

    def build(self, data: Any, depth: int) -> Node:
        """The node of `data`, which stands `depth` levels down."""
        self.count += 1
        if self.count > MAX_NODES or depth > MAX_DEPTH:
            _refuse(self.mark, f"the data holds more than {MAX_NODES} values or {MAX_DEPTH} levels, or holds itself")
        if isinstance(data, dict):
            return self.mapping(data, depth)
        if isinstance(data, (list, tuple)):
            return Node([self.build(item, depth + 1) for item in data], self.mark)
        if data is not None and not isinstance(data, (bool, int, float, str)):
            _refuse(
                self.mark, f"a spec holds text, numbers, lists and mappings, found one of type {type(data).__name__}"
            )
        if isinstance(data, int) and abs(data) >= 10**MAX_DIGITS:
            _refuse(self.mark, f"a number of more than {MAX_DIGITS} digits")
        return Node(data, self.mark)

    def mapping(self, data: dict[Any, Any], depth: int) -> Node:
        """The node of a dictionary."""
        for key in data:
            if not isinstance(key, str):
                _refuse(self.mark, f"a key must be text, found one of type {type(key).__name__}")
        value = {key: self.build(child, depth + 1) for key, child in data.items()}
        return Node(value, self.mark, dict.fromkeys(value, self.mark))


def _replaces(base: dict[str, Node], over: dict[str, Node]) -> bool:
    if _marked(over):
        return True
    return "kind" in base and "kind" in over and base["kind"].value != over["kind"].value


def _marked(mapping: dict[str, Node]) -> bool:
    marker = mapping.get(REPLACE)
    if marker is not None and not isinstance(marker.value, bool):
        _refuse(marker.mark, f"{REPLACE} must be true or false, found {marker.kind_name()}")
    return marker is not None and marker.value is True


def _without_marker(node: Node) -> Node:
    """The node with every `__replace__` dropped from it and from the mappings in it."""
    if not isinstance(node.value, dict):
        return node
    _marked(node.value)
    value = {key: _without_marker(child) for key, child in node.value.items() if key != REPLACE}
    return Node(value, node.mark, {key: mark for key, mark in node.keys.items() if key != REPLACE})


def _steps(path: str) -> list[str | int]:
    """`a.b[3]` as `['a', 'b', 3]`; raises Fault for anything else."""
    steps: list[str | int] = []
    at = 0
    while at < len(path):
        found = _STEP.match(path, at)
        if found is None or (found[0][0] == ".") != (at > 0 and found[1] is not None):
            break
        steps.append(found[1] if found[2] is None else int(found[2]))
        at = found.end()
    if at < len(path) or not steps:
        raise Fault(f"{_shown(path)!r} is not a path; write for example blocks[0].mixer.n_heads")
    return steps


def _assign(node: Node, steps: list[str | int], at: int, value: Node) -> Node:
    if at == len(steps):
        return value if value.value == {} else merge(node, value)
    step = steps[at]
    return _assign_item(node, steps, at, value) if isinstance(step, int) else _assign_key(node, steps, at, value)


def _assign_key(node: Node, steps: list[str | int], at: int, value: Node) -> Node:
    """Sets one key; a missing or empty mapping is created, and a new `kind` drops the fields of the old one."""
    key = str(steps[at])
    if node.value is not None and not isinstance(node.value, dict):
        raise Fault(f"{_text(steps[:at])} is {node.kind_name()} and has no field {key!r}")
    old = node.value or {}
    child = _assign(old.get(key) or Node(None, value.mark), steps, at + 1, value)
    over = Node({key: child}, node.mark, {key: value.mark})
    if _replaces(old, {key: child}):
        return over
    return Node(old | {key: child}, node.mark, node.keys | over.keys)


def _assign_item(node: Node, steps: list[str | int], at: int, value: Node) -> Node:
    """Sets one item of a list; a negative index counts from the end."""
    index = int(steps[at])
    if not isinstance(node.value, list):
        raise Fault(f"{_text(steps[:at])} is {node.kind_name()}, not a list; [{index}] needs a list")
    if not -len(node.value) <= index < len(node.value):
        raise Fault(f"{_text(steps[:at])} has {len(node.value)} items; there is no [{index}]")
    items = list(node.value)
    items[index] = _assign(items[index], steps, at + 1, value)
    return Node(items, node.mark)


def _text(steps: list[str | int]) -> str:
    """The path of some steps, as a person writes it."""
    return "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in steps).removeprefix(".") or "the spec"
