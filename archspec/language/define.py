"""The named blocks of a spec, with `extends` between them resolved."""

import re

from archspec.errors import Problem, suggest
from archspec.language.blocks import Place
from archspec.language.keys import bad_block_name, clipped
from archspec.language.source import Node, merge
from archspec.language.values import shown

MOST_EXTENDS = 16


def definitions(node: Node | None, problems: list[Problem]) -> dict[str, Place]:
    """The named blocks; one that is wrong is there as a broken place, so that its name is known."""
    if node is None:
        return {}
    if not isinstance(node.value, dict):
        problems.append(Problem(node.mark, "define", f"must map names to blocks, not {node.kind_name()}"))
        return {}
    bodies = _Bodies(node.value, problems)
    found: dict[str, Place] = {}
    for name, body in node.value.items():
        path = f"define.{clipped(name)}"
        if wrong := bad_block_name(name):
            problems.append(Problem(node.keys.get(name, body.mark), path, f"{clipped(name)!r} {wrong}"))
        merged = bodies.whole(name)
        if not re.fullmatch(r"x\d+", name):  # which a pattern could not tell from a repeat
            found[name] = Place(merged or body, path, name, broken=merged is None or bool(wrong))
    return found


class _Bodies:
    """Blocks by name, each over the one that it extends."""

    def __init__(self, bodies: dict[str, Node], problems: list[Problem]):
        self.bodies, self.problems = bodies, problems
        self.done: dict[str, Node | None] = {}

    def whole(self, name: str) -> Node | None:
        """The block with all that it extends merged in, or None when something is wrong with either."""
        chain: list[str] = []
        here: str | None = name
        while here is not None and here not in self.done:
            chain.append(here)
            here = self._base(chain)
        for at in reversed(chain):
            if at not in self.done:
                self.done[at] = self._over(at)
        return self.done[name]

    def _base(self, chain: list[str]) -> str | None:
        """The name that the last block of a chain extends, if any; what is wrong ends the chain."""
        name = chain[-1]
        body = self.bodies[name]
        if not isinstance(body.value, dict):
            self._refuse(name, body, "", f"must be a block (mixer, ffn, ...), not {body.kind_name()}")
            return None
        base = body.value.get("extends")
        if base is None:
            return None
        if not isinstance(base.value, str) or base.value not in self.bodies:
            others = self.bodies.keys() - {name}
            message = f"no block {shown(base)} is defined{suggest(str(base.value), others)}"
            self._refuse(name, base, ".extends", message)
        elif base.value in chain:
            circle = " -> ".join([*chain[chain.index(base.value) :], base.value])
            self._refuse(name, base, ".extends", f"the blocks extend one another in a circle: {circle}")
        elif len(chain) > MOST_EXTENDS:
            self._refuse(name, base, ".extends", f"more than {MOST_EXTENDS} blocks extend one another")
        else:
            return base.value
        return None

    def _refuse(self, name: str, node: Node, path: str, message: str) -> None:
        self.problems.append(Problem(node.mark, f"define.{clipped(name)}{path}", message))
        self.done[name] = None

    def _over(self, name: str) -> Node | None:
        body = self.bodies[name]
        assert isinstance(body.value, dict)
        base = body.value.get("extends")
        if base is None:
            return body
        parent = self.done[str(base.value)]
        keys = {k: m for k, m in body.keys.items() if k != "extends"}
        own = Node({k: v for k, v in body.value.items() if k != "extends"}, body.mark, keys)
        return None if parent is None else merge(parent, own)
