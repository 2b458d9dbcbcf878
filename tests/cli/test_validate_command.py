"""`archspec validate`: folders and many files, the lines that are wrong, JSON and GitHub's annotations."""

import json
import os
from pathlib import Path

import pytest
from command_line import run

from archspec.cli.validate import annotation
from archspec.errors import Mark, Problem

TINY = "specs/bert_tiny.yaml"
WARNED = "specs/warned/definitions.yaml"
GOOD = "{d_model: 8, vocab_size: 5, blocks: [{ffn: mlp}]}\n"
BAD = "d_model: 8\nvocab_size: 5\nblocks:\n  - {ffn: mlp, dropout: 2}\n"
WRONG = "blocks[0].dropout: dropout = 2 must be a number at least 0 and below 1"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, in which the command runs, with good and bad specs at several depths."""
    for name in ("a.yaml", "below/b.yml", "below/deep/C.YAML", ".hidden/d.yaml"):
        path = tmp_path / "specs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(GOOD)
    (tmp_path / "specs" / "notes.txt").write_text("no spec")
    (tmp_path / "bad.yaml").write_text(BAD)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(*arguments: str) -> list[str]:
    return [each["file"] for each in json.loads(run("validate", "--format", "json", *arguments).stdout)["files"]]


# Folders and many files


def test_a_folder_stands_for_every_yaml_file_in_it(folder: Path) -> None:
    assert files("specs") == ["specs/a.yaml", "specs/below/b.yml", "specs/below/deep/C.YAML"]
    assert run("validate", "specs").stdout.splitlines()[1] == "specs/below/b.yml: ok, 1 layer, 568 parameters"
    assert files("specs/.hidden") == ["specs/.hidden/d.yaml"]


def test_a_file_is_checked_once_whatever_it_is_called(folder: Path) -> None:
    (folder / "link.yaml").symlink_to("specs/a.yaml")
    assert files("specs/below", "./specs/below/b.yml", "specs/below/") == [
        "specs/below/b.yml",
        "specs/below/deep/C.YAML",
    ]
    assert files("link.yaml", "specs/a.yaml", "bad.yaml", "bad.yaml") == ["link.yaml", "bad.yaml"]


def test_links_that_go_in_a_circle_end(folder: Path) -> None:
    (folder / "specs" / "below" / "up").symlink_to("..")
    (folder / "specs" / "self.yaml").symlink_to("self.yaml")
    found = json.loads(run("validate", "specs", "--format", "json").stdout)["files"]
    assert [each["file"] for each in found if each["ok"]] == files("specs")[:1] + files("specs/below")
    assert [each["errors"][0]["message"] for each in found if not each["ok"]] == [
        "is a symbolic link that leads back to itself"
    ]


def test_a_folder_without_yaml_is_a_mistake(folder: Path) -> None:
    (folder / "empty").mkdir()
    result = run("validate", "empty", "specs/a.yaml")
    assert result.exit_code == 1
    assert result.stderr == "empty: holds no YAML file (.yaml, .yml)\n1 problem in empty\n"
    assert result.stdout.startswith("specs/a.yaml: ok")


def test_a_folder_that_cannot_be_read_is_a_mistake(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("below"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", refusing)
    result = run("validate", "specs")
    assert result.exit_code == 1
    assert result.stderr == "specs/below: cannot be read: Permission denied\n1 problem in specs/below\n"
    assert result.stdout.startswith("specs/a.yaml: ok")


# Lines and carets


def test_the_line_stands_under_the_mistake_with_a_caret(folder: Path) -> None:
    result = run("validate", "bad.yaml")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f"bad.yaml:4:25: {WRONG}",
        "    4 |   - {ffn: mlp, dropout: 2}",
        "      |                         ^",
        "1 problem in bad.yaml",
    ]


def test_a_line_of_standard_input_is_shown_too() -> None:
    assert "    4 |   - {ffn: mlp, dropout: 2}\n" in run("validate", "-", stdin=BAD).stderr


def test_a_place_in_an_extended_file_shows_its_line(folder: Path) -> None:
    (folder / "over.yaml").write_text("extends: bad.yaml\nd_model: 16\n")
    lines = run("validate", "over.yaml").stderr.splitlines()
    assert lines[:2] == [f"bad.yaml:4:25: {WRONG}", "    4 |   - {ffn: mlp, dropout: 2}"]
    assert lines[-1] == "1 problem in over.yaml"


def test_a_place_in_a_setting_has_no_line() -> None:
    lines = run("validate", TINY, "--set", "d_modle=8").stderr.splitlines()
    assert lines[0].startswith("--set d_modle=8: d_modle: a spec has no 'd_modle'")
    assert len(lines) == 2


def test_other_commands_show_the_line_as_well(folder: Path) -> None:
    assert "      |                         ^\n" in run("count", "bad.yaml").stderr


def test_warnings_have_their_lines_and_strict_makes_mistakes_of_them() -> None:
    result = run("validate", WARNED)
    assert result.exit_code == 0
    assert result.stdout == f"{WARNED}: ok, 1 layer, 22,912 parameters\n"
    lines = result.stderr.splitlines()
    assert lines[0] == f"{WARNED}:4:17: warning: sizes.expand: no arithmetic names it, so it has no effect"
    assert lines[1:3] == ["    4 | sizes: {expand: 2}", "      |                 ^"]
    strict = run("validate", WARNED, "--strict")
    assert (strict.exit_code, strict.stdout) == (1, "")
    assert strict.stderr.splitlines()[-1] == f"{len(lines) // 3} problems in {WARNED}"


@pytest.mark.parametrize(("n", "lines"), [(20, 61), (21, 22)])
def test_of_many_mistakes_the_places_are_enough(tmp_path: Path, n: int, lines: int) -> None:
    path = tmp_path / "many.yaml"
    path.write_text(GOOD.replace("{d_model", "{" + "".join(f"\n x{i}: 1," for i in range(n)) + "\n d_model"))
    assert len(run("validate", str(path)).stderr.splitlines()) == lines


# JSON


def test_json_says_all_of_every_file(folder: Path) -> None:
    result = run("validate", "bad.yaml", "specs/a.yaml", "missing.yaml", "--format", "json")
    assert (result.exit_code, result.stderr) == (1, "")
    found = json.loads(result.stdout)
    assert found["ok"] is False
    bad, good, missing = found["files"]
    place = {"file": "bad.yaml", "line": 4, "column": 25, "path": "blocks[0].dropout"}
    assert bad["errors"] == [place | {"message": WRONG.partition(": ")[2]}]
    assert (bad["ok"], bad["total"]) == (False, None)
    assert good == {
        "file": "specs/a.yaml", "ok": True, "name": "model", "layers": 1, "total": 568, "errors": [], "warnings": [],
    }  # fmt: skip
    assert missing["errors"] == [
        {"file": "missing.yaml", "line": None, "column": None, "path": "", "message": "no such file"}
    ]


def test_json_of_a_good_spec_has_its_warnings() -> None:
    found = json.loads(run("validate", WARNED, "--format", "json").stdout)
    assert found["ok"] is True
    assert {w["line"] for w in found["files"][0]["warnings"]} == {4, 7, 8}
    strict = run("validate", WARNED, "--format", "json", "--strict")
    assert strict.exit_code == 1
    (each,) = json.loads(strict.stdout)["files"]
    assert (each["errors"], each["warnings"]) == (found["files"][0]["warnings"], [])


# GitHub


def test_annotations_name_file_line_and_column(folder: Path) -> None:
    result = run("validate", "bad.yaml", "specs/a.yaml", "--format", "github")
    assert (result.exit_code, result.stderr) == (1, "")
    assert result.stdout.splitlines() == [
        f"::error file=bad.yaml,line=4,col=25::{WRONG}",
        "2 files, 1 error, 0 warnings",
    ]


def test_annotations_of_warnings_and_settings() -> None:
    lines = run("validate", WARNED, "--format", "github").stdout.splitlines()
    assert lines[0].startswith(f"::warning file={WARNED},line=4,col=17::sizes.expand: ")
    (line, _) = run("validate", TINY, "--set", "d_modle=8", "--format", "github").stdout.splitlines()
    assert line.startswith(f"::error file={TINY}::--set d_modle=8: d_modle: a spec has no 'd_modle'")


@pytest.mark.parametrize(
    ("file", "message", "line"),
    [
        ("a,b:c%.yaml", "100% wrong: a, b", "::error file=a%2Cb%3Ac%25.yaml,line=1,col=2::100%25 wrong: a, b"),
        ("x\ny.yaml", "one\ntwo\r::error::three", "::error file=x%0Ay.yaml,line=1,col=2::one%0Atwo%0D::error::three"),
    ],
    ids=["properties", "lines"],
)
def test_annotations_cannot_be_broken_out_of(file: str, message: str, line: str) -> None:
    assert annotation("error", Problem(Mark(file, 1, 2), "", message), file) == line
