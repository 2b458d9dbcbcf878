"""The JSON Schema of the spec language, made from the components' own fields, for completion and checks in an editor.

It says what may stand where, and what it means. What must stand there, and whether sizes fit together, is said by
`validate`: a spec may extend another, and a block another block, so no single mapping need be whole.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from archspec.language.block import PART_ROLES
from archspec.language.document import BLOCK_KEYS, HEAD_KEYS, ITEM_KEYS, PLAIN, SIZES, STACK_KEYS, TOP_KEYS
from archspec.language.expect import ASKED, COSTS, KEYS, LIMITS
from archspec.language.rules import Rule, rules, settable
from archspec.language.streams_reader import KEYS as KEYS_OF_STREAMS
from archspec.language.tree import REPLACE
from archspec.language.wirings import BUILTINS
from archspec.layers.arguments import INPUTS
from archspec.layers.base import Component
from archspec.layers.registry import DECLARED, everything

Schema = dict[str, Any]

DRAFT = "https://json-schema.org/draft/2020-12/schema"
TYPES = {"bool": "boolean", "str": "string", "int": "integer", "float": "number"}
BOUNDS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}
ABSENT: Schema = {"enum": ["none", None, False]}
TEXT: Schema = {"type": "string"}
SWITCH: Schema = {"type": "boolean"}
NULL: Schema = {"type": "null"}
FORMULA = "arithmetic on named sizes: 8/3 * d_model"
ARITHMETIC: Schema = {"type": "string", "pattern": r"^[A-Za-z0-9_.+*/%(), \t-]+$", "description": FORMULA}
ROUNDED: Schema = {
    "type": "object",
    "description": "arithmetic, rounded up to a multiple",
    "properties": {
        "of": {"type": ["string", "number"], "description": FORMULA},
        "multiple_of": {"type": ["string", "integer"], "description": "what the result is rounded up to: 256"},
    },
    "required": ["of"],
    "additionalProperties": False,
}
REPLACES: Schema = {REPLACE: {**SWITCH, "description": "this mapping replaces the one that it extends"}}


def schema() -> Schema:
    """The JSON Schema (draft 2020-12) of a whole spec."""
    found = everything(DECLARED)
    defs: dict[str, Schema] = {"part": _choice({k: r for r in reversed(PART_ROLES) for k in found[r]}, PART_ROLES)}
    for role, kinds in found.items():
        defs[role] = _choice(dict.fromkeys(kinds, role), (role,))
        defs |= {f"{role}.{kind}": _component(kind, cls) for kind, cls in kinds.items()}
    defs |= {f"named_head.{kind}": _named_head(kind, cls) for kind, cls in found["head"].items()}
    defs["named_head"] = _choice(dict.fromkeys(found["head"], "named_head"), ("head",))
    defs |= {"stack": _mapping(STACK_KEYS, _stack_values()), "block": _mapping(BLOCK_KEYS, _block_values())}
    defs |= {"wiring": _wiring(), "override": _override(), "item": _item()}
    defs |= {"blocks": _unless(TEXT, _list(_ref("item")))}
    return {"$schema": DRAFT, "title": "archspec", **_mapping(TOP_KEYS, _top_values()), "$defs": defs}


def _mapping(keys: Mapping[str, str], values: Mapping[str, Schema]) -> Schema:
    """A mapping that may hold these keys and no others, each with its description."""
    described = {key: {**values[key], "description": text} for key, text in keys.items()}
    return {"type": "object", "properties": {**described, **REPLACES}, "additionalProperties": False}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _unless(words: Schema, otherwise: Schema) -> Schema:
    """One of a few words, or else what `otherwise` says: a mistake inside that is then told where it stands."""
    return {"if": words, "else": otherwise}


def _each(value: Schema) -> Schema:
    """A mapping whose keys are names of the spec's own."""
    return {"type": "object", "additionalProperties": value}


def _named() -> Schema:
    """Values between layers by name."""
    return {**_each({"type": "string"}), "minProperties": 1}


def _list(items: Schema) -> Schema:
    return {"type": "array", "minItems": 1, "items": items}


