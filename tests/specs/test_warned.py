"""Every spec of `specs/warned` is accepted, with exactly the warnings that stand beside it; published ones without any.

`pytest tests/specs/test_warned.py --update-golden` rewrites them; read the difference before you keep it.
"""

import re
import warnings
from pathlib import Path

import pytest
from click.testing import CliRunner

import archspec
from archspec.cli import main

FOLDER = Path(__file__).parents[2] / "specs" / "warned"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def without_excerpts(text: str) -> list[str]:
    """The lines of messages, without the two that show the line of a spec and a caret under each of them."""
    lines = text.splitlines()
    carets = [i for i, line in enumerate(lines) if re.fullmatch(r" +\| +\^", line)]
    assert all(re.match(r" +\d+ \| ", lines[i - 1]) for i in carets)
    return [line for i, line in enumerate(lines) if i not in carets and i + 1 not in carets]


@pytest.mark.parametrize("name", NAMES)
def test_the_warnings_are_exactly_the_expected_ones(
    name: str, update_golden: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(FOLDER)
    golden = FOLDER / f"{name}.txt"
    result = CliRunner().invoke(main, ["validate", f"{name}.yaml"])
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{name}.yaml: ok")
    told = "".join(f"{line}\n" for line in without_excerpts(result.stderr))
    if update_golden:
        golden.write_text(told, encoding="utf-8", newline="\n")
    assert told == golden.read_text(encoding="utf-8")
    assert all(": warning: " in line for line in told.splitlines())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("command", ["validate", "show", "count", "build", "render", "verify"])
def test_strict_takes_warnings_for_mistakes(
    name: str, command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(FOLDER)
    extra = ["-o", str(tmp_path / "x.dot")] if command == "render" else []
    result = CliRunner().invoke(main, [command, f"{name}.yaml", "--strict", *extra])
    assert result.exit_code == 1
    assert result.stdout == ""
    lines = (FOLDER / f"{name}.txt").read_text().replace(": warning: ", ": ").splitlines()
    assert without_excerpts(result.stderr) == [*lines, f"{len(lines)} problem{'s' * (len(lines) > 1)} in {name}.yaml"]
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", NAMES)
def test_python_warns_in_the_same_words(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    with pytest.warns(archspec.SpecWarning) as caught:
        spec = archspec.load(f"{name}.yaml")
    told = (FOLDER / f"{name}.txt").read_text().replace(": warning: ", ": ").splitlines()
    assert [str(warning.message) for warning in caught] == [*map(str, spec.warnings)] == told
    assert {warning.filename for warning in caught} == {__file__}
    assert archspec.loads(Path(f"{name}.yaml").read_text()) == spec
    with warnings.catch_warnings():
        warnings.simplefilter("error", archspec.SpecWarning)
        with pytest.raises(archspec.SpecWarning):
            archspec.load(f"{name}.yaml")


@pytest.mark.parametrize("path", sorted(FOLDER.parent.glob("*.yaml")), ids=lambda path: path.stem)
def test_published_specs_are_not_warned_of(path: Path) -> None:
    assert archspec.load(path).warnings == ()


def test_none_is_left_over() -> None:
    assert {path.stem for path in FOLDER.glob("*.txt")} == set(NAMES)
