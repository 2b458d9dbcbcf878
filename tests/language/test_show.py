"""`show` writes a spec that loads to an equal one, with everything resolved."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from archspec.errors import SpecError
from archspec.language.load import load, loads
from archspec.language.show import show
from archspec.language.source import MAX_BYTES
from archspec.language.yaml_writer import flow, scalar
from archspec.layers.registry import ROLES, find, kinds

SPECS = sorted(Path("specs").glob("*.yaml"))
SIZES = {"d_model": 16, "vocab_size": 32, "max_seq_len": 64}
ATTENTION = {"kind": "attention", "n_heads": 4}
CROSS = {"embedding": "token", "blocks": [{"mixer": {**ATTENTION, "mask": "bidirectional"}}]}


def document(role: str, component: dict[str, Any]) -> dict[str, Any]:
    """A small spec around one component."""
    if component.get("mask") == "cross":
        decoder = {"memory": "encoder", "blocks": [{"mixer": ATTENTION, "cross": component, "ffn": "mlp"}]}
        return {**SIZES, "stacks": {"encoder": CROSS, "decoder": decoder}}
    block: dict[str, Any] = {"mixer": ATTENTION, "ffn": "mlp"}
    top: dict[str, Any] = {}
    match role:
        case "mixer" | "ffn" | "norm":
            block[role] = component
        case "position":
            mask = "bidirectional" if component.get("bidirectional") else "causal"
            block["mixer"] = {"kind": "attention", "n_heads": 1, "mask": mask, "position": component}
        case "rope_scaling":
            n_heads = 2 if component["kind"] == "proportional" else 4
            block["mixer"] = {**ATTENTION, "n_heads": n_heads, "position": {"kind": "rope", "scaling": component}}
        case "absolute_position":
            top["embedding"] = {"kind": "token", "position": component}
        case "scale":
            block |= {"modules": {"gamma": component}, "wiring": ["x = x + gamma(mixer(x))", "x = x + ffn(x)"]}
        case _:
            top[role] = component
    sizes = {
        name: n for name, n in SIZES.items() if name != "vocab_size" or component["kind"] not in ("features", "patch")
    }
    return {**sizes, **top, "blocks": [block]}


EXAMPLES = [
    pytest.param(document(role, {"kind": kind, **example}), id=f"{role}.{kind}-{i}")
    for role in ROLES
    for kind in kinds(role)
    for i, example in enumerate(find(role, kind).examples)
]


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_published_specs_come_back_equal(path: Path) -> None:
    spec = load(path)
    assert loads(show(spec)) == spec
    assert show(loads(show(spec))) == show(spec)


@pytest.mark.parametrize("data", EXAMPLES)
def test_every_component_comes_back_equal(data: dict[str, Any]) -> None:
    spec = load(data)
    assert loads(show(spec)) == spec


def one_of(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


NORMS = one_of(
    "layernorm",
    "rmsnorm",
    {"kind": "layernorm", "affine": False},
    {"kind": "layernorm", "bias": False, "eps": 1e-6},
    {"kind": "rmsnorm", "eps": 0.01},
    {"eps": 0.25},
)
MIXERS = one_of(
    ATTENTION,
    {**ATTENTION, "qk_norm": "head"},
    {**ATTENTION, "qk_norm": "head", "norm": "layernorm", "window": 5, "position": "rope"},
    {**ATTENTION, "dropout": 0.5, "n_kv_heads": "n_heads / 2"},
    {"kind": "mamba", "d_state": "d_model / 4"},
)
FFNS = one_of(
    "mlp", "gated_mlp", {"kind": "moe", "n_experts": 4, "top_k": 2, "d_ff": {"of": "5 * d_model / 3", "multiple_of": 8}}
)
WIRINGS = one_of(
    "pre", "post", "sandwich", "inner_post", "parallel", "deepnorm", "layer_scale", "none",
    ["h = norm1(x)", "x = x + mixer(h) + 0.5 * ffn(h)"],
    ["x = 2 * x - (mixer(x) - 1e-7 * ffn(norm3(x)))"],
)  # fmt: skip
BLOCKS = st.fixed_dictionaries(
    {"mixer": MIXERS, "ffn": FFNS}, optional={"norm": NORMS, "wiring": WIRINGS, "dropout": one_of(0.0, 0.125)}
)
ITEMS = one_of(
    "a",
    "(a b)x3 a",
    {"repeat": 3, "pattern": "a"},
    {"repeat": 2, "pattern": ["a", "b", "a"]},
    {"repeat": 3, "share": True, "pattern": ["b"]},
    {"repeat": 2, "pattern": "b b a b"},
)
DOCUMENTS = st.fixed_dictionaries(
    {
        **{name: st.just(size) for name, size in SIZES.items()},
        "define": st.fixed_dictionaries({"a": BLOCKS, "b": BLOCKS}),
        "blocks": st.lists(ITEMS, min_size=1, max_size=4).map(lambda items: [*items, "b a"]),
    },
    optional={
        "norm": NORMS,
        "dropout": one_of(0.25, 0.0),
        "wiring": WIRINGS,
        "mask": one_of("causal", "bidirectional"),
        "final_norm": one_of(True, False, "layernorm", {"eps": 0.5}),
        "head": one_of("lm", {"kind": "masked_lm", "norm": {"eps": 0.125}}, "masked_lm", None),
        "overrides": one_of(
            [{"at": "layers[0].ffn", "set": {"bias": True}}, {"at": "layers[-1].mixer", "replace": {"kind": "gru"}}],
            [{"at": "layers[::2].norm", "set": {"eps": 0.75}}],
        ),
        "name": one_of("true", "yes", "a: b", "# c", "1e5", "~", "- x", "{a}", "it's \"quoted\"", "null", "0x10"),
        "expect": one_of({"params": "< 1B"}, {"params": "1_000 "}, {"layers": ">= 1", "state_bytes": "~1.5 KiB"}),
    },
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(DOCUMENTS)
def test_any_spec_comes_back_equal(data: dict[str, Any]) -> None:
    try:
        spec = load(data)
    except SpecError:
        assume(False)
    assert loads(show(spec)) == spec


def test_resolved_sizes_are_written_and_idle_fields_are_not() -> None:
    text = show(load({**SIZES, "blocks": [{"mixer": ATTENTION, "ffn": {"kind": "mlp", "d_ff": "3 * d_model"}}]}))
    assert "d_ff: 48" in text
    assert "head_dim: 4" in text
    assert "      - x = x + mixer(norm1(x))\n" in text
    assert "d_memory" not in text  # inherited
    assert "\n      norm:" not in text  # without qk_norm it does nothing


def test_repeats_are_folded_over_names() -> None:
    a, b = {"mixer": ATTENTION}, {"ffn": "mlp"}
    text = show(load({**SIZES, "blocks": [{"repeat": 3, "pattern": [a, a, b]}, b]}))
    assert "blocks:\n  - {repeat: 3, pattern: attention x2 mlp}\n  - mlp\n" in text


@pytest.mark.parametrize(
    "value", ["true", "Yes", "NO", "1", "1.5", "1e5", "a: b", "a #b", "", "-", "[x", "a, b", "~", "caf\xe9"]
)
def test_texts_that_yaml_would_read_otherwise_are_quoted(value: str) -> None:
    assert scalar(value).startswith('"')


def test_numbers_are_numbers_in_old_and_new_yaml() -> None:
    assert flow([1, 1.0, 1e-12, -2.5, 1e22, True, None]) == "[1, 1.0, 1.0e-12, -2.5, 1.0e+22, true, null]"


def many(n: int) -> dict[str, Any]:
    """A model of so many layers, none like another, of several forms."""

    def block(i: int) -> dict[str, Any]:
        mixer = {"kind": "attention", "n_heads": 1 + i % 2, "head_dim": 2 * (1 + i % 7)}
        return {"mixer": mixer, "ffn": {"kind": "mlp", "d_ff": i + 1}, "wiring": "post" if i % 3 else "pre"}

    return {"d_model": 8, "vocab_size": 5, "blocks": [block(i) for i in range(n)], "head": "lm"}


def test_what_is_shown_of_very_many_layers_is_not_too_large_to_read() -> None:
    spec = load(many(3000))
    text = show(spec)
    assert len(text) < MAX_BYTES
    assert loads(text) == spec


def test_blocks_by_difference_are_the_same_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = load(many(60))
    whole = show(spec)
    assert "extends" not in whole
    monkeypatch.setattr("archspec.language.show.MAX_BYTES", 1000)
    assert len(show(spec)) < len(whole) / 2
    assert loads(show(spec)) == spec
