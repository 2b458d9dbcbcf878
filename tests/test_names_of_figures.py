"""Each number goes by one name: what a table calls `cache bytes` is `cache_bytes` in JSON."""

import json
from typing import Any

import pytest
from click.testing import CliRunner

from archspec.cli import main

APART = ("work", "", "decoding")  # lines that say what was asked, or spell out the one before
NESTED = {"forward, ": "by_class", "mfu flops, ": "mfu_flops"}


def said(*arguments: str) -> str:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def value(facts: dict[str, Any], name: str) -> Any:
    """The number that JSON has under the name of a line."""
    name = name.removesuffix(" (estimate)")
    for start, key in NESTED.items():
        if name.startswith(start):
            return facts[key][name.removeprefix(start)]
    return facts[name.replace(" ", "_")]


@pytest.mark.parametrize(
    "arguments",
    [
        ["count"], ["cost", "--seq", "64"], ["cost", "--seq", "64", "--checkpoint", "block"],
        ["cost", "--phase", "prefill", "--seq", "64"], ["cost", "--phase", "decode", "--context", "64"],
        ["cost", "--generate", "9", "--prompt", "64", "--batch", "2"],
    ],
    ids=" ".join,
)  # fmt: skip
@pytest.mark.parametrize("spec", ["jamba_v0_1", "gemma2_2b"])
def test_table_and_json_agree_on_names_and_numbers(arguments: list[str], spec: str) -> None:
    command, *options = arguments
    path = f"specs/{spec}.yaml"
    facts = json.loads(said(command, path, *options, "--format", "json"))
    footer = said(command, path, *options).rstrip().split("\n\n")[-1].splitlines()
    checked = 0
    for line in footer:
        name, _, text = line.partition("  ")
        if name not in APART:
            assert int(text.split()[0].strip(",;").replace(",", "")) == value(facts, name), line
            checked += 1
    assert checked >= 6


def test_the_columns_of_a_cost_are_called_as_its_records_are() -> None:
    header = said("cost", "specs/gpt2.yaml", "--checkpoint", "block").splitlines()[2]
    record = json.loads(said("cost", "specs/gpt2.yaml", "--checkpoint", "block", "--format", "json"))["layers"][0]
    columns = {name.replace(" ", "_") for name in header.split("  ") if name.strip()}
    columns = {name.strip("_") for name in columns} - {"layer", "share"}
    assert columns <= set(record), columns - set(record)
