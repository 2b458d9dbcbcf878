"""The JSON Schema of the spec language, made from the components' own fields, for completion and checks in an editor.

It says what may stand where, and what it means. What must stand there, and whether sizes fit together, is said by
`validate`: a spec may extend another, and a block another block, so no single mapping need be whole.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from archspec.language.block import PART_ROLES
from archspec.language.document import BLOCK_KEYS, ITEM_KEYS, STACK_KEYS, TOP_KEYS
from archspec.language.expect import KEYS
from archspec.language.source import REPLACE
from archspec.language.values import bare, limits, nullable, numeric, settable
from archspec.language.wiring import BUILTINS
from archspec.layers.base import Component
from archspec.layers.fields import extra
from archspec.layers.registry import everything

Schema = dict[str, Any]

DRAFT = "https://json-schema.org/draft/2020-12/schema"
LIMITS = {Gt: ("gt", "exclusiveMinimum"), Ge: ("ge", "minimum"), Lt: ("lt", "exclusiveMaximum"), Le: ("le", "maximum")}
ABSENT: Schema = {"enum": ["none", None, False]}
TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer", "minimum": 1}
SWITCH: Schema = {"type": "boolean"}
RATE: Schema = {"type": "number", "minimum": 0, "exclusiveMaximum": 1}
ARITHMETIC: Schema = {
    "type": "string",
    "pattern": r"^[A-Za-z0-9_.+*/%(), \t-]+$",
    "description": "arithmetic on named sizes: 8/3 * d_model",
}
ROUNDED: Schema = {
    "type": "object",
    "description": "arithmetic, rounded up to a multiple",
    "properties": {
        "of": {"type": ["string", "number"], "description": "arithmetic on named sizes: 8/3 * d_model"},
        "multiple_of": {"type": ["string", "integer"], "description": "what the result is rounded up to: 256"},
    },
    "required": ["of"],
    "additionalProperties": False,
}
REPLACES: Schema = {REPLACE: {**SWITCH, "description": "this mapping replaces the one that it extends"}}
MASKS = ("causal", "bidirectional", "prefix")


def schema() -> Schema:
    """The JSON Schema (draft 2020-12) of a whole spec."""
    found = everything()
    defs: dict[str, Schema] = {"part": _choice({k: r for r in reversed(PART_ROLES) for k in found[r]}, PART_ROLES)}
    for role, kinds in found.items():
        defs[role] = _choice(dict.fromkeys(kinds, role), (role,))
        defs |= {f"{role}.{kind}": _component(kind, cls) for kind, cls in kinds.items()}
    defs |= {"wiring": _wiring(), "block": _block(), "item": _item(), "blocks": _blocks()}
    defs |= {"override": _override(), "stack": _mapping(STACK_KEYS, _stack_values())}
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
    own |= {name: _field(cls, name) for name in settable(cls) if name != "kind"}
    return {"type": "object", "properties": {**own, **REPLACES}, "additionalProperties": False}


def _field(cls: type[Component], name: str) -> Schema:
    """One field, with its description and, where it has one, its default."""
    info = cls.model_fields[name]
    found: Schema = {"description": _described(info), **_value(cls, name)}
    default = info.default
    if not info.is_required() and isinstance(default, bool | int | float | str):
        found["default"] = default
    return found


def _described(info: FieldInfo) -> str:
    formula = extra(info).get("formula")
    return f"{info.description} (by default {formula})" if formula else info.description or ""


def _value(cls: type[Component], name: str) -> Schema:
    info = cls.model_fields[name]
    marks = extra(info)
    if "slot" in marks:
        return (
            _ref(marks["slot"])
            if info.is_required() and "component" not in marks
            else _unless(ABSENT, _ref(marks["slot"]))
        )
    if number := numeric(cls, name):
        options = [{"type": "integer" if number is int else "number", **_bounds(info)}, ARITHMETIC, ROUNDED]
        return _any(*options, {"type": "null"}) if nullable(cls, name) else _any(*options)
    return _plain(info.annotation)


def _plain(annotation: Any) -> Schema:
    """The schema of a type that is neither a size nor a component."""
    options: list[Schema] = []
    for part in bare(annotation):
        if get_origin(part) is Literal:
            options.append({"enum": list(get_args(part))})
        elif get_origin(part) is tuple:
            options.append({"type": "array", "items": _plain(get_args(part)[0])})
        else:
            words = {bool: "boolean", str: "string", int: "integer", float: "number", type(None): "null"}
            options.append({"type": words[part]})
    return options[0] if len(options) == 1 else _any(*options)


def _bounds(info: FieldInfo) -> Schema:
    found = {}
    for bound in limits(info):
        attribute, word = LIMITS[type(bound)]
        found[word] = getattr(bound, attribute)
    return found


# The document


def _top_values() -> dict[str, Schema]:
    texts = dict.fromkeys(("name", "description", "source", "extends"), TEXT)
    named = {"type": "object", "additionalProperties": _any({"type": "number"}, ARITHMETIC, ROUNDED)}
    shared = {key: value for key, value in _stack_values().items() if key in TOP_KEYS}
    return {
        **texts,
        **shared,
        "sizes": named,
        "init": _ref("init"),
        "define": {"type": "object", "additionalProperties": _unless({"type": "null"}, _ref("block"))},
        "stacks": {"type": "object", "additionalProperties": _ref("stack")},
        "head": _unless(ABSENT, _ref("head")),
        "expect": _expect(),
    }


def _stack_values() -> dict[str, Schema]:
    sizes = dict.fromkeys(("d_model", "vocab_size", "max_seq_len"), _any(WHOLE, ARITHMETIC, ROUNDED))
    return {
        **sizes,
        "embedding": _ref("embedding"),
        "norm": _ref("norm"),
        "dropout": RATE,
        "mask": {"enum": list(MASKS)},
        "wiring": _ref("wiring"),
        "blocks": _ref("blocks"),
        "overrides": {"type": "array", "items": _ref("override")},
        "final_norm": _unless(_any(SWITCH, ABSENT), _ref("norm")),
        "memory": TEXT,
        "tie_embedding": TEXT,
    }


def _block_values() -> dict[str, Schema]:
    return {
        "mixer": _unless(ABSENT, _ref("mixer")),
        "cross": _unless(ABSENT, _ref("mixer")),
        "ffn": _unless(ABSENT, _ref("ffn")),
        "norm": _ref("norm"),
        "wiring": _ref("wiring"),
        "dropout": RATE,
        "modules": {"type": "object", "additionalProperties": _ref("part")},
        "extends": TEXT,
    }


def _block() -> Schema:
    return _mapping(BLOCK_KEYS, _block_values())


def _item() -> Schema:
    """An entry of `blocks`: a pattern over the defined names, a repeated pattern, or a block (perhaps repeated)."""
    values = {"repeat": _any(WHOLE, ARITHMETIC), "pattern": _ref("blocks"), "share": SWITCH}
    keys = {key: text for key, text in BLOCK_KEYS.items() if key != "extends"}
    repeated = _mapping(
        {key: text for key, text in ITEM_KEYS.items() if key != "pattern"} | keys, values | _block_values()
    )
    chosen = {"if": {"required": ["pattern"]}, "then": _mapping(ITEM_KEYS, values), "else": repeated}
    return _unless(TEXT, {"type": "object", **chosen})


def _blocks() -> Schema:
    return _unless(TEXT, {"type": "array", "minItems": 1, "items": _ref("item")})


def _wiring() -> Schema:
    lines = {"type": "string", "pattern": "="}
    return _any({"enum": list(BUILTINS)}, lines, {"type": "array", "minItems": 1, "items": lines})


def _override() -> Schema:
    anything = {"description": "what is merged into the place (set) or put there instead (replace)"}
    at = {"type": "string", "pattern": r"layers\[", "description": "which layers, and what of them: layers[0:3].ffn"}
    return {
        "type": "object",
        "properties": {"at": at, "set": anything, "replace": anything},
        "required": ["at"],
        "oneOf": [{"required": ["set"]}, {"required": ["replace"]}],
        "additionalProperties": False,
    }


def _expect() -> Schema:
    value = _any({"type": "integer", "minimum": 0}, {"type": "string", "pattern": r"^\s*(==|<=|>=|<|>|~)?\s*\d"})
    return {**_mapping(KEYS, dict.fromkeys(KEYS, value)), "type": ["object", "null"]}
