"""Constants of a generated file: one name for one thing, and no name for two."""

import re
from pathlib import Path
from typing import Any

import pytest

import archspec
from archspec.codegen.constants import describe
from archspec.codegen.names import uses
from archspec.codegen.writer import Writer

SPECS = sorted(Path("specs").glob("*.yaml"))
SIZES = {"d_model": 16, "vocab_size": 11, "max_seq_len": 8, "head": {"kind": "lm"}}


def constants(*blocks: dict[str, Any], **top: Any) -> dict[str, str]:
    """The constants of the file of a spec, each with its value and note."""
    text = archspec.generate(archspec.load({"name": "toy", **SIZES, "blocks": list(blocks), **top}))
    return dict(re.findall(r"^([A-Z0-9_]+) = (.*)$", text, re.MULTILINE))


def test_equal_numbers_that_mean_different_things_have_names_of_their_own() -> None:
    found = constants(
        {"mixer": {"kind": "attention", "n_heads": 4}}, {"mixer": {"kind": "mamba2", "d_inner": 32, "head_dim": 8}}
    )
    assert found["ATTENTION_N_HEADS"] == "4  # query heads"
    assert found["MAMBA2_N_HEADS"] == "4  # heads, each with a decay of its own"
    assert "N_HEADS" not in found


def test_what_means_the_same_has_one_name() -> None:
    found = constants({"ffn": {"kind": "mlp", "d_ff": 24}}, {"ffn": {"kind": "gated_mlp", "d_ff": 24}})
    assert found["D_FF"] == "24  # hidden units"
    assert found["D_MODEL"] == "16  # width of the residual stream"
    assert not [name for name in found if name.endswith("D_FF") and name != "D_FF"]


def test_hidden_units_of_an_expert_are_not_those_of_a_network() -> None:
    moe = {"kind": "moe", "n_experts": 4, "top_k": 2, "d_ff": 24}
    found = constants({"ffn": {"kind": "mlp", "d_ff": 24}}, {"ffn": moe})
    assert found["MLP_D_FF"] == "24  # hidden units"
    assert found["MOE_D_FF"] == "24  # hidden units of one expert"


@pytest.mark.parametrize("position", ["rope", "alibi", "t5"])
def test_a_size_that_a_slot_is_given_has_the_name_that_it_had(position: str) -> None:
    found = constants({"mixer": {"kind": "attention", "n_heads": 4, "position": {"kind": position}}})
    assert [name for name in found if "DIM" in name.split("_")] == ["HEAD_DIM"]
    assert [name for name in found if name.endswith("HEADS")] == ["N_HEADS"]


def test_a_part_of_the_channels_has_a_name_of_its_own() -> None:
    half = {"kind": "rope", "fraction": 0.5}
    found = constants({"mixer": {"kind": "attention", "n_heads": 2, "position": half}})
    assert found["DIM"] == "4  # channels of a head that turn"
    assert found["HEAD_DIM"] == "8  # channels of a query or key head"


def test_one_position_in_two_mixers_that_call_its_width_differently() -> None:
    rope = {"kind": "rope"}
    attention = {"kind": "attention", "n_heads": 2, "head_dim": 4, "position": rope}
    mla = {"kind": "mla", "n_heads": 2, "kv_lora_rank": 8, "qk_nope_head_dim": 6, "qk_rope_head_dim": 4}
    found = constants({"mixer": attention}, {"mixer": {**mla, "position": rope}})
    assert found["ROPE_HEAD_DIM"] == "4  # channels of a query or key head"


@pytest.mark.parametrize("kind", ["learned", "sinusoidal"])
def test_positions_are_as_wide_as_the_embedding(kind: str) -> None:
    embedding = {"kind": "token", "position": {"kind": kind}}
    found = constants({"mixer": {"kind": "attention", "n_heads": 2}}, embedding=embedding)
    assert [name for name, value in found.items() if value.startswith("16 ")] == ["D_MODEL"]


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_a_note_is_true_of_all_who_use_the_name(path: Path) -> None:
    """A name has one value, and what it says is said of the size by whoever holds it or gave it."""
    spec = archspec.load(path)
    writer = Writer(spec)
    said: dict[str, set[str]] = {}
    for (c, field), name in writer.constants.texts.items():
        assert getattr(c, field) == writer.constants.holds[name].value
        said.setdefault(name, set()).update(describe(*origin) for origin in writer.constants.origins(c, field))
    several = {name: notes for name, notes in said.items() if len(notes) > 1}
    assert several.keys() <= {"N_HEADS"}, several  # T5's and ALiBi's biases are for the heads of their attention


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_no_two_things_have_one_name(path: Path) -> None:
    spec = archspec.load(path)
    writer = Writer(spec)
    classes = [*writer.names.values(), *writer.stack_names.values()]
    names = [*classes, *writer.constants.possible]
    assert len(names) == len(set(names))
    assert len(writer.names) == len(uses(spec))
    kinds = {type(c).__name__ for c in writer.names}
    assert not (set(names) - kinds) & writer.reserved


def test_a_local_variable_takes_a_free_name() -> None:
    writer = Writer(archspec.load("specs/t5_small.yaml"), "fast")
    assert writer.local("h") == "h"
    assert writer.local("h", {"h"}) == "h_"
    assert writer.local("h", {"h", "h_"}) == "h_2"
    for taken in ("D_MODEL", "Encoder", "RMSNorm", "substate", "nn", "torch", "Model", "print", "lambda", "attention"):
        assert writer.local(taken) == f"{taken}_"


def test_how_weights_start_leaves_the_sizes_of_layers_their_names() -> None:
    found = constants({"mixer": {"kind": "attention", "n_heads": 2}}, init={"kind": "t5", "head_dim": 16})
    assert found["HEAD_DIM"] == "8  # channels of a query or key head"
    assert found["T5_INIT_HEAD_DIM"] == "16  # channels of a query or key head"


def test_names_are_cut_where_they_would_be_too_long() -> None:
    labels = [f"{'a_label_that_is_long_' * 3}"[:58] + end for end in ("_a", "_b")]
    define = {label: {"ffn": {"kind": "mlp", "d_ff": i + 4}} for i, label in enumerate(labels)}
    found = constants(*labels, define=define)  # type: ignore[arg-type]
    assert max(map(len, found)) < 90
