"""Field by field, the JSON Schema refuses what validation refuses and takes what it takes, wherever it can say it.

It cannot say that 1.0 is no whole number, that a number is not finite, what arithmetic comes to, and, of a mapping that
changes another, what that other one says.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from annotated_types import Ge, Gt, Le, Lt
from jsonschema import Draft202012Validator

from archspec.errors import Mark, SpecError
from archspec.language.document import PLAIN, SIZES
from archspec.language.load import load
from archspec.language.resolve import Resolver
from archspec.language.rules import Rule, rules, settable
from archspec.language.schema import schema
from archspec.language.scope import Scope
from archspec.language.tree import from_plain
from archspec.layers.registry import DECLARED, everything, find

SCHEMA = schema()
PLACE = Mark("f")
SURROUNDINGS = {"d_model": 64, "vocab_size": 128, "max_seq_len": 32, "n_layers": 2, "n_branches": 4, "d_embedding": 64}
KINDS = [(role, kind) for role, kinds in everything(DECLARED).items() for kind in kinds]
JUNK: tuple[Any, ...] = (None, False, True, "a; b", [], [None], {"a": 1}, -1, 0, 1.5)


def told(role: str, mapping: dict[str, Any], name: str) -> bool:
    """Whether validation tells a mistake of one field of a component."""
    resolver = Resolver()
    norm = resolver.component("norm", from_plain("rmsnorm", PLACE), "norm", Scope(SURROUNDINGS))
    resolver.component(role, from_plain(mapping, PLACE), role, Scope(SURROUNDINGS, {"norm": norm}))
    return any(p.path == f"{role}.{name}" or p.path.startswith(f"{role}.{name}.") for p in resolver.problems)


def refused(role: str, mapping: dict[str, Any]) -> bool:
    validator = Draft202012Validator({"$defs": SCHEMA["$defs"], "$ref": f"#/$defs/{role}"})
    return not validator.is_valid(mapping)


def boundary(core: Mapping[str, Any]) -> Iterator[Any]:
    """Numbers below, at and above each bound in pydantic's schema of a field, its choices, and lists of such."""
    step = 1 if core["type"] == "int" else 1e-3
    for bound in [core[sign] for sign in ("gt", "ge", "lt", "le") if sign in core]:
        yield from (bound - step, bound, bound + step)
    yield from core.get("expected", ())
    yield from ([2.5, value] for inner in core.get("items_schema", ()) for value in (*boundary(inner), 2.5, True))


def values(rule: Rule) -> Iterator[Any]:
    yield from JUNK
    yield from boundary(rule.core)
    if rule.nullable or not rule.number:  # elsewhere it may be the name of a size
        yield "none"
    if not rule.info.is_required():
        default = rule.info.default
        yield list(default) if isinstance(default, tuple) else default
    if "slot" in rule.marks:
        yield from ({"kind": "unheard of"}, "unheard of")


def depended_on(rule: Rule, cls: type[Any], acting: bool) -> dict[str, Any]:
    """The field on which this one depends, with a value that lets it act, or one that does not."""
    if "when" not in rule.marks:
        return {}
    name, *wanted = rule.marks["when"]
    other = rules(cls)[name]
    choices = list(other.core.get("expected", (True, False)))
    if other.number:
        return {name: 2 if acting else None if other.nullable else 0}
    return {name: next(c for c in choices if (c in (wanted or [True])) == acting)}


@pytest.mark.parametrize(("role", "kind"), KINDS, ids=[".".join(k) for k in KINDS])
def test_schema_and_validation_agree_on_every_field(role: str, kind: str) -> None:
    cls = find(role, kind)
    wrong = []
    for name in settable(cls):
        rule = rules(cls)[name]
        for acting in (True, False) if "when" in rule.marks else (True,):
            for value in [] if name == "kind" else values(rule):
                mapping = {"kind": kind, **depended_on(rule, cls, acting), name: value}
                if refused(role, mapping) != told(role, mapping, name):
                    wrong.append(f"{mapping}: {'validation' if refused(role, mapping) else 'the schema'} takes it")
    assert not wrong, "\n".join(wrong)


def test_validation_refuses_fields_by_their_bounds_at_all() -> None:
    """The measure itself: both answers occur, and for the field that is meant."""
    assert told("mixer", {"kind": "attention", "n_heads": 0}, "n_heads")
    assert not told("mixer", {"kind": "attention", "n_heads": 0}, "window")
    assert refused("mixer", {"kind": "attention", "n_heads": 0})
    assert not refused("mixer", {"kind": "attention", "n_heads": 4})
    assert told("mixer", {"kind": "attention", "n_heads": 4, "qk_norm": "none", "norm": "layernorm"}, "norm")


@pytest.mark.parametrize(("role", "kind"), KINDS, ids=[".".join(k) for k in KINDS])
def test_no_declared_bound_is_lost(role: str, kind: str) -> None:
    """pydantic lets the bound of a type hide that of its field, as in `depth: Size = field(..., le=1024)`."""
    for rule in rules(find(role, kind)).values():
        declared = [m for part in rule.info.metadata for m in getattr(part, "metadata", None) or [part]]
        for bound in [m for m in declared if isinstance(m, Gt | Ge | Lt | Le)]:
            sign = type(bound).__name__.lower()
            assert rule.core[sign] == getattr(bound, sign), f"{rule.name}: {bound}"


@pytest.mark.parametrize("key", [*SIZES, "dropout", "mask"])
def test_schema_and_validation_agree_on_the_top(key: str) -> None:
    mixer = {"kind": "attention", "n_heads": 1, "position": "none"}
    validator = Draft202012Validator(SCHEMA)
    for value in [v for v in (*JUNK, *boundary(PLAIN[key].core)) if v is not None]:  # null is as if it were not there
        document = {"d_model": 4, "vocab_size": 8, "head": "lm", "blocks": [{"mixer": mixer}], key: value}
        message = ""
        try:
            load(document)
        except SpecError as error:
            message = str(error)
        assert (f"{key} = " in message or f" {key}: " in message) != validator.is_valid(document), (value, message)
