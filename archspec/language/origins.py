"""Where the values of a resolved spec came from: written down, a default, a formula, or what surrounds them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from archspec.language.tree import Node


@dataclass(frozen=True, slots=True)
class Origin:
    """How a value came about (given, default, formula, inherited), and by what: a place, a formula, a key."""

    how: str
    what: str = ""


DEFAULT = Origin("default")


def given(node: Node, value: object) -> Origin:
    """The origin of a value that stands in the spec; arithmetic is said beside its place."""
    text = node.value if isinstance(node.value, str) else None
    place = str(node.mark)
    return Origin("given", place if text is None or text == value or value is None else f"{place}: {text}")


class Origins:
    """The origins of the fields of components and blocks, which are known by identity, and of single places by path."""

    def __init__(self) -> None:
        self.noted: list[tuple[object, Mapping[str, Origin]]] = []
        self.places: dict[str, Origin] = {}
        self._by_id: dict[int, Mapping[str, Origin]] = {}

    def note(self, thing: object, origins: Mapping[str, Origin]) -> None:
        """Keep those of one component or block."""
        self.noted.append((thing, origins))
        self._by_id[id(thing)] = origins

    def of(self, thing: object) -> Mapping[str, Origin]:
        """Those of a component or block, by field; none where nothing was noted."""
        return self._by_id.get(id(thing), {})

    def __getstate__(self) -> dict[str, Any]:
        return {"noted": self.noted, "places": self.places}  # things have other identities in another process

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.noted, self.places = state["noted"], state["places"]
        self._by_id = {id(thing): origins for thing, origins in self.noted}
