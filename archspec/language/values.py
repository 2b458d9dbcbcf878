"""What the fields of components accept, and how values and types are put into words."""

import math
import operator
from fractions import Fraction
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from archspec.errors import Fault
from archspec.language.source import Node
from archspec.layers.base import Component
from archspec.layers.fields import LARGEST, extra

Value = int | float | Fraction
LONGEST_SHOWN = 60
HOLDS = {Gt: operator.gt, Ge: operator.ge, Lt: operator.lt, Le: operator.le}
SIGNS = {Gt: "above", Ge: "at least", Lt: "below", Le: "at most"}


@cache
def numeric(cls: type[Component], name: str) -> type | None:
    """int or float when that field holds a number, else None."""
    info = cls.model_fields.get(name)
    if info is None:
        return None
    parts = set(bare(info.annotation)) - {NoneType}
    return int if parts == {int} else float if parts and parts <= {int, float} else None


@cache
def nullable(cls: type[Component], name: str) -> bool:
    """Whether the field may be None."""
    return NoneType in bare(cls.model_fields[name].annotation)


def bare(annotation: Any) -> tuple[Any, ...]:
    """The plain types of an annotation: Annotated is unwrapped and unions are taken apart."""
    if get_origin(annotation) in (Union, UnionType):
        return tuple(t for part in get_args(annotation) for t in bare(part))
    if hasattr(annotation, "__metadata__"):
        return bare(annotation.__origin__)
    return (annotation,)


def limits(info: FieldInfo) -> list[Any]:
    """The bounds of a numeric field, those inside Annotated and unions included."""
    found = list(info.metadata)
    for part in (info.annotation, *get_args(info.annotation)):
        for m in getattr(part, "__metadata__", ()):
            found += getattr(m, "metadata", None) or [m]
    return [b for b in found if isinstance(b, Gt | Ge | Lt | Le)]


@cache
def bounds(cls: type[Component], name: str) -> tuple[tuple[type, float], ...]:
    """The bounds of a numeric field as (kind, number)."""
    return tuple((type(b), getattr(b, type(b).__name__.lower())) for b in limits(cls.model_fields[name]))


def fits(cls: type[Component], name: str, value: Any) -> bool:
    """Whether a value is one that a numeric field may have."""
    if value is None:
        return nullable(cls, name)
    whole = numeric(cls, name) is int
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not finite(value):
        return False
    return all(HOLDS[kind](value, bound) for kind, bound in bounds(cls, name))


def finite(value: Any) -> bool:
    """Whether a value is a number, and neither infinite nor NaN."""
    return isinstance(value, Value) and not isinstance(value, bool) and -math.inf < value < math.inf


def wanted(info: FieldInfo, value: Any = None) -> str:
    """In words, what a field accepts; that sizes have a limit is said only of a value that is beyond it."""
    types = bare(info.annotation)
    or_none = " or none" if NoneType in types else ""
    words = [str(v) for t in types if get_origin(t) is Literal for v in get_args(t)]
    if words:
        return f"one of {', '.join(words)}{or_none}"
    if bool in types:
        return "true or false"
    if str in types:
        return f"text{or_none}"
    if any(t in (int, float) for t in types):
        return _number(info, value, "a number" if float in types else "a whole number") + or_none
    return f"a list{or_none}" if any(get_origin(t) is tuple for t in types) else f"a component{or_none}"


def _number(info: FieldInfo, value: Any, what: str) -> str:
    found = [(SIGNS[type(b)], getattr(b, type(b).__name__.lower())) for b in limits(info)]
    beyond = finite(value) and value > LARGEST
    said = [f"{sign} {bound}" for sign, bound in found if bound != LARGEST or beyond]
    return " ".join([what, *([" and ".join(said)] if said else [])])


def whole_number(value: Any) -> str:
    """What a size must be; the limit is named only where it was passed."""
    return f"a whole number above 0{f' and at most {LARGEST}' if finite(value) and value > LARGEST else ''}"


def must_be(name: str, node: Node, what: str) -> str:
    """`n_heads = 4.5 must be a whole number above 0`."""
    return f"{name} is empty; it must be {what}" if empty(node) else f"{name} = {shown(node)} must be {what}"


def empty(node: Node) -> bool:
    """Whether nothing was written."""
    return node.value is None or (isinstance(node.value, str) and not node.value.strip())


def size_formula(node: Node) -> str:
    """`{of: 8/3 * d_model, multiple_of: 256}` as arithmetic."""
    assert isinstance(node.value, dict)
    parts = {key: child.value for key, child in node.value.items()}
    wrong = any(isinstance(v, bool) or not isinstance(v, int | float | str) or v == "" for v in parts.values())
    if wrong or set(parts) not in ({"of"}, {"of", "multiple_of"}):
        raise Fault("a size in braces is {of: 8/3 * d_model, multiple_of: 256}: arithmetic and a whole number")
    return f"round_up({parts['of']}, {parts['multiple_of']})" if "multiple_of" in parts else str(parts["of"])


def fit(name: str, formula: str, value: Value, whole: bool) -> int | float:
    """The value as the field's type; a size that is not whole is a Fault that shows the arithmetic."""
    if not whole:
        return float(value)
    exact = Fraction(value)
    if exact.denominator != 1:
        got = f"{value.numerator}/{value.denominator}" if isinstance(value, Fraction) else repr(value)
        raise Fault(f"{name} = {formula} = {got} is not a whole number; choose sizes that divide, or round it")
    return int(value)


def freeze(value: Any) -> Any:
    """Lists as tuples, all the way down."""
    return tuple(map(freeze, value)) if isinstance(value, list) else value


@cache
def settable(cls: type[Component]) -> tuple[str, ...]:
    """The fields of a component that a spec may set."""
    return tuple(name for name, info in cls.model_fields.items() if not extra(info).get("inherited"))


def kind_of(cls: type[Component]) -> str:
    """The kind of a component, as a spec spells it."""
    return cls.__module__.rsplit(".", 1)[-1]


def article(role: str) -> str:
    """`an embedding`, `a mixer`."""
    word = role.replace("_", " ")
    return f"{'an' if word[0] in 'aeiou' or word == 'ffn' else 'a'} {word}"


def shown(value: Any) -> str:
    """A value as a spec would spell it, cut where it is long."""
    plain = value.plain() if isinstance(value, Node) else value
    text = repr(plain)
    if plain is None or isinstance(plain, bool):
        text = str(plain).lower()
    elif isinstance(plain, float) and not math.isfinite(plain):
        text = {"nan": ".nan", "inf": ".inf", "-inf": "-.inf"}[text]
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 3]}..."
