"""The paths that `--set` may name in a spec, for completion: what the schema knows at a place, and what stands there.

define.attn.mixer.n_h  ->  define.attn.mixer.n_heads=
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from archspec.errors import SpecError
from archspec.language.load import read_extended
from archspec.language.schema import Schema, schema
from archspec.language.tree import REPLACE, Node

NOT_SET = {REPLACE, "extends"}  # keys of the whole that no setting may name
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


@dataclass(frozen=True)
class Offer:
    """A path or a value to choose, with what it means; `open` says that more must follow."""

    text: str
    help: str = ""
    open: bool = False


@dataclass(frozen=True)
class _Place:
    """A place in a spec: what may stand there, and what does, where anything does."""

    defs: dict[str, Schema]
    schemas: tuple[Schema, ...]
    node: Node | None
    own: tuple[Schema, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "own", tuple(s for each in self.schemas for s in self._opened(each)))

    def _opened(self, found: Schema) -> Iterator[Schema]:
        """A schema and those that it refers to, of components only the kind that stands here."""
        if "$ref" in found:
            yield from self._opened(self.defs[found["$ref"].rpartition("/")[2]])
            return
        yield found
        for option in [*found.get("anyOf", ()), *(found[word] for word in ("then", "else") if word in found)]:
            yield from self._opened(option)
        for case in found.get("allOf", ()):
            kind = case["if"].get("properties", {}).get("kind", {}).get("const")
            if kind is not None and kind == self.kind:
                yield from self._opened(case["then"])

    @property
    def kind(self) -> Any:
        """The kind of the component that stands here."""
        kind = None if self.node is None else self.node.fields.get("kind")
        return None if kind is None else kind.value

    def children(self) -> dict[str, "_Place"]:
        """The fields that this place has or may have: first those that are written."""
        found: dict[str, list[Schema]] = {}
        written = {} if self.node is None else self.node.fields
        for name in written:
            found[name] = [s["additionalProperties"] for s in self.own if s.get("additionalProperties")]
        for each in self.own:
            for name, value in each.get("properties", {}).items():
                found.setdefault(name, []).append(value)
        return {name: _Place(self.defs, tuple(s), written.get(name)) for name, s in found.items()}

    def items(self) -> list["_Place"]:
        """The places in a list that stands here."""
        nodes = self.node.value if self.node is not None and isinstance(self.node.value, list) else []
        schemas = tuple(each["items"] for each in self.own if "items" in each)
        return [_Place(self.defs, schemas, node) for node in nodes]

    @property
    def help(self) -> str:
        """What it means."""
        return next((str(s["description"]) for s in (*self.schemas, *self.own) if "description" in s), "")

    @property
    def may_hold_fields(self) -> bool:
        """Whether a path may go on below this place: where fields stand, or nothing does but they might."""
        if self.node is not None and self.node.value is not None:
            return isinstance(self.node.value, dict)
        return any("properties" in each and "of" not in each["properties"] for each in self.own)  # not of a number

    def values(self) -> Iterator[str]:
        """The values that it may have, where they can be listed."""
        for each in self.own:
            known = each.get("enum", [True, False] if each.get("type") == "boolean" else [])
            yield from ("null" if v is None else str(v).lower() if isinstance(v, bool) else str(v) for v in known)


def offers(begun: str, spec: str | None) -> list[Offer]:
    """What may follow the beginning of a setting, for the spec of that name (or any spec, where there is none)."""
    whole = schema()
    root = _Place(whole["$defs"], (whole,), _document(spec))
    path, equals, value = begun.partition("=")
    if equals:
        place = _found(root, path)
        values = [] if place is None else [*dict.fromkeys(place.values())]
        return [Offer(f"{path}={text}") for text in values if text.startswith(value)]
    before = path[: path.rfind(".") + 1]
    place = _found(root, before)
    return [] if place is None else [o for o in _below(place, before) if o.text.startswith(path)]


def _document(spec: str | None) -> Node | None:
    """What a spec says, those that it extends included; nothing where it cannot be read."""
    if spec is None:
        return None
    try:
        return read_extended(Path(spec), spec)[0]
    except SpecError:
        return None


def _found(root: _Place, path: str) -> _Place | None:
    """The place of a path, or None where there can be none."""
    place: _Place | None = root
    for name, index in _STEP.findall(path):
        if place is None:
            break
        items = place.items() if index else []
        place = place.children().get(name) if name else items[int(index)] if int(index) < len(items) else None
    return place


def _below(place: _Place, before: str) -> Iterator[Offer]:
    """The paths that go on below a place, of lists each item."""
    for name, child in place.children().items():
        if name not in NOT_SET or (before and name != REPLACE):
            yield from _ways(child, f"{before}{name}")


def _ways(place: _Place, path: str) -> Iterator[Offer]:
    """How a path may go on at a place: with a value, a field or an index."""
    items = place.items()
    for i, item in enumerate(items):
        yield from _ways(item, f"{path}[{i}]")
    if place.may_hold_fields:
        yield Offer(f"{path}.", place.help, open=True)
    if not items and (place.node is None or not isinstance(place.node.value, dict)):
        yield Offer(f"{path}=", place.help, open=True)
