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


@pytest.mark.parametrize(
    ("setting", "character"),
    [
        ("d_m\u043edel=8", "U+043E is CYRILLIC SMALL LETTER O"),
        ("\uff44_model=8", "U+FF44 is FULLWIDTH LATIN SMALL LETTER D"),
        ("d_model\u200b=8", "U+200B is ZERO WIDTH SPACE"),
        ("d_model=\uff18", "U+FF18 is FULLWIDTH DIGIT EIGHT"),
        ("m\u0430sk=causal", "U+0430 is CYRILLIC SMALL LETTER A"),
        ("mask=c\u0430usal", "U+0430 is CYRILLIC SMALL LETTER A"),
        ("head=\u04cfm", "U+04CF is CYRILLIC SMALL LETTER PALOCHKA"),
        ("wiring=p\u0433e", "U+0433 is CYRILLIC SMALL LETTER GHE"),
        ("wiring=x = x + ff\u043f(x)", "U+043F is CYRILLIC SMALL LETTER PE"),
        ("blocks=\u0430ttn", "U+0430 is CYRILLIC SMALL LETTER A"),
        ("blocks[0].mixer.n_h\u0435ads=2", "U+0435 is CYRILLIC SMALL LETTER IE"),
        ("expect.par\u0430ms=2", "U+0430 is CYRILLIC SMALL LETTER A"),
        ("sizes.\u0435=2", "U+0435 is CYRILLIC SMALL LETTER IE"),
    ],
)
def test_letters_that_look_like_others_are_named(setting: str, character: str) -> None:
    """Beside what was probably meant, which looks the same."""
    result = CliRunner().invoke(main, ["validate", TINY, "--set", setting])
    assert result.exit_code == 1
    assert f"({character})" in result.stderr


@pytest.mark.parametrize("arguments", [["layers", "\u0430ttention"], ["c\u043eunt", TINY]])
def test_letters_of_the_command_line_are_named(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "is CYRILLIC SMALL LETTER" in result.stderr


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
