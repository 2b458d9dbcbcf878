"""What commands say beside their result: what they wrote, more with `--verbose`, nothing with `-q`."""

import re
import sys
from pathlib import Path

import pytest
from command_line import run

from archspec.cli.progress import Progress

TINY = "specs/bert_tiny.yaml"
SCHEMA = r"wrote .*archspec\.schema\.json \([\d,]+ lines\)\n"  # beside the spec
WARNED = "specs/warned/definitions.yaml"


def writing(tmp_path: Path) -> list[tuple[list[str], str]]:
    """Commands that write a file, and what they say of it."""
    path = str(tmp_path / "out")
    return [
        (["build", TINY, "-o", f"{path}.py"], rf"wrote {path}\.py \(\d+ lines\)\n"),
        (["render", TINY, "-o", f"{path}.dot"], rf"wrote {path}\.dot\n"),
        (["schema", "-o", f"{path}.json"], rf"wrote {path}\.json \([\d,]+ lines\)\n"),
        (["init", f"{path}.yaml"], rf"wrote {path}\.yaml \(\d+ lines\)\n{SCHEMA}( +archspec .*\n){{3}}"),
    ]


@pytest.mark.parametrize("which", range(4), ids=["build", "render", "schema", "init"])
def test_what_was_written_is_said_unless_quiet(tmp_path: Path, which: int) -> None:
    command, said = writing(tmp_path)[which]
    result = run(*command)
    assert (result.exit_code, result.stdout) == (0, "")
    assert re.fullmatch(said, result.stderr)
    quiet = run(*command, "-q", *(["--force"] if command[0] == "init" else []))
    assert (quiet.exit_code, quiet.stdout, quiet.stderr) == (0, "", "")


def test_what_is_printed_is_not_said_to_be_written() -> None:
    for command in (["schema"], ["schema", "-o", "-"], ["init", "-"]):
        assert run(*command).stderr == ""


@pytest.mark.parametrize("arguments", [["-q", "count", WARNED], ["count", WARNED, "--quiet"]])
def test_quiet_leaves_the_result_and_no_warning(arguments: list[str]) -> None:
    assert "warning" in run("count", WARNED).stderr
    result = run(*arguments)
    assert result.stderr == ""
    assert result.stdout == run("count", WARNED).stdout


@pytest.mark.parametrize("command", ["validate", "count", "show", "build"])
def test_quiet_never_silences_an_error(command: str) -> None:
    result = run(command, "-q", TINY, "--set", "d_modle=8")
    assert result.exit_code == 1
    assert "did you mean 'd_model'?" in result.stderr
    assert "Missing argument" in run(command, "-q").stderr


def test_quiet_validation_speaks_of_what_is_wrong_alone() -> None:
    result = run("validate", "-q", TINY, WARNED, "no_such.yaml")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "no_such.yaml: no such file\n1 problem in no_such.yaml\n"
    assert run("validate", "-q", WARNED, "--format", "github").stdout == ""
    assert "warning: " not in run("validate", "-q", WARNED, "--strict").stderr
    assert run("validate", "-q", WARNED, "--strict").exit_code == 1


def test_verbose_says_what_is_read_and_how_long_it_takes(tmp_path: Path) -> None:
    path = tmp_path / "over.yaml"
    (tmp_path / "base.yaml").write_text(Path(TINY).read_text())
    path.write_text("extends: base.yaml\n")
    result = run("count", str(path), "--verbose")
    lines = result.stderr.splitlines()
    assert re.fullmatch(rf"loading {path}: \d\.\d{{3}} s", lines[0])
    assert lines[1] == f"read {path.resolve()}, which extends {(tmp_path / 'base.yaml').resolve()}"
    assert re.fullmatch(r"counting: \d\.\d{3} s", lines[2])
    assert result.stdout == run("count", str(path)).stdout


def test_quiet_and_verbose_at_once_is_wrong_use() -> None:
    for arguments in (["-q", "count", TINY, "--verbose"], ["count", TINY, "-q", "--verbose"]):
        result = run(*arguments)
        assert result.exit_code == 2
        assert "-q and --verbose contradict one another" in result.stderr


def test_quiet_is_of_one_command_line_alone() -> None:
    run("-q", "count", WARNED)
    assert "warning" in run("count", WARNED).stderr


def test_progress_on_a_terminal_is_no_thread_where_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert Progress("working").thread is not None
    monkeypatch.setattr("archspec.cli.progress.voice", lambda: -1)
    assert Progress("working").thread is None
