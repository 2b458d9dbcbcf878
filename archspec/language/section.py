"""A section of a spec (its top, a stack, a block): its fields, the defaults that it gives, where mistakes are told."""

import re
from collections.abc import Collection
from dataclasses import replace
from typing import TypeVar

from archspec.errors import Fault, suggest
from archspec.language.problems import join
from archspec.language.resolve import Resolver
from archspec.language.rules import empty, must_be, shown
from archspec.language.scope import Scope
from archspec.language.topics import see
from archspec.language.tree import Node
from archspec.language.wiring import Wiring, parse_wiring
from archspec.language.wirings import BUILTINS
from archspec.layers.base import Component, NormComponent

C = TypeVar("C", bound=Component)


class Section:
    """A mapping of the spec on its way to what it means; `scope` is what surrounds what is in it."""

    def __init__(self, resolver: Resolver, node: Node, path: str, scope: Scope):
        self.resolver, self.node, self.path, self.scope = resolver, node, path, scope
        self.problems = resolver.problems
        self.fields = node.fields

    def tell(self, key: str, message: str, at: Node | None = None) -> None:
        """Remember a mistake at one of the keys, or at the whole where that is not there."""
        self.problems.tell(at or self.fields.get(key, self.node), join(self.path, key), message)

    def component(
        self, cls: type[C], key: str, node: Node | None = None, base: C | None = None, scope: Scope | None = None
    ) -> C | None:
        """The component of a class's role at one of the keys; `node` and `scope` where they are not this section's."""
        node, path = node or self.fields[key], join(self.path, key)
        found = self.resolver.component(cls.role, node, path, scope or self.scope, base)
        assert found is None or isinstance(found, cls)
        return found

    def take_defaults(self, keys: Collection[str]) -> None:
        """The defaults that this section gives to what is in it."""
        found: dict[str, object] = {}
        for key in [key for key in keys if key in self.fields]:
            node = self.fields[key]
            if key == "norm":
                before = self.scope.defaults[key]
                found[key] = norm = self.component(NormComponent, key, base=before) or before
                written = {name: getattr(norm, name, None) for name in node.fields if name != "kind"}
                self.scope = replace(self.scope, norm={**self.scope.norm, **written})
            elif key == "wiring":
                found[key] = node if self.wiring(node) is not None else None
            elif (value := self.resolver.plain(key, node, self.path)) is not None or key == "dropout":
                found[key] = value or 0.0
        self.scope = self.scope.with_defaults(found, {key: join(self.path, key) for key in found})

    def wiring(self, node: Node) -> Wiring | str | None:
        """A wiring that is written out, or the name of a built-in one; None where it is neither."""
        try:
            return read_wiring(node)
        except Fault as fault:
            self.tell_wiring(str(fault))
            return None

    def tell_wiring(self, message: str) -> None:
        """Remember a mistake of the wiring, at the very line that it is about where that is known."""
        self.tell("wiring", message, self._line(message))

    def warn_wiring(self, message: str) -> None:
        """Keep a warning about the wiring, at the very line."""
        self.problems.warn(self._line(message), join(self.path, "wiring"), message)

    def _line(self, message: str) -> Node:
        """The line of the wiring that a message is about, or all of it."""
        node = self.fields.get("wiring", self.node)
        line = re.match(r"line (\d+)\b", message)
        lines = node.value if isinstance(node.value, list) else []
        return lines[int(line[1]) - 1] if line and lines else node


def read_wiring(node: Node) -> Wiring | str:
    """A wiring that is written out, or the name of a built-in one; raises Fault for what is neither."""
    lines = node.value
    if isinstance(lines, list):
        texts = [child.value for child in lines]
        if not all(isinstance(text, str) for text in texts):
            raise Fault("each line of a wiring is text, such as x = x + mixer(norm1(x))")
        return parse_wiring([str(text) for text in texts])
    if not isinstance(lines, str) or empty(node):
        raise Fault(must_be("wiring", node, "the name of a wiring, or lines such as x = x + mixer(norm1(x))"))
    if "=" in lines:
        return parse_wiring([line for line in lines.splitlines() if line.strip()])
    if lines.strip() not in BUILTINS:
        raise Fault(f"no wiring {shown(node)}{suggest(lines[:60], BUILTINS)}{see('wiring')}")
    return lines.strip()
