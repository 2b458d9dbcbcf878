"""Tables fit the terminal, and are as wide as they are in a pipe."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import run

import archspec
from archspec.cli import printing

TABLES = [
    ["count"], ["count", "--by", "tensor"], ["count", "--by", "kind"], ["cost"], ["cost", "--phase", "decode"],
    ["cost", "--generate", "5", "--prompt", "7"], ["complexity"], ["explain", "--what", "params"], ["explain"],
    ["show"],
]  # fmt: skip
PAGES = [["complexity", "--kinds"], ["layers"], ["layers", "attention"], ["layers", "moe"], ["layers", "rope scaling"]]
SPECS = ["specs/jamba_v0_1.yaml", "specs/t5_small.yaml"]


def on(columns: int | None, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[str]:
    monkeypatch.setattr(printing, "columns", lambda: columns)
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout.splitlines()


def numbers(lines: list[str]) -> set[str]:
    """Whole numbers with all of their digits, which no fold may cut."""
    return set(re.findall(r"\d{1,3}(?:,\d{3})+", "\n".join(lines)))


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("command", TABLES, ids=" ".join)
def test_every_table_fits_eighty_columns(command: list[str], spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = on(None, monkeypatch, *command, spec)
    fitting = on(80, monkeypatch, *command, spec)
    assert max(map(len, fitting)) <= 80
    if command != ["count"]:  # which leaves out the remarks on sums
        assert numbers(fitting) == numbers(whole)


@pytest.mark.parametrize("command", PAGES, ids=" ".join)
def test_every_page_fits_eighty_columns(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    lines = on(80, monkeypatch, *command)
    assert max(map(len, lines)) <= 80
    words = " ".join(" ".join(on(None, monkeypatch, *command)).split())
    for word in re.findall(r"[a-z]{4,}", words):
        assert word in " ".join(lines) or word in "".join(line.strip() for line in lines), word


@pytest.mark.parametrize("columns", [20, 33, 60])
@pytest.mark.parametrize("command", [["count"], ["cost"], ["complexity"], ["explain"]], ids=" ".join)
def test_a_very_narrow_terminal_loses_no_digit(
    command: list[str], columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = "specs/bert_tiny.yaml"
    found = numbers(on(columns, monkeypatch, *command, spec))
    assert found >= numbers(on(80, monkeypatch, *command, spec))


def test_a_table_that_fits_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["count", "specs/bert_tiny.yaml", "--by", "tensor"]
    assert on(80, monkeypatch, *command) == on(None, monkeypatch, *command)


def test_remarks_on_sums_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["count", "specs/gpt2.yaml"]
    whole, fitting = on(None, monkeypatch, *command), on(88, monkeypatch, *command)
    assert max(map(len, whole)) > 88
    assert any("one layer" in line and "mixer 2,362,368" in line for line in whole)
    assert not any("mixer 2,362,368" in line for line in fitting)
    rows = [line for line in whole if re.match(r" +\d+  ", line)]
    assert [line for line in fitting if re.match(r" +\d+  ", line)] == rows  # nothing is folded yet


@pytest.mark.parametrize("form", ["json", "csv", "markdown"])
def test_other_formats_are_never_folded(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["count", SPECS[0], "--format", form]
    lines = on(40, monkeypatch, *command)
    assert lines == on(None, monkeypatch, *command)
    if form == "csv":
        assert len(list(csv.reader(lines))) == len(lines)


@pytest.mark.parametrize("path", sorted(Path("specs").glob("*.yaml")), ids=lambda path: path.stem)
@pytest.mark.parametrize("columns", [30, 80])
def test_a_shown_spec_says_the_same_when_it_is_folded(
    path: Path, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(printing, "columns", lambda: columns)
    text = run("show", str(path)).stdout
    assert archspec.loads(text) == archspec.load(path)


def test_verify_folds_its_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    class Report:
        passed, summary = True, "what was checked " * 9

    monkeypatch.setattr(archspec, "verify", lambda spec, **calls: Report())
    lines = on(40, monkeypatch, "verify", "specs/bert_tiny.yaml")
    assert len(lines) > 3
    assert max(map(len, lines)) <= 40


# The terminal


def answers(columns: int, environment: dict[str, str], *arguments: str) -> list[str]:
    """What a command prints on a real terminal of so many columns."""
    pty: Any = pytest.importorskip("pty")
    fcntl, termios, struct = (pytest.importorskip(name) for name in ("fcntl", "termios", "struct"))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | environment
    process = subprocess.Popen([sys.executable, "-m", "archspec", *arguments], stdout=theirs, env=env)
    os.close(theirs)
    found = b""
    while True:
        try:
            piece = os.read(ours, 1 << 16)
        except OSError:  # Linux's end of a terminal that nobody writes to any more
            break
        if not piece:
            break
        found += piece
    os.close(ours)
    assert process.wait() == 0
    return found.decode().splitlines()


def test_a_real_terminal_is_asked_for_its_width() -> None:
    whole = [0, *map(len, run("count", SPECS[1]).stdout.splitlines())]
    assert max(whole) > 120
    for columns, environment, most in ((97, {}, 97), (97, {"COLUMNS": "0"}, 97), (97, {"COLUMNS": "70"}, 70)):
        widest = max(map(len, answers(columns, environment, "count", SPECS[1])))
        assert most - 20 < widest <= most, (columns, environment)


def test_fields_that_fit_no_table_stand_one_below_the_other() -> None:
    lines = answers(24, {}, "layers", "attention")
    assert max(map(len, lines)) <= 24
    assert "n_heads" in lines
    assert any(line.startswith("  type: ") for line in lines)


def test_a_pipe_is_as_wide_as_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert max(map(len, run("count", SPECS[1]).stdout.splitlines())) > 120


@pytest.mark.parametrize(("columns", "width"), [("20", 20), ("1", 20), ("-5", 80), ("wide", 80)])
def test_columns_that_are_none_are_not_believed(columns: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(sys, "stdout", type("Terminal", (), {"isatty": lambda self: True})())
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((80, 24)))
    assert printing.columns() == width
