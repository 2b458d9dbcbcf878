"""YAML with places: text to a tree of `Node`, each of which knows its line and column.

Only libyaml's scanner is used; the tree is put together here, because a spec comes from strangers. Tags, several
documents, merge keys, repeated keys and keys that are not text are refused, and depth and size are bounded with every
alias counted as often as it is used. Scalars follow the core schema of YAML 1.2 (`yes` and `on` are text), and
integers may hold underscores.
"""

import os
import re
import stat
from collections.abc import Mapping
from errno import ELOOP
from pathlib import Path
from typing import NoReturn

import yaml

from archspec.errors import Fault, Mark, Problem, SpecError
from archspec.language.tree import MAX_DEPTH, MAX_DIGITS, MAX_NODES, Node, clipped, refuse

MAX_BYTES = 1 << 20
MAX_PROBLEMS = 50
MISSING, A_FOLDER = "no such file", "is a directory"  # what else than a file may stand at a path
Sized = tuple[Node, int, int]  # a node, the nodes that it is once aliases are written out, and its levels

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CONTROL = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_INT = re.compile(r"[-+]?[0-9]+(?:_[0-9]+)*|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
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


def read(path: Path, file: str) -> Node:
    """The tree of a file; raises SpecError when it cannot be read, is larger than 1 MiB or is not UTF-8."""
    try:
        if wrong := no_plain_file(path):
            advice = "; name a YAML file" if wrong == A_FOLDER else ""
            refuse(Mark(file), f"{wrong}{advice}")
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        refuse(Mark(file), f"cannot be read: {_reason(error)}")
    if len(data) > MAX_BYTES:
        refuse(Mark(file), f"larger than {MAX_BYTES} bytes; a spec is a page of text")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        refuse(_mark_at(before, len(before), file), f"byte 0x{data[error.start]:02x} is not UTF-8; save it as UTF-8")
    return parse(text, file)


def no_plain_file(path: Path) -> str:
    """What stands at a path where it is not an ordinary file, in words; nothing where it is one."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, ValueError):
        return MISSING
    except OSError as error:
        circle = "is a symbolic link that leads back to itself"
        return circle if error.errno == ELOOP else f"cannot be read: {_reason(error)}"
    if stat.S_ISDIR(mode):
        return A_FOLDER
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}
    return "" if stat.S_ISREG(mode) else f"is not an ordinary file but {kinds.get(stat.S_IFMT(mode), 'another')}"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def parse(text: str, file: str) -> Node:
    """The tree of one YAML document; raises SpecError with every mistake that the tree can be built around."""
    text = text.removeprefix("\ufeff")
    if len(text) > MAX_BYTES:
        refuse(Mark(file), f"larger than {MAX_BYTES} characters; a spec is a page of text")
    if found := _CONTROL.search(text):
        refuse(_mark_at(text, found.start(), file), f"the character U+{ord(found[0]):04X} is not allowed in YAML")
    composer = _Composer(text, file)
    try:
        return composer.document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        composer.refuse(Mark(file, mark.line + 1, mark.column + 1) if mark else Mark(file), _sentence(error, text))
    except yaml.YAMLError as error:
        composer.refuse(Mark(file), f"not valid YAML: {error}")


def _mark_at(text: str, offset: int, file: str) -> Mark:
    return Mark(file, text.count("\n", 0, offset) + 1, offset - (text.rfind("\n", 0, offset) + 1) + 1)


def _sentence(error: yaml.MarkedYAMLError, text: str) -> str:
    """What libyaml found, in words that say what to do, and where the broken thing began."""
    found, start, end = str(error.problem), error.context_mark, error.problem_mark
    if "cannot start any token" in found and end:
        wrong = text.splitlines()[end.line][end.column]
        quoted = f"{wrong!r} cannot start a value; put the text in quotes"
        return f"not valid YAML: {'a tab cannot indent; use spaces' if wrong == chr(9) else quoted}"
    advice = next((advice for sign, advice in _ADVICE if sign in found), found)
    begun = f" (it begins in line {start.line + 1})" if start and end and start.line != end.line else ""
    return f"not valid YAML: {advice}{begun}"


class _Composer:
    """Events in, one tree out; what would make it too large or too deep is refused before it is followed."""

    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self.events = yaml.parse(text, Loader=_LOADER)
        self.problems: list[Problem] = []
        self.anchors: dict[str, Sized | None] = {}
        self.count = 0

    def document(self) -> Node:
        """The tree; raises SpecError with all that was found wrong."""
        root: Node | None = None
        for event in self.events:
            if root is not None and isinstance(event, yaml.DocumentStartEvent):
                self.refuse(self.mark(event), "a second document starts here; one file holds one spec")
            if isinstance(event, yaml.NodeEvent):
                root = self.node(event, 1)[0]
        if self.problems:
            raise SpecError(self.problems, self.file)
        return root or refuse(Mark(self.file), "the file is empty")

    def node(self, event: yaml.Event, depth: int) -> Sized:
        """The node that an event begins, read to its end."""
        mark = self.begin(event, depth)
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event.anchor or "", mark, depth)
        anchor = event.anchor if isinstance(event, yaml.NodeEvent) else None
        if isinstance(event, yaml.ScalarEvent):
            found = (Node(self.resolved(event, mark), mark), 1, 1)
        else:
            if anchor:
                self.anchors[anchor] = None
            is_mapping = isinstance(event, yaml.MappingStartEvent)
            found = self.mapping(mark, depth) if is_mapping else self.sequence(mark, depth)
        if anchor:
            self.anchors[anchor] = found
        return found

    def sequence(self, mark: Mark, depth: int) -> Sized:
        """The items of a list."""
        items: list[Node] = []
        size = height = 1
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            item, more, levels = self.node(event, depth + 1)
            items.append(item)
            size, height = size + more, max(height, levels + 1)
        return Node(items, mark), size, height

    def mapping(self, mark: Mark, depth: int) -> Sized:
        """The keys and values of a mapping; of a key that stands twice, which is told, the first one is kept."""
        value: dict[str, Node] = {}
        keys: dict[str, Mark] = {}
        size = height = 1
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key, place = self.key(event, keys, depth + 1)
            child, more, levels = self.node(next(self.events), depth + 1)
            value.setdefault(key, child)
            keys.setdefault(key, place)
            size, height = size + more, max(height, levels + 1)
        return Node(value, mark, keys), size, height

    def key(self, event: yaml.Event, before: Mapping[str, Mark], depth: int) -> tuple[str, Mark]:
        """A key and its place; a wrong one is reported, and its value goes in under its text."""
        if not isinstance(event, yaml.ScalarEvent):
            found = "an alias" if isinstance(event, yaml.AliasEvent) else "a list or a mapping"
            self.refuse(self.begin(event, depth), f"a key must be text, found {found}")
        node, text = self.node(event, depth)[0], event.value
        if not isinstance(node.value, str):
            self.report(node.mark, f"a key must be text, found {node.kind_name()}: {clipped(text)}; put it in quotes")
        elif text == "<<":
            self.report(node.mark, "merge keys (<<) are not allowed; use `extends` to build on another block or file")
        elif text in before:
            first = before[text].line
            self.report(node.mark, f"the key {clipped(text)!r} stands twice, first in line {first}; keep one")
        return text, node.mark

    def alias(self, name: str, mark: Mark, depth: int) -> Sized:
        """An earlier node once more; it counts with its whole size and height."""
        if name not in self.anchors:
            self.refuse(mark, f"the alias *{clipped(name)} has no anchor &{clipped(name)} before it")
        known = self.anchors[name]
        if known is None:
            self.refuse(mark, f"the alias *{clipped(name)} stands inside the value that it names")
        self.grow(known[1], depth + known[2] - 1, mark)
        return known

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

    def begin(self, event: yaml.Event, depth: int) -> Mark:
        """The place of a new node; its explicit tag is reported."""
        mark = self.mark(event)
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            if event.tag is not None:
                tag = clipped(event.tag.replace("tag:yaml.org,2002:", "!!", 1))
                self.report(mark, f"the tag {tag} is not allowed; write plain values")
            self.grow(1, depth, mark)
        return mark

    def grow(self, size: int, depth: int, mark: Mark) -> None:
        """Counts new nodes; refuses what is too large or too deep once aliases are written out."""
        self.count += size
        if self.count > MAX_NODES:
            self.refuse(mark, f"more than {MAX_NODES} values once aliases are written out; a spec is a page of text")
        if depth > MAX_DEPTH:
            self.refuse(mark, f"nested more than {MAX_DEPTH} levels deep")

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


def _resolve(text: str) -> bool | int | float | str | None:
    """The value of an unquoted scalar; raises Fault for numbers of absurd length."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMERIC_START:
        return text
    if _INT.fullmatch(text):
        if len(text.replace("_", "").lstrip("+-")) > MAX_DIGITS:
            raise Fault(f"a number of more than {MAX_DIGITS} digits: {clipped(text)}; put it in quotes if it is text")
        return int(text, {"0x": 16, "0o": 8}.get(text[:2], 10))
    if _FLOAT.fullmatch(text):
        if len(text) > 2 * MAX_DIGITS:
            raise Fault(f"a number of more than {2 * MAX_DIGITS} characters: {clipped(text)}")
        return float(text)
    return float(text.replace(".", "", 1)) if _NOT_FINITE.fullmatch(text) else text
