"""`archspec verify`: the text is checked before PyTorch is imported, and lines are printed as checks end."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import archspec
from archspec.cli import main
from archspec.verify import Check, Report, Verdict

TINY = "specs/bert_tiny.yaml"


def test_a_mistake_in_the_text_needs_no_torch(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(Path(TINY).read_text().replace("d_model", "d_modle"))
    code = (
        "import sys, atexit; from archspec.cli import main\n"
        "atexit.register(lambda: print('torch' in sys.modules))\n"
        f"main(['verify', {str(bad)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "d_modle" in done.stderr
    assert done.stdout == "False\n"


def test_lines_are_printed_as_checks_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def stops(spec: Any, **calls: Any) -> Report:
        calls["begun"]("toy:")
        calls["progress"]("causal")
        calls["found"](Check("causal", Verdict.HOLDS, "to the bit"))
        raise LookupError

    monkeypatch.setattr(archspec, "verify", stops)
    result = CliRunner().invoke(main, ["verify", TINY])
    assert isinstance(result.exception, LookupError)
    assert result.stdout == "toy:\n  ok   causal             to the bit\n"


def test_each_line_leaves_the_process_at_once() -> None:
    """In a pipe, the first line can be read while the last check has not begun."""
    code = (
        "import sys; from importlib import import_module; from archspec.cli import main\n"
        "run = import_module('archspec.verify.run')\n"
        "last = run.OF_SAMPLE[0]\n"
        "run.OF_SAMPLE = (('waits', lambda sample: sys.stdin.readline() and last[1](sample)),)\n"
        f"main(['verify', {TINY!r}])"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        assert lines[0] == "bert_tiny:\n"
        assert lines[2].startswith("  ok   declared")
        process.stdin.write("go on\n")
        process.stdin.close()
        rest = process.stdout.read()
    assert rest.splitlines()[-1] == "bert_tiny: every check holds (3)"


def test_the_printed_lines_are_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    reports: list[Report] = []
    real = archspec.verify

    def kept(*args: Any, **calls: Any) -> Report:
        reports.append(real(*args, **calls))
        return reports[-1]

    monkeypatch.setattr(archspec, "verify", kept)
    result = CliRunner().invoke(main, ["verify", TINY])
    assert result.exit_code == 0
    assert result.stdout == f"{reports[0]}\n"


def test_threads_are_left_as_they_were() -> None:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    seen: list[int] = []
    archspec.verify(archspec.load(TINY), progress=lambda name: seen.append(torch.get_num_threads()))
    assert set(seen) == {2}
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
