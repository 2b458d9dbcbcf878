"""What surrounds a component: sizes that its arithmetic may name, and defaults that it inherits."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from archspec.errors import Fault, suggest
from archspec.language.arithmetic import evaluate
from archspec.language.rules import Rule, empty, must_be, shown
from archspec.language.topics import see
from archspec.language.tree import Node, clipped

Value = int | float | Fraction
Lookup = Callable[[str], Value]
_NAME = re.compile(r"(?<![\w.])[A-Za-z_]\w*")
BRACES = f"a size in braces is {{of: 8/3 * d_model, multiple_of: 256}}: arithmetic and a whole number{see('sizes')}"


@dataclass(frozen=True)
class Scope:
    """What surrounds a component.

    Attributes:
        numbers: sizes by name.
        defaults: values that components inherit, such as the norm and the dropout.
        norm: the settings that the surrounding norms wrote down, which a norm of another kind takes if it has them.
        broken: sizes that are there but wrong, which was told already.
        origins: where each default, and each size but the named ones, was set, as a path.
    """

    numbers: Mapping[str, Value] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    broken: frozenset[str] = frozenset()
    origins: Mapping[str, str] = field(default_factory=dict)
    norm: Mapping[str, Any] = field(default_factory=dict)

    def with_numbers(self, more: Mapping[str, Value], broken: Collection[str] = ()) -> "Scope":
        """The same scope with more sizes, which hide those of the same name; `broken` ones are wrong."""
        return replace(self, numbers={**self.numbers, **more}, broken=(self.broken - more.keys()).union(broken))

    def with_defaults(self, more: Mapping[str, Any], origins: Mapping[str, str]) -> "Scope":
        """The same scope with other defaults, and where they are set."""
        return replace(self, defaults={**self.defaults, **more}, origins={**self.origins, **origins})

    def __contains__(self, name: str) -> bool:
        return name in self.numbers or name in self.broken


class Silent(Fault):
    """Something could not be computed because of a mistake that is told already."""

    def __init__(self) -> None:
        super().__init__("")


class UnknownSize(Fault):
    """Arithmetic names a size that nobody knows."""

    def __init__(self, name: str, known: Collection[str]):
        self.name, self.known = name, known
        super().__init__(f"{self.unknown}{suggest(name, known)}")

    @property
    def unknown(self) -> str:
        """The fact without advice."""
        return f"no size {clipped(self.name)!r} is known here"

    @property
    def near(self) -> str:
        """The size that was probably meant, as advice; nothing where there is none."""
        advice = suggest(self.name, self.known)
        return advice if advice.startswith("; did you mean") else ""


def number(name: str, node: Node, rule: Rule, lookup: Lookup, exact: bool = False) -> Value | None:
    """The number that a node gives: written out, as arithmetic on sizes, or in braces; raises Fault for what is none.

    `lookup` gives the sizes by name; with `exact` fractions stay fractions.
    """
    value: Any = node.value
    if isinstance(value, str) and not empty(node):
        if value == "none" and rule.nullable:
            return None
        try:
            return computed(name, value, rule, lookup, exact)
        except UnknownSize as fault:
            if fault.name != value.strip():
                raise
            raise Fault(f"{must_be(name, node, rule.wanted())}; {fault.unknown}{fault.near}") from None
    if isinstance(value, dict):
        return computed(name, _of_braces(node), rule, lookup, exact)
    if rule.number is int and isinstance(value, float) and value.is_integer():  # 1e3, as arithmetic has it
        value = int(value)
    if not rule.holds(value):
        raise Fault(must_be(name, node, rule.wanted(value)))
    return value


def computed(name: str, formula: str, rule: Rule, lookup: Lookup, exact: bool = False, given: bool = True) -> Value:
    """The value of a formula as the rule's type; a size that is not whole is a Fault that shows the arithmetic.

    `given` says whether the spec wrote the formula, which is else the default of a field that it may well set.
    """
    read: dict[str, Value] = {}
    value = evaluate(formula, lambda size: read.setdefault(size, lookup(size)))
    if rule.number is int and not isinstance(value, int):
        if isinstance(value, Fraction) or not value.is_integer():
            said = " = ".join(dict.fromkeys((name, formula, _with_values(formula, read), f"{float(value):.6g}")))
            wish = "choose sizes that divide, or round it" if given else f"give {name}, or choose sizes that divide"
            raise Fault(f"{said} is not a whole number; {wish}")
        value = int(value)
    elif rule.number is float and not exact:
        value = float(value)
    if not rule.holds(float(value) if isinstance(value, Fraction) else value):
        result = "" if formula.strip() == shown(value) else f" = {shown(value)}"
        raise Fault(f"{name} = {formula}{result} must be {rule.wanted(value)}")
    return value


def _with_values(formula: str, read: Mapping[str, Value]) -> str:
    """A formula with the values of its names: `d_model / n_heads` as `1024 / 12`."""
    return _NAME.sub(lambda name: str(read.get(name[0], name[0])), formula)


def _of_braces(node: Node) -> str:
    """`{of: 8/3 * d_model, multiple_of: 256}` as arithmetic."""
    parts = {key: child.value for key, child in node.fields.items()}
    wrong = any(isinstance(v, bool) or not isinstance(v, int | float | str) or v == "" for v in parts.values())
    if wrong or set(parts) not in ({"of"}, {"of", "multiple_of"}):
        raise Fault(BRACES)
    return f"round_up({parts['of']}, {parts['multiple_of']})" if "multiple_of" in parts else str(parts["of"])
