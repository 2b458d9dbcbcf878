"""`archspec show --flat`: every value of the resolved model, and where each came from."""

import copy
import csv
import io
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from archspec.cli import main
from archspec.language.load import load, loads
from archspec.language.show import document
from archspec.report.flat import FORMATS, Value, flat

SPECS = sorted(path.stem for path in Path("specs").glob("*.yaml"))
TEXT = """\
d_model: 64
vocab_size: 100
max_seq_len: 32
norm: {kind: layernorm, eps: 1.0e-6}
dropout: 0.1
embedding: {position: learned}
define:
  attn:
    mixer: {kind: attention, n_heads: 4, scale: 1 / sqrt(d_model)}
    ffn: {kind: mlp, d_ff: 4 * d_model, bias: true}
  own: {extends: attn, norm: rmsnorm, wiring: post, dropout: 0.2}
blocks: attn x2 own
head: lm
"""


def values(text: str = TEXT, *settings: str) -> dict[str, Value]:
    return {value.path: value for value in flat(loads(text, "model.yaml", set=settings))}


@pytest.mark.parametrize(
    ("path", "value", "how", "what"),
    [
        ("d_model", 64, "given", "model.yaml:1:10"),
        ("embedding.kind", "token", "default", ""),
        ("embedding.position.kind", "learned", "given", "model.yaml:6:23"),
        ("embedding.position.n_positions", 32, "formula", "max_seq_len"),
        ("embedding.dropout", 0.1, "inherited", "dropout"),
        ("blocks.0-1.mixer.n_heads", 4, "given", "model.yaml:9:39"),
        ("blocks.0-1.mixer.head_dim", 16, "formula", "d_model / n_heads"),
        ("blocks.0-1.mixer.scale", 0.125, "given", "model.yaml:9:49: 1 / sqrt(d_model)"),
        ("blocks.0-1.mixer.position", None, "default", ""),
        ("blocks.0-1.ffn.d_ff", 256, "given", "model.yaml:10:28: 4 * d_model"),
        ("blocks.0-1.norm1.eps", 1e-6, "inherited", "norm.eps, given at model.yaml:4:30"),
        ("blocks.0-1.norm1.bias", True, "inherited", "norm.bias, default"),
        ("blocks.0-1.dropout", 0.1, "inherited", "dropout"),
        ("blocks.0-1.wiring", ["x = x + dropout(mixer(norm1(x)))", "x = x + dropout(ffn(norm2(x)))"], "default", ""),
        ("blocks.2.norm1.kind", "rmsnorm", "given", "model.yaml:11:30"),
        ("blocks.2.norm1.eps", 1e-6, "inherited", "norm.eps"),
        ("blocks.2.dropout", 0.2, "given", "model.yaml:11:62"),
        ("final_norm", None, "default", ""),
        ("head.kind", "lm", "given", "model.yaml:13:7"),
        ("head.tied", False, "default", ""),
        ("init.kind", "normal", "default", ""),
    ],
)
def test_the_origin_of_a_value(path: str, value: object, how: str, what: str) -> None:
    found = values()[path]
    assert found.value == value
    assert (found.origin.how, found.origin.what) == (how, what)


def test_a_setting_is_where_a_value_was_given() -> None:
    found = values(TEXT, "define.attn.mixer.n_heads=8")
    assert found["blocks.0-1.mixer.n_heads"].origin.what == "--set define.attn.mixer.n_heads=8"


def leaves(data: Any) -> Iterator[Any]:
    """Every value of some plain data that holds no others."""
    if isinstance(data, dict):
        for child in data.values():
            yield from leaves(child)
    elif isinstance(data, list) and data and isinstance(data[0], dict):
        for child in data:
            yield from leaves(child)
    else:
        yield data


@pytest.mark.parametrize("name", SPECS)
def test_values_are_those_of_the_resolved_model(name: str) -> None:
    spec = load(f"specs/{name}.yaml")
    resolved = list(map(repr, leaves(document(spec))))
    absent = {"None", "'none'", "False", "0.0"}  # how what is left out stands in a document, or does not
    shown = flat(spec)
    assert len({value.path for value in shown}) == len(shown)
    for value in shown:
        assert repr(value.value) in resolved or repr(value.value) in absent, value
    written = {
        repr(leaf) for key in ("define", "head", "init", "embedding") for leaf in leaves(document(spec).get(key))
    }
    assert written - absent <= {repr(value.value) for value in shown}


@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda spec: pickle.loads(pickle.dumps(spec))], ids=["copy", "pickle"]
)
def test_a_copy_of_a_spec_knows_where_its_values_came_from(again: Any) -> None:
    spec = loads(TEXT, "model.yaml")
    assert flat(again(spec)) == flat(spec)


def test_formats_say_the_same() -> None:
    spec = loads(TEXT, "model.yaml")
    shown = flat(spec)
    assert [r["value"] for r in json.loads(FORMATS["json"](spec))] == [value.value for value in shown]
    rows = list(csv.reader(io.StringIO(FORMATS["csv"](spec))))
    assert [row[0] for row in rows[1:]] == [value.path for value in shown]
    assert len(FORMATS["table"](spec).splitlines()) == len(shown) + 1
    assert len(FORMATS["markdown"](spec).splitlines()) == len(shown) + 2


def test_the_command() -> None:
    run = CliRunner().invoke
    lines = run(main, ["show", "specs/bert_tiny.yaml", "--flat"]).output.splitlines()
    assert lines[0].split() == ["path", "value", "from", "where"]
    assert any(line.split()[:3] == ["blocks.0-1.norm1.eps", "1.0e-05", "inherited"] for line in lines)
    plain = json.loads(run(main, ["show", "specs/bert_tiny.yaml", "--format", "json"]).output)
    assert plain == document(load("specs/bert_tiny.yaml"))
    wrong = run(main, ["show", "specs/bert_tiny.yaml", "--format", "csv"])
    assert (wrong.exit_code, "add --flat" in wrong.output) == (2, True)
