"""What a command does not need, it does not load."""

import gc
import os
import subprocess
import sys

import pytest
from command_line import run

import archspec
from archspec.cli.console import OBJECTS, PLUGINS

SPEC = "specs/bert_tiny.yaml"
NEEDLESS = (
    "difflib", "tempfile", "html.entities", "archspec.cli.excerpt", "archspec.cli.paths", "archspec.cli.shells",
    "archspec.files", "archspec.language.schema", "archspec.passes.cost", "archspec.report.cost",
    "click.shell_completion",
)  # fmt: skip


def loaded(*arguments: str) -> set[str]:
    """The modules that a new process has loaded at the end of a command; pydantic's own way to difflib is cut off."""
    script = (
        "import atexit, sys\natexit.register(lambda: print('loaded:', *sys.modules))\n"
        f"from archspec.cli import main\nmain({[*arguments]!r})"
    )
    done = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, text=True, env=environment())
    return set(done.stdout.rpartition("loaded:")[2].split())


def environment() -> dict[str, str]:
    """Without site, which loads much in an editable installation: only the folders of packages."""
    return {"PYTHONPATH": ":".join([".", *(path for path in sys.path if path)])}


@pytest.mark.parametrize("command", [["--help"], ["validate", SPEC], ["count", SPEC], ["show", SPEC]], ids=" ".join)
def test_a_command_loads_nothing_needless(command: list[str]) -> None:
    found = loaded(*command)
    assert "archspec.cli.commands" in found
    needless = {*NEEDLESS} - ({"tempfile"} if command != ["--help"] else set())  # importlib.metadata, of pydantic
    assert found & needless == set()
    if command == ["--help"]:
        assert found & {"pydantic", "yaml", "archspec.language", "archspec.report", "json"} == set()


def test_what_makes_a_command_start_quickly_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PLUGINS, raising=False)
    usual, inside = gc.get_threshold(), []
    monkeypatch.setattr(archspec, "show", lambda spec: str(inside.append((gc.get_threshold(), os.environ[PLUGINS]))))
    run("show", SPEC)
    run("show", "no_such.yaml")
    assert inside == [((OBJECTS, *usual[1:]), "__all__")]
    assert (gc.get_threshold(), os.environ.get(PLUGINS)) == (usual, None)
