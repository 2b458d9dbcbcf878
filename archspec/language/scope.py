"""What surrounds a component: sizes that its arithmetic may name, and defaults that it inherits."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from archspec.errors import Fault, suggest
from archspec.language.keys import clipped
from archspec.language.values import Value


@dataclass(frozen=True)
class Scope:
    """What surrounds a component.

    Attributes:
        numbers: sizes by name.
        defaults: values that components inherit, such as the norm and the dropout.
        broken: sizes that are there but wrong, which was told already.
        origins: where each default, and each size but the named ones, was set, as a path.
    """

    numbers: Mapping[str, Value] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    broken: frozenset[str] = frozenset()
    origins: Mapping[str, str] = field(default_factory=dict)

    def with_numbers(self, more: Mapping[str, Value], broken: frozenset[str] | set[str] = frozenset()) -> "Scope":
        """The same scope with more sizes, which hide those of the same name; `broken` ones are wrong."""
        return replace(self, numbers={**self.numbers, **more}, broken=(self.broken - more.keys()) | broken)

    def with_defaults(self, more: Mapping[str, Any], path: str = "") -> "Scope":
        """The same scope with other defaults, which the mapping at `path` sets."""
        origins = {name: f"{path}{name}" for name in more}
        return replace(self, defaults={**self.defaults, **more}, origins={**self.origins, **origins})


class Silent(Fault):
    """Something could not be computed because of a mistake that is told already."""

    def __init__(self) -> None:
        super().__init__("")


class UnknownSize(Fault):
    """Arithmetic names a size that nobody knows."""

    def __init__(self, name: str, known: Collection[str]):
        advice = suggest(name, known)
        super().__init__(f"no size {clipped(name)!r} is known here{advice}")
        self.name = name
        self.near = advice if advice.startswith("; did you mean") else ""
