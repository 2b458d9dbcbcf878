"""The sizes that the top of a spec, or a stack, gives: numbers, or arithmetic on one another."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from archspec.errors import Fault
from archspec.language.arithmetic import FUNCTIONS, evaluate
from archspec.language.keys import bad_size_name, clipped
from archspec.language.resolve import Resolver
from archspec.language.scope import Scope, UnknownSize
from archspec.language.source import Node
from archspec.language.values import Value, empty, finite, fit, must_be, shown, size_formula, whole_number
from archspec.layers.fields import LARGEST

MOST_STEPS = 50
SIZES = ("d_model", "vocab_size", "max_seq_len")
COMPUTED = (
    "n_layers",
    "n_branches",
    "d_memory",
    "d_embedding",
)  # what the compiler itself puts into a scope


def with_sizes(resolver: Resolver, node: Node, path: str, outer: Scope, lost: set[str]) -> Scope:
    """The scope with the sizes that a mapping gives.

    Args:
        resolver: keeps the problems.
        node: the top of a spec, or a stack.
        path: what stands before a key of it in messages.
        outer: the scope around it.
        lost: sizes that are missing because of a mistake that is told already.
    """
    assert isinstance(node.value, dict)
    raw = {k: (node.value[k], f"{path}{k}") for k in SIZES if k in node.value}
    named = node.value.get("sizes")
    if named is not None and not isinstance(named.value, dict):
        resolver.problem(named.mark, f"{path}sizes", f"must map names to sizes, not {named.kind_name()}")
    elif named is not None and isinstance(named.value, dict):
        for name, child in named.value.items():
            where = f"{path}sizes.{clipped(name)}"
            if wrong := bad_size_name(name, {*SIZES, *COMPUTED, *FUNCTIONS}):
                resolver.problem(named.keys.get(name, child.mark), where, f"{clipped(name)!r} {wrong}")
            else:
                raw[name] = (child, where)
    work = _Sizes(resolver, raw, outer)
    found = work.all()
    scope = outer.with_numbers(found, {name for name in {*raw, *lost} if name not in found})
    return replace(scope, origins={**outer.origins, **{k: raw[k][1] for k in SIZES if k in raw}})


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
        """A size that arithmetic names."""
        self.resolver.read.add(name)
        self.resolver.reached.add(self.raw[name][1] if name in self.raw else self.outer.origins.get(name, ""))
        return self.size(name)

    def size(self, name: str) -> Value:
        """One size, by name; Fault when there is none."""
        if name in self.found:
            return self.found[name]
        if name not in self.raw:
            return self._outer(name)
        if name in self.failed:
            raise Fault("")
        if name in self.pending:
            circle = [*self.pending[self.pending.index(name) :], name]
            raise Fault(f"depends on itself: {' -> '.join(circle)}")
        if len(self.pending) >= MOST_STEPS:
            raise Fault(f"more than {MOST_STEPS} sizes depend on one another in a row")
        self.pending.append(name)
        try:
            self.found[name] = self._value(name, self.raw[name][0])
        except Fault as fault:
            self.failed.add(name)
            if str(fault):
                self.resolver.problem(self.raw[name][0].mark, self.raw[name][1], str(fault))
            raise Fault("") from None
        finally:
            self.pending.pop()
        return self.found[name]

    def _outer(self, name: str) -> Value:
        if name in self.outer.broken:
            raise Fault("")
        if name in self.outer.numbers:
            return self.outer.numbers[name]
        known = {*self.raw, *self.outer.numbers} - set(self.pending)
        raise UnknownSize(name, known)

    def _value(self, name: str, node: Node) -> Value:
        whole = name in SIZES
        formula = node.value if isinstance(node.value, str) and not empty(node) else ""
        if isinstance(node.value, dict):
            formula = size_formula(node)
        value: Any = self._computed(name, formula, whole) if formula else node.value
        if finite(value) and (isinstance(value, int) and 0 < value <= LARGEST if whole else abs(value) <= LARGEST):
            return value
        what = whole_number(value) if whole else f"a number, at most {LARGEST}, or arithmetic on sizes"
        raise Fault(f"{name} = {formula} = {shown(value)} must be {what}" if formula else must_be(name, node, what))

    def _computed(self, name: str, text: str, whole: bool) -> Value:
        try:
            value = evaluate(text, self.read)
        except UnknownSize as fault:
            if fault.name != text.strip():
                raise
            what = f"{whole_number(None) if whole else 'a number'}; no size {text!r} is known here{fault.near}"
            raise Fault(f"{name} = {shown(text)} must be {what}") from None
        return fit(name, text, value, True) if whole else value
