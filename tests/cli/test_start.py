"""`archspec init`: templates that validate and teach, the schema beside them, what to do next."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator

from archspec.cli import main
from archspec.language.load import load, loads
from archspec.language.schema import schema
from archspec.language.starter import SCHEMA, USUAL, template, templates
from archspec.passes.count import count
from archspec.passes.expect import check

WANTED = {"llama", "moe", "mamba", "hybrid", "bert", "encdec", "vit", "rnn"}


def run(*command: str) -> Result:
    return CliRunner().invoke(main, [*command])


def test_the_templates_that_there_are() -> None:
    assert templates()[0] == USUAL
    assert set(templates()) >= WANTED
    shown = run("init", "--help").stdout
    assert all(name in shown for name in templates())


@pytest.mark.parametrize("name", templates())
def test_a_template_validates_keeps_its_promises_and_is_sound(name: str) -> None:
    spec = loads(template(name))
    assert spec.warnings == ()
    assert check(spec, count(spec)) == []
    assert spec.expect


@pytest.mark.parametrize("name", templates())
def test_a_template_teaches(name: str) -> None:
    text = template(name)
    first, *lines = text.splitlines()
    assert first == f"# yaml-language-server: $schema={SCHEMA}"
    assert sum("#" in line for line in lines) >= 6
    assert all(len(line) <= 123 for line in lines)
    for topic in re.findall(r"archspec layers (\w+)", text):
        assert run("layers", topic).exit_code == 0
    Draft202012Validator(schema()).validate(yaml.safe_load(text))


@pytest.mark.parametrize("name", templates())
def test_the_commands_of_a_template_are_about_its_own_file(name: str) -> None:
    text = template(name, "'my own.yaml'")
    assert "model.yaml" not in text
    for line in re.findall(r"^#   (archspec .*?)(?:   .*)?$", text, re.MULTILINE):
        words = shlex.split(line)
        assert words[1] in main.commands
        assert "my own.yaml" in words or words[1] in ("layers", "schema")


@pytest.mark.parametrize("name", ["plain.yaml", "with a space.yaml", "-dash.yaml", "sub/inner.yaml"])
def test_it_says_what_it_wrote_and_what_is_next(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sub").mkdir()
    result = run("init", "--template", "llama", "--", name)
    beside = Path(name).parent / SCHEMA
    assert result.stdout == ""
    wrote, schemas, *steps = result.stderr.splitlines()
    assert wrote.startswith(f"wrote {name} (")
    assert schemas.startswith(f"wrote {beside} (")
    assert json.loads(beside.read_text()) == schema()
    commands = [shlex.split(step.partition("#")[0]) for step in steps]
    assert [words[:2] for words in commands] == [
        ["archspec", "validate"],
        ["archspec", "count"],
        ["archspec", "layers"],
    ]
    for words in commands:
        assert run(*words[1:]).exit_code == 0
    assert load(name).name == "llama_350m"


def test_a_file_that_has_the_name_of_the_schema_stays(tmp_path: Path) -> None:
    (tmp_path / SCHEMA).write_text("mine")
    result = run("init", str(tmp_path / "model.yaml"))
    assert "is another file; archspec schema -o writes that for editors elsewhere" in result.stderr
    assert (tmp_path / SCHEMA).read_text() == "mine"
    (tmp_path / SCHEMA).write_text('{"title": "archspec"}')
    assert run("init", str(tmp_path / "other.yaml")).exit_code == 0
    assert json.loads((tmp_path / SCHEMA).read_text()) == schema()


def test_what_goes_to_standard_output_has_nothing_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("init", "-", "--template", "rnn").stdout == template("rnn")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_template_is_wrong_use() -> None:
    result = run("init", "x.yaml", "--template", "lama")
    assert result.exit_code == 2
    assert "no template 'lama'; did you mean 'llama'?" in result.stderr
