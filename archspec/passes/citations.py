"""Where a formula is from: what the rule of an op says of itself, and the sources that a component names."""

import re
import sys
from inspect import getdoc

from archspec.layers.base import Component
from archspec.layers.ops import Op

SOURCES = re.compile(r"^Sources?: (.*?)(?:\n\s*\n|\Z)", re.DOTALL | re.MULTILINE)


def rule_of(op: Op, name: str) -> str:
    """The first line of the docstring of a rule (`flops`, `steps`), after the class of ops that it is for."""
    rule = getattr(type(op), name)
    text = (getdoc(rule) or "").strip().partition("\n")[0]
    return f"{'other ops' if rule is getattr(Op, name) else type(op).__name__}: {text}"


def sources_of(c: Component) -> str:
    """The papers that a component's docstring names; nothing where it names none."""
    found = SOURCES.search(sys.modules[type(c).__module__].__doc__ or "")
    return " ".join(found[1].split()) if found else ""