def _any(*options: Schema) -> Schema:
    return {"anyOf": list(options)}


# Components


def _choice(roles: Mapping[str, str], tried: Iterable[str]) -> Schema:
    """A component: the name of a kind, or a mapping whose `kind` says which fields it may have.

    A mapping without a kind changes the component that stands there already, so it may have the fields of any.
    """
    kinds = sorted(roles)
    cases = [
        {
            "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
            "then": _ref(f"{roles[kind]}.{kind}"),
        }
        for kind in kinds
    ]
    unsaid = {
        "if": {"not": {"required": ["kind"]}},
        "then": _any(*(_ref(f"{roles[kind]}.{kind}") for kind in kinds)),
    }
    mapping = {"type": "object", "properties": {"kind": {"enum": kinds}}, "allOf": [*cases, unsaid]}
    what = " or ".join(role.replace("_", " ") for role in tried)
    return {
        "description": f"{what}: a kind, or a mapping with its fields",
        "if": {"type": "object"},
        "then": mapping,
        "else": {"enum": kinds},
    }


def _component(kind: str, cls: type[Component]) -> Schema:
    """The fields of one component."""
    own = {"kind": {"const": kind, "description": (cls.__doc__ or "").strip().partition("\n")[0]}}
    known = {name: rules(cls)[name] for name in settable(cls) if name != "kind"}
    own |= {name: _field(rule) for name, rule in known.items()}
    idle = [_idle(rule, rules(cls)[rule.marks["when"][0]]) for rule in known.values() if "when" in rule.marks]
    found = {"type": "object", "properties": {**own, **REPLACES}, "additionalProperties": False}
    return {**found, "allOf": idle} if idle else found


def _named_head(kind: str, cls: type[Component]) -> Schema:
    """One of `heads`: the fields of a head, and how it is trained."""
    own = {key: {**_typed(PLAIN[key].core), "description": text} for key, text in HEAD_KEYS.items()}
    found = _component(kind, cls)
    return {**found, "properties": {**found["properties"], **own}}


def _field(rule: Rule) -> Schema:
    """One field, with its description and, where it has one, its default."""
    formula = f" (by default {rule.marks['formula']})" if "formula" in rule.marks else ""
    found: Schema = {"description": f"{rule.info.description}{formula}", **_value(rule)}
    default = rule.info.default
    if not rule.info.is_required() and isinstance(default, bool | int | float | str):
        found["default"] = default
    return found


def _value(rule: Rule) -> Schema:
    if rule.marks.get("named"):
        return _unless(ABSENT, _each(_any(_value(PLAIN["vocab_size"]), NULL)))
    if "slot" in rule.marks:
        inner = _ref(rule.marks["slot"])
        return inner if rule.info.is_required() else _unless(ABSENT, inner)
    options = [_typed(rule.core), *([ARITHMETIC, ROUNDED] if rule.number else []), *([NULL] if rule.nullable else [])]
    return _any(*options) if len(options) > 1 else options[0]


def _typed(core: Mapping[str, Any]) -> Schema:
    """Values of a type that is no component, from pydantic's schema of it."""
    if core["type"] == "literal":
        return {"enum": list(core["expected"])}
    if core["type"] == "tuple":
        return {"type": "array", "items": _typed(core["items_schema"][0])}
    return {"type": TYPES[core["type"]], **{word: core[sign] for sign, word in BOUNDS.items() if sign in core}}


def _idle(rule: Rule, other: Rule) -> Schema:
    """Where the field on which this one depends says that it does nothing, it must be left out, or as by default."""
    acting = list(rule.marks["when"][1:])
    off = {"not": {"enum": acting}} if acting else {"enum": [None, "none", False, 0]}
    usual = rule.info.default
    words = rule.number or rule.core["type"] == "str"
    plain: Schema = {"enum": [None, "none"]} if words and usual is None else {"const": usual}
    left = False if rule.info.is_required() else ABSENT if "slot" in rule.marks else plain
    return {
        "if": {"properties": {other.name: off}, "required": [other.name]},
        "then": {"properties": {rule.name: left}},
    }


