"""One of a thing is said of one thing, and layers that come again are named so that they can be told."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from archspec.cli import main
from archspec.errors import many
from archspec.language.load import load
from archspec.passes.count import count
from archspec.passes.places import ranges
from archspec.report.complexity import named_layers
from archspec.report.count import sections

ONE = {
    "name": "one", "d_model": 8, "vocab_size": 5, "max_seq_len": 1, "head": "lm",
    "blocks": [{"mixer": {"kind": "attention", "n_heads": 1}}],
}  # fmt: skip


def test_one_is_no_plural() -> None:
    assert [many(n, "layer") for n in (0, 1, 2, 1024)] == ["0 layers", "1 layer", "2 layers", "1,024 layers"]


@pytest.mark.parametrize(
    "command",
    [
        ["validate"], ["count"], ["cost"], ["cost", "--phase", "decode"], ["complexity"], ["explain"],
        ["explain", "--what", "cache"], ["build", "--standalone"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_model_of_one_layer_and_one_token(command: list[str], tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    path.write_text(json.dumps(ONE))
    result = CliRunner().invoke(main, [*command, str(path)])
    assert result.exit_code == 0, result.output
    for noun in ("layer", "token", "sequence", "head", "parameter", "step"):
        assert f" 1 {noun}s" not in f" {result.output}".replace("\n", " "), noun


def test_the_bill_of_one_token() -> None:
    result = CliRunner().invoke(main, ["cost", "specs/gpt2.yaml", "--prompt", "1", "--generate", "1"])
    assert "1 sequence, a prompt of 1 token and 1 more" in result.output


@pytest.mark.parametrize(
    ("layers", "text"),
    [
        ([3], "3"),
        ([0, 1, 2, 3], "0-3"),
        ([0, 2, 4, 6], "0,2..6"),
        ([0, 1, 2, 4, 5, 6, 8, 9, 10], "0-2,4-6,8-10"),
        ([i for i in range(32) if i % 8 in (0, 2, 6)], "0,2,6,+8..30"),
        ([i for i in range(62) if i % 6 != 5], "0-4,+6..61"),
        ([3, 4, 6, 10, 11, 13, 17, 18, 20], "3-4,6,+7..20"),
        ([0, 1, 3, 4, 8, 10, 12, 13, 16, 18, 20], "0-1,3-4,8,10,12-13,16,18,20"),
        ([i * i for i in range(2, 20)], "4,9,16,...,361"),
    ],
)
def test_layers_are_named_so_that_they_can_be_told(layers: list[int], text: str) -> None:
    assert ranges(layers) == text


def test_the_complexity_of_periodic_layers_names_their_period() -> None:
    assert named_layers([0, 2, 6, 8, 10, 14, 16, 18, 22]) == "9 layers (0,2,6,+8..22)"


def test_a_period_in_a_table_of_counts() -> None:
    names = [section.name for section in sections(count(load("specs/jamba_v0_1.yaml")).rows)]
    assert names == ["embedding", "blocks.0,2,6,+8..30", "blocks.1,3..31", "blocks.4,12..28", "norm", "head"]
