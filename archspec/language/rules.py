"""What a field accepts, read from the one place that decides it: pydantic's own schema of the field.

pydantic checks. Ours is to say in words what would have been right, and to know which fields hold a number, so that
arithmetic may stand there.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import SchemaValidator

from archspec.language.tree import LONGEST_SHOWN, Node
from archspec.layers.fields import LARGEST, extra

SIGNS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
NOUNS = {"bool": "true or false", "str": "text", "int": "a whole number", "float": "a number", "tuple": "a list"}


@dataclass(frozen=True, eq=False)
class Rule:
    """What one field accepts.

    Attributes:
        name: of the field.
        info: what was declared.
        marks: what `field`, `derived`, `inherited` and `slot` wrote down about it.
        core: pydantic's schema of its values other than None.
        nullable: whether None is one of them.
        holds: whether a value is one that it may have.
        number: int or float when it holds a number, else None.
    """

    name: str
    info: FieldInfo
    marks: Mapping[str, Any]
    core: Mapping[str, Any]
    nullable: bool
    holds: Callable[[Any], bool]
    number: type | None

    def wanted(self, value: Any = None) -> str:
        """In words, what is accepted; that sizes have a limit is said only of a value that is beyond it."""
        return _words(self.core, value) + (" or none" if self.nullable else "")


def _words(core: Mapping[str, Any], value: Any) -> str:
    if core["type"] == "literal":
        return f"one of {', '.join(map(str, core['expected']))}"
    if core["type"] == "tuple":
        return f"a list, each {_words(core['items_schema'][0], None).removeprefix('a ')}"
    beyond = isinstance(value, int | float) and LARGEST < abs(value) < math.inf
    bounds = [f"{word} {core[sign]}" for sign, word in SIGNS.items() if sign in core]
    said = [bound for bound in bounds if beyond or not bound.endswith(str(LARGEST))]
    return " ".join([NOUNS.get(core["type"], "a component"), *([" and ".join(said)] if said else [])])


@cache
def rules(cls: type[BaseModel]) -> Mapping[str, Rule]:
    """The rules of a class's fields, by name and in order."""
    cls.model_rebuild()  # classes are built when they are first needed
    core: Any = cls.__pydantic_core_schema__
    while core["type"] != "model-fields":
        core = core["schema"]
    return {name: rule_of(name, part["schema"], cls.model_fields[name]) for name, part in core["fields"].items()}


def rule_of(name: str, whole: Any, info: FieldInfo | None = None) -> Rule:
    """The rule of a value by pydantic's schema of it."""
    info = info or FieldInfo()
    core, nullable, marks = whole, False, extra(info)
    while core["type"] in ("default", "nullable"):
        nullable = nullable or core["type"] == "nullable"
        core = core["schema"]
    holds = _anything if "slot" in marks else SchemaValidator(whole, {"strict": True}).isinstance_python
    return Rule(name, info, marks, core, nullable, holds, {"int": int, "float": float}.get(core["type"]))


def _anything(value: Any) -> bool:
    return True


@cache
def settable(cls: type[BaseModel]) -> tuple[str, ...]:
    """The fields of a component that a spec may set."""
    return tuple(name for name, info in cls.model_fields.items() if not extra(info).get("inherited"))


def must_be(name: str, node: Node, what: str) -> str:
    """`n_heads = 4.5 must be a whole number above 0`."""
    return f"{name} is empty; it must be {what}" if empty(node) else f"{name} = {shown(node)} must be {what}"


def empty(node: Node) -> bool:
    """Whether nothing was written."""
    return node.value is None or (isinstance(node.value, str) and not node.value.strip())


def shown(value: Any) -> str:
    """A value as a spec would spell it, cut where it is long."""
    plain = value.plain() if isinstance(value, Node) else value
    text = repr(plain)
    if plain is None or isinstance(plain, bool):
        text = str(plain).lower()
    elif isinstance(plain, float) and not math.isfinite(plain):
        text = {"nan": ".nan", "inf": ".inf", "-inf": "-.inf"}[text]
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 3]}..."
