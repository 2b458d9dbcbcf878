"""The sizes that the top of a spec, or a stack, gives: numbers, or arithmetic on one another."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from archspec.errors import Fault
from archspec.language.arithmetic import FUNCTIONS
from archspec.language.document import PLAIN, SIZES
from archspec.language.names import bad_size_name
from archspec.language.problems import join
from archspec.language.resolve import Resolver
from archspec.language.scope import Scope, Silent, UnknownSize, Value, number
from archspec.language.tree import Node, clipped

MOST_STEPS = 50
# what the compiler itself puts into a scope
COMPUTED = ("layer", "n_layers", "n_branches", "d_memory", "d_embedding")


def with_sizes(resolver: Resolver, node: Node, path: str, outer: Scope, lost: set[str]) -> Scope:
    """The scope with the sizes that a mapping gives.

    Args:
        resolver: keeps the problems.
        node: the top of a spec, or a stack.
        path: where it is, for messages.
        outer: the scope around it.
        lost: sizes that are missing because of a mistake that is told already.
    """
    raw = {k: (node.fields[k], join(path, k)) for k in SIZES if k in node.fields}
    origins = {name: where for name, (_, where) in raw.items()}
    named = node.fields.get("sizes")
    for name, child in resolver.problems.mapping(named, join(path, "sizes"), "names to sizes").items():
        where = f"{join(path, 'sizes')}.{clipped(name)}"
        if wrong := bad_size_name(name, {*SIZES, *COMPUTED, *FUNCTIONS}):
            assert named is not None
            resolver.problems.tell(named.key_mark(name), where, f"{clipped(name)!r} {wrong}")
        else:
            raw[name] = (child, where)
    found = _Sizes(resolver, raw, outer).all()
    scope = outer.with_numbers(found, {*raw, *lost} - found.keys())
    return replace(scope, origins={**outer.origins, **origins})


class _Sizes:
    """Sizes that may refer to one another."""

    def __init__(self, resolver: Resolver, raw: Mapping[str, tuple[Node, str]], outer: Scope):
        self.resolver, self.raw, self.outer = resolver, raw, outer
        self.found: dict[str, Value] = {}
        self.pending: list[str] = []
        self.failed: set[str] = set()

    def all(self) -> dict[str, Value]:
        """Every size that could be computed."""
        for name in self.raw:
            with suppress(Fault):  # kept as a problem already
                self.size(name)
        return self.found

    def read(self, name: str) -> Value:
        """A size that arithmetic names; raises Fault where there is none."""
        if name not in self.raw:
            if name not in self.outer:
                raise UnknownSize(name, {*self.raw, *self.outer.numbers} - set(self.pending))
            return self.resolver.size(self.outer, name)
        self.resolver.read.add(name)
        self.resolver.reached.add(self.raw[name][1])
        return self.size(name)

    def size(self, name: str) -> Value:
        """One size, by name."""
        if name in self.failed:
            raise Silent
        if name in self.pending:
            raise Fault(f"depends on itself: {' -> '.join([*self.pending[self.pending.index(name) :], name])}")
        if len(self.pending) >= MOST_STEPS:
            raise Fault(f"more than {MOST_STEPS} sizes depend on one another in a row")
        if name not in self.found:
            self.pending.append(name)
            try:
                self.found[name] = self._computed(name)
            finally:
                self.pending.pop()
        return self.found[name]

    def _computed(self, name: str) -> Value:
        node, path = self.raw[name]
        try:
            value = number(name, node, PLAIN[name if name in SIZES else "size"], self.read, exact=True)
        except Fault as fault:
            self.failed.add(name)
            if str(fault):
                self.resolver.problems.tell(node, path, str(fault))
            raise Silent from None
        assert value is not None
        return value
