"""`gives` and `reads` of a block: values that a layer hands to later ones, and where they go.

gives: {k: mixer.keys, v: mixer.values}      # what a part computes on its way, under names of the spec's own
reads: {mixer.keys: k, mixer.values: v}      # in place of what the part would compute itself
gives: [h]                                   # a value that a line of the wiring assigns
reads: [h]                                   # a value that lines of the wiring may name
"""

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from archspec.errors import suggest
from archspec.language.names import bad_argument
from archspec.language.problems import Problems
from archspec.language.topics import see
from archspec.language.tree import Node, clipped
from archspec.layers.arguments import ARGUMENTS
from archspec.layers.base import Component

MOST = 32  # values that one layer gives or reads


class Link(NamedTuple):
    """A value that goes from layer to layer under `name`: a port of a part, or, without a part, one of the wiring."""

    name: str
    part: str
    port: str

    @property
    def inside(self) -> str:
        """What it is in its block, as a spec spells it."""
        return f"{self.part}.{self.port}" if self.part else self.port


class Links:
    """The `gives` or the `reads` of one block on their way."""

    def __init__(self, key: str, node: Node | None, path: str, problems: Problems):
        self.key, self.node, self.path, self.problems = key, node, f"{path}.{key}", problems
        self.at: dict[Link, Node] = {}
        for name, inside, where in self._written():
            self._add(name, inside, where)

    @property
    def links(self) -> tuple[Link, ...]:
        """All of them, in the order in which they are written."""
        return tuple(self.at)

    def ports(self, part: str) -> tuple[str, ...]:
        """What is given by, or read in, a part."""
        return tuple(sorted(link.port for link in self.at if link.part == part))

    def values(self) -> frozenset[str]:
        """What the wiring assigns, or may name."""
        return frozenset(link.port for link in self.at if not link.part)

    def check_parts(self, parts: Mapping[str, Component | None]) -> None:
        """Tell the parts and ports that there are not."""
        for link, where in self.at.items():
            part = parts.get(link.part)
            if not link.part or (link.part in parts and part is None):
                continue
            if part is None:
                known = suggest(link.part, [name for name in parts if not name.startswith("norm")])
                self.problems.tell(where, self.path, f"no part {clipped(link.part)!r} in this block{known}")
                continue
            ports = part.offers if self.key == "gives" else part.accepts
            if link.port not in ports:
                can = "gives" if self.key == "gives" else "reads"
                none = f"; {part.kind} {can} nothing here"
                known = suggest(link.port, ports) if ports else none
                self.problems.tell(where, self.path, f"{link.part} {can} no {clipped(link.port)!r}{known}")

    def check_values(self, assigned: Collection[str]) -> None:
        """Tell the values that no line of the wiring assigns."""
        for link, where in self.at.items():
            if not link.part and link.port not in assigned:
                known = suggest(link.port, assigned) if assigned else "; write the wiring out, and name one there"
                self.problems.tell(where, self.path, f"no line of the wiring assigns {clipped(link.port)!r}{known}")

    def _written(self) -> Iterator[tuple[str, str, Node]]:
        """Each name with what it is inside, and where that stands."""
        node = self.node
        if node is None or node.value is None:
            return
        example = "{k: mixer.keys}" if self.key == "gives" else "{mixer.keys: k}"
        wish = f"names of values of the wiring, as in [h], or {example}{see('between')}"
        if isinstance(node.value, list) and node.value:
            for child in node.value:
                if not isinstance(child.value, str):
                    self.problems.tell(child, self.path, f"must be {wish}, not {child.kind_name()}")
                else:
                    yield child.value, child.value, child
        elif isinstance(node.value, dict) and node.value:
            for key, child in node.fields.items():
                if not isinstance(child.value, str):
                    self.problems.tell(child, f"{self.path}.{clipped(key)}", f"must be text, not {child.kind_name()}")
                elif self.key == "gives":
                    yield key, child.value, child
                else:
                    yield child.value, key, child
        else:
            self.problems.tell(node, self.path, f"must be {wish}, not {node.kind_name()}")

    def _add(self, name: str, inside: str, where: Node) -> None:
        part, _, port = inside.rpartition(".")
        wrong = bad_argument(name) or ("is an argument of layers; choose another" if name in ARGUMENTS else "")
        if wrong:
            self.problems.tell(where, self.path, f"{clipped(name)!r} {wrong}")
        elif not part and self.key == "reads" and inside != name:
            message = f"the wiring knows a value by its name, {clipped(name)!r}; write `reads: [{clipped(name)}]`"
            self.problems.tell(where, self.path, message)
        elif any((link.part, link.port) == (part, port) for link in self.at) or (
            self.key == "gives" and any(link.name == name for link in self.at)
        ):
            self.problems.tell(where, self.path, f"{clipped(inside)} stands here twice")
        elif len(self.at) >= MOST:
            self.problems.tell(where, self.path, f"at most {MOST} values are allowed")
        else:
            self.at[Link(name, part, port)] = where
