"""The unrelated package of the same import name, installed before or after ours: the command says so in a sentence."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from archspec.cli.console import NEIGHBOUR, SHARED

ROOT = Path(__file__).parents[2]


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder of packages with ours, and a part of theirs."""
    for source, target in (("archspec", "archspec"), ("kernels", "archspec/kernels")):
        shutil.copytree(ROOT / source, tmp_path / target, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "archspec" / "cpu").mkdir()
    (tmp_path / "archspec" / "cpu" / "__init__.py").touch()
    return tmp_path


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    script = "from archspec.cli import main; main(['count', 'specs/bert_tiny.yaml'])"
    environment = os.environ | {"PYTHONPATH": str(folder)}
    command = [sys.executable, "-P", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)


def test_ours_came_last(installed: Path) -> None:
    done = run(installed)
    assert done.returncode == 0
    assert "1,253" in done.stdout
    assert done.stderr == f"warning: {SHARED}\n"


def test_theirs_came_last(installed: Path) -> None:
    (installed / "archspec" / "__init__.py").write_text('__version__ = "0.2.5"\n')
    done = run(installed)
    assert done.returncode == 1
    assert done.stderr == f"warning: {SHARED}\n"


def test_alone_nothing_is_said() -> None:
    assert not os.path.exists(NEIGHBOUR)
    assert run(ROOT).stderr == ""
