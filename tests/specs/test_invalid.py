"""Every wrong spec of `specs/invalid` is refused with exactly the message that stands beside it.

`pytest tests/specs/test_invalid.py --update-golden` rewrites the messages; read the difference before you keep it.
"""

import re
from pathlib import Path

import pytest

from archspec.errors import SpecError
from archspec.language.load import load
from archspec.passes.count import count
from archspec.passes.expect import check

FOLDER = Path(__file__).parents[2] / "specs" / "invalid"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
LINE = re.compile(r"[\w./-]+\.yaml(?::\d+:\d+)?: .+")
INSIDE = ("pydantic", "Traceback", "Node(", "Mark(", "mappingproxy", "Input should", "validation error", "<class")


def told(name: str) -> str:
    """What `archspec validate` says of a wrong spec."""
    with pytest.raises(SpecError) as caught:
        validate(f"{name}.yaml")
    return f"{caught.value}\n"


def validate(file: str) -> None:
    """Raise SpecError for a wrong spec, and for one that does not keep its promise."""
    spec = load(file)
    if broken := check(spec, count(spec)):
        raise SpecError(broken, file)


@pytest.mark.parametrize("name", NAMES)
def test_the_message_is_exactly_the_expected_one(
    name: str, update_golden: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(FOLDER)
    message = told(name)
    golden = FOLDER / f"{name}.txt"
    if update_golden:
        golden.write_text(message, encoding="utf-8", newline="\n")
    assert message == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_the_message_has_the_form_of_all_messages(name: str) -> None:
    *lines, last = (FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    assert last == f"{len(lines)} problem{'s' if len(lines) != 1 else ''} in {name}.yaml"
    for line in lines:
        assert LINE.fullmatch(line)
        assert not any(word in line for word in INSIDE)
        assert len(line) < 400
    places = [tuple(map(int, m.groups())) for line in lines if (m := re.match(rf"{name}\.yaml:(\d+):(\d+):", line))]
    assert places == sorted(places)


def test_there_are_many_and_none_is_left_over() -> None:
    assert len(NAMES) >= 60
    assert {path.stem for path in FOLDER.glob("*.txt")} == set(NAMES)
