"""What strangers may put into names and values: control characters never reach the terminal, zero is not nothing."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import archspec
from archspec.cli import main
from archspec.errors import WriteError, printable
from archspec.files import write

TINY = "specs/bert_tiny.yaml"
BELL, ESCAPE, OVERRIDE = "\a", "\x1b]0;owned\a", "\u202e"


@pytest.mark.parametrize("bad", [BELL, ESCAPE, OVERRIDE, "\x9b31m", "\x7f"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["validate", "{}.yaml"],
        ["validate", TINY, "--set", "d_model={}"],
        ["validate", TINY, "--set", "{}=1"],
        ["validate", TINY, "--set", "name={}"],
        ["validate", TINY, "--set", "blocks={}"],
        ["validate", TINY, "--set", "define.{}=1"],
        ["validate", TINY, "--set", "define.{}.ffn=mlp"],
        ["validate", TINY, "--set", "sizes.{}=1"],
        ["validate", TINY, "--set", "wiring={}"],
        ["validate", TINY, "--set", "expect.params={}"],
        ["validate", TINY, "--set", "{}"],
        ["{}"],
        ["count", "--{}"],
        ["count", TINY, "{}"],
        ["count", TINY, "--by", "{}"],
        ["layers", "{}"],
        ["render", TINY, "-o", "{}"],
        ["build", TINY, "-o", "no/{}/model.py"],
        ["init", "no/{}"],
        ["completion", "{}"],
    ],
    ids=" ".join,
)
def test_no_control_character_is_echoed(arguments: list[str], bad: str) -> None:
    result = CliRunner().invoke(main, [argument.replace("{}", bad) for argument in arguments])
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code
    assert all(line.isprintable() for line in result.output.split("\n"))
    assert "Traceback" not in result.output


def test_names_of_files_are_printed_without_control_characters(tmp_path: Path) -> None:
    path = tmp_path / f"a{ESCAPE}.yaml"
    assert "owned" in (told := CliRunner().invoke(main, ["init", str(path)]).output)
    assert all(line.isprintable() for line in told.split("\n"))
    told = CliRunner().invoke(main, ["validate", str(path)]).output
    assert r"a\x1b]0;owned\x07.yaml: ok" in told


def test_errors_in_python_are_printable_too(tmp_path: Path) -> None:
    with pytest.raises(archspec.SpecError) as caught:
        archspec.loads('name: "\\u202e"\n', f"a{ESCAPE}")
    assert all(line.isprintable() for line in str(caught.value).split("\n"))
    with pytest.raises(WriteError) as failed:
        write(tmp_path / ESCAPE / "x", b"")
    assert str(failed.value).isprintable()
    assert printable("é\ud800\n") == r"é\ud800\n"


SLOTS: dict[str, dict[str, Any]] = {
    "mixer": {"blocks": [{"mixer": 0, "ffn": "mlp"}]},
    "ffn": {"blocks": [{"mixer": "lstm", "ffn": 0}]},
    "cross": {"blocks": [{"mixer": "lstm", "cross": 0}]},
    "block": {"blocks": [0]},
    "embedding": {"embedding": 0},
    "head": {"head": 0},
    "init": {"init": 0},
    "norm": {"norm": 0},
    "final_norm": {"final_norm": 0},
    "position of the embedding": {"embedding": {"kind": "token", "position": 0}},
    "norm of the embedding": {"embedding": {"kind": "token", "norm": 0}},
    "position of a mixer": {"blocks": [{"mixer": {"kind": "attention", "n_heads": 2, "position": 0}}]},
    "norm of a mixer": {"blocks": [{"mixer": {"kind": "mamba", "bcdt_norm": 0}}]},
    "module": {"blocks": [{"mixer": "lstm", "modules": {"more": 0}}]},
    "scaling": {"blocks": [{"mixer": {"kind": "attention", "n_heads": 2, "position": {"kind": "rope", "scaling": 0}}}]},
}


def filled(document: Any, value: Any) -> Any:
    """The document with the value in the place of each zero."""
    if isinstance(document, dict):
        return {key: filled(child, value) for key, child in document.items()}
    return [filled(child, value) for child in document] if isinstance(document, list) else document or value


@pytest.mark.parametrize("value", ["0", "0.0", "-0.0", "1e-400"])
@pytest.mark.parametrize("slot", SLOTS)
def test_zero_is_not_nothing(slot: str, value: str) -> None:
    sizes = {"d_model": 8, "vocab_size": 5, "max_seq_len": 8, "blocks": ["lstm"]}
    with pytest.raises(archspec.SpecError, match="not a number"):
        archspec.load(sizes | filled(SLOTS[slot], float(value) if "." in value or "e" in value else 0))