# The document


def _top_values() -> dict[str, Schema]:
    counted = _any({"type": "integer", "minimum": 0}, {"type": "string", "pattern": r"^\s*(==|<=|>=|<|>|~)?\s*\d"})
    return {
        **dict.fromkeys(("name", "description", "source", "extends"), TEXT),
        **{key: value for key, value in _stack_values().items() if key in TOP_KEYS},
        "sizes": _each(_value(PLAIN["size"])),
        "init": _ref("init"),
        "vocabulary": _unless(ABSENT, _ref("vocabulary")),
        "define": _each(_unless(NULL, _ref("block"))),
        "stacks": _each(_ref("stack")),
        "head": _unless(ABSENT, _ref("head")),
        "heads": _each(_unless(ABSENT, _ref("named_head"))),
        "inputs": {**_list({"enum": list(INPUTS)}), "uniqueItems": True},
        "expect": {
            **_mapping(KEYS | COSTS, dict.fromkeys(KEYS, counted) | dict.fromkeys(COSTS, _any(counted, _of_work()))),
            "type": ["object", "null"],
        },
    }


def _of_work() -> Schema:
    """An expectation that names the work: sizes, and one bound."""
    said = ASKED | {word: f"what it is promised to be: {word} this" for word in LIMITS}
    values = dict.fromkeys(said, _any({"type": "integer", "minimum": 0}, TEXT))
    return {**_mapping(said, values), "oneOf": [{"required": [bound]} for bound in LIMITS]}


def _stack_values() -> dict[str, Schema]:
    return {
        **{key: _value(PLAIN[key]) for key in SIZES},
        **{key: _ref(key) for key in ("embedding", "norm", "wiring", "blocks")},
        **{key: _typed(PLAIN[key].core) for key in ("dropout", "mask")},
        "overrides": {"type": "array", "items": _ref("override")},
        "final_norm": _unless(_any(SWITCH, ABSENT), _ref("norm")),
        "streams": _unless(NULL, _mapping(KEYS_OF_STREAMS, dict.fromkeys(KEYS_OF_STREAMS, _ref("wiring")))),
        "memory": TEXT,
        "tie_embedding": TEXT,
    }


def _block_values() -> dict[str, Schema]:
    return {
        **{key: _unless(ABSENT, _ref(role)) for key, role in (("mixer", "mixer"), ("cross", "mixer"), ("ffn", "ffn"))},
        **{key: _ref(key) for key in ("norm", "wiring")},
        "dropout": _typed(PLAIN["dropout"].core),
        "modules": _each(_ref("part")),
        **dict.fromkeys(
            ("gives", "reads"), _unless({"type": "object"}, _list({"type": "string"})) | {"then": _named()}
        ),
        "extends": TEXT,
    }


def _item() -> Schema:
    """An entry of `blocks`: a pattern over the defined names, a repeated pattern, or a block (perhaps repeated)."""
    values = {"repeat": _any(_typed(PLAIN["repeat"].core), ARITHMETIC), "pattern": _ref("blocks"), "share": SWITCH}
    alone = {key: text for key, text in (ITEM_KEYS | BLOCK_KEYS).items() if key not in ("pattern", "extends")}
    repeated = _mapping(alone, values | _block_values())
    chosen = {"if": {"required": ["pattern"]}, "then": _mapping(ITEM_KEYS, values), "else": repeated}
    return _unless(TEXT, {"type": "object", **chosen})


def _wiring() -> Schema:
    lines = {"type": "string", "pattern": "="}
    return _any({"enum": list(BUILTINS)}, lines, _list(lines))


def _override() -> Schema:
    anything = {"description": "what is merged into the place (set) or put there instead (replace)"}
    at = {"type": "string", "pattern": r"layers\[", "description": "which layers, and what of them: layers[0:3].ffn"}
    one = [{"required": [verb]} for verb in ("set", "replace")]
    properties = {"at": at, "set": anything, "replace": anything}
    return {"type": "object", "properties": properties, "required": ["at"], "oneOf": one, "additionalProperties": False}
