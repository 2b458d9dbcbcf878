"""The JSON Schema takes every spec that loads, and knows no word that the loader does not know."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from archspec.language.document import BLOCK_KEYS, STACK_KEYS, TOP_KEYS
from archspec.language.load import load
from archspec.language.rules import settable
from archspec.language.schema import schema
from archspec.language.show import document
from archspec.language.source import read
from archspec.language.starter import template
from archspec.layers.registry import everything

SPECS = sorted(Path("specs").glob("*.yaml"))
SCHEMA = schema()
VALIDATOR = Draft202012Validator(SCHEMA)
SIZES = {"d_model": 16, "vocab_size": 32}


def refused(data: Any) -> bool:
    return not VALIDATOR.is_valid(data)


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for child in value.values():
            yield from nodes(child)
    elif isinstance(value, list):
        for child in value:
            yield from nodes(child)


def test_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_takes_published_specs_as_written_and_resolved(path: Path) -> None:
    VALIDATOR.validate(read(path, str(path)).plain())
    VALIDATOR.validate(document(load(path)))


def test_takes_the_starter() -> None:
    VALIDATOR.validate(yaml.safe_load(template()))


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_refuses_an_unknown_key_in_any_mapping(path: Path) -> None:
    data = document(load(path))
    free = [id(data.get(key)) for key in ("define", "stacks", "sizes", "heads")]
    stacks = [data, *data.get("stacks", {}).values()]
    free += [id(stack["embedding"].get("channels")) for stack in stacks if "embedding" in stack]
    free += [id(block.get("modules")) for block in data["define"].values()]
    for node in [n for n in nodes(data) if id(n) not in free]:
        node["no_such_key"] = 1
        assert refused(data), node
        del node["no_such_key"]
    VALIDATOR.validate(data)


def test_every_key_and_field_has_its_description() -> None:
    assert set(SCHEMA["properties"]) == {*TOP_KEYS, "__replace__"}
    assert set(SCHEMA["$defs"]["stack"]["properties"]) == {*STACK_KEYS, "__replace__"}
    assert set(SCHEMA["$defs"]["block"]["properties"]) == {*BLOCK_KEYS, "__replace__"}
    for role, kinds in everything().items():
        for kind, cls in kinds.items():
            assert set(SCHEMA["$defs"][f"{role}.{kind}"]["properties"]) == {*settable(cls), "__replace__"}
    for node in nodes(SCHEMA):
        if node.get("type") == "object":
            for name, field in node.get("properties", {}).items():
                assert field.get("description") or "$ref" in field or name in ("kind", "of", "multiple_of", "set"), name


GOOD = {
    "a kind by name": {"mixer": "mamba"},
    "a size by arithmetic": {"ffn": {"kind": "mlp", "d_ff": "7/2 * d_model"}},
    "a size rounded": {"ffn": {"kind": "mlp", "d_ff": {"of": "8/3 * d_model", "multiple_of": 256}}},
    "a slot left out": {"mixer": {"kind": "attention", "n_heads": 2, "position": "none", "window": None}},
    "a slot in a slot": {
        "mixer": {
            "kind": "attention",
            "n_heads": 2,
            "position": {"kind": "rope", "scaling": {"kind": "ntk", "factor": 2}},
        }
    },
    "lines of wiring": {"mixer": "mamba", "wiring": ["x = x + mixer(x)"]},
    "parts of its own": {"modules": {"a": "mamba", "b": {"kind": "rmsnorm", "eps": 0.1}}, "wiring": "x = b(a(x))"},
    "no ffn": {"mixer": "mamba", "ffn": "none"},
    "a repeated block": {"repeat": 3, "mixer": "mamba"},
    "a repeated pattern": {"repeat": 3, "share": True, "pattern": [{"mixer": "mamba"}, "a x2"]},
}
BAD = {
    "an unknown kind": {"mixer": "atention"},
    "a field of another kind": {"mixer": {"kind": "mamba", "n_heads": 4}},
    "a field that no kind has": {"mixer": {"n_haeds": 4}},
    "an inherited size": {"mixer": {"kind": "attention", "n_heads": 4, "d_model": 8}},
    "a size that is not whole": {"ffn": {"kind": "mlp", "d_ff": 1.5}},
    "text that is no arithmetic": {"ffn": {"kind": "mlp", "d_ff": "d_model; 1"}},
    "a size below one": {"ffn": {"kind": "mlp", "d_ff": 0}},
    "a word that is no choice": {"ffn": {"kind": "mlp", "activation": "sine"}},
    "text for a switch": {"ffn": {"kind": "mlp", "bias": "yes"}},
    "an unknown wiring": {"mixer": "mamba", "wiring": "before"},
    "a block beside a pattern": {"pattern": "a", "mixer": "mamba"},
    "a repeat of nothing": {"repeat": 0, "mixer": "mamba"},
    "a repeat in braces": {"repeat": {"of": 2}, "mixer": "mamba"},
    "a kind in another's place": {"norm": "mamba"},
    "braces without of": {"ffn": {"kind": "mlp", "d_ff": {"multiple_of": 8}}},
}


@pytest.mark.parametrize("block", GOOD.values(), ids=GOOD.keys())
def test_takes(block: dict[str, Any]) -> None:
    VALIDATOR.validate({**SIZES, "blocks": [block]})


@pytest.mark.parametrize("block", BAD.values(), ids=BAD.keys())
def test_refuses(block: dict[str, Any]) -> None:
    assert refused({**SIZES, "blocks": [block]})


@pytest.mark.parametrize("block", GOOD.values(), ids=GOOD.keys())
def test_what_it_takes_loads(block: dict[str, Any]) -> None:
    define = {"a": {"mixer": "lstm"}} if "pattern" in block else {}
    assert load({**SIZES, "define": define, "blocks": [block]})


def test_partial_mappings_stand_where_something_is_extended() -> None:
    VALIDATOR.validate({"extends": "base.yaml", "norm": {"eps": 0.1}, "head": {"tied": True}})
    VALIDATOR.validate(
        {"define": {"b": {"extends": "a", "mixer": {"n_heads": 4}, "ffn": {"__replace__": True, "kind": "mlp"}}}}
    )
    VALIDATOR.validate({"overrides": [{"at": "layers[0].ffn", "set": {"d_ff": 3}}]})
    assert refused({"overrides": [{"at": "layers[0].ffn"}]})


def test_expectations() -> None:
    VALIDATOR.validate({"expect": {"params": 1253, "active": "~12.9B", "kv_bytes_per_token": "<= 128 KiB"}})
    assert refused({"expect": {"parms": 1}})
    assert refused({"expect": {"params": "many"}})
    VALIDATOR.validate({"expect": None})


def test_sizes_may_be_rounded_and_repeats_computed() -> None:
    VALIDATOR.validate({"d_model": {"of": "8/3 * n", "multiple_of": 8}, "sizes": {"n": {"of": 3, "multiple_of": 2}}})
    VALIDATOR.validate({"blocks": [{"repeat": "2 * n", "pattern": "a"}]})
    assert refused({"d_model": {"off": 3}})
    assert all("description" in part for part in SCHEMA["properties"]["d_model"]["anyOf"][2]["properties"].values())


def test_a_mistake_in_a_block_is_told_where_it_stands() -> None:
    wrong = {"blocks": [{"ffn": {"kind": "mlp", "d_fff": 3}}]}
    (error,) = VALIDATOR.iter_errors(wrong)
    assert list(error.absolute_path) == ["blocks", 0, "ffn"]
    assert "'d_fff' was unexpected" in error.message
