"""Standard streams that are full, closed, not read or of another encoding; each command in a process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TINY = "specs/bert_tiny.yaml"
WARNED = "specs/warned/definitions.yaml"
COMMANDS = [
    ["--help"], ["--version"], ["count", "--help"], ["validate", TINY, "specs/gpt2.yaml"], ["show", TINY],
    ["count", TINY], ["count", TINY, "--format", "json"], ["build", TINY], ["build", TINY, "-o", "-"], ["layers"],
    ["layers", "attention"], ["schema"], ["init", "-"], ["completion", "bash"], ["count", WARNED],
]  # fmt: skip
FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")


def shell(command: list[str], redirections: str, **environment: str) -> subprocess.CompletedProcess[str]:
    line = f'"{sys.executable}" -m archspec "$@" {redirections}'
    return subprocess.run(
        ["sh", "-c", line, "sh", *command], capture_output=True, text=True, env=os.environ | environment
    )


def own(lines: str) -> list[str]:
    """What is told beside warnings."""
    return [line for line in lines.splitlines() if ": warning: " not in line]


@FULL
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_full_disk_is_one_line(command: list[str]) -> None:
    done = shell(command, "> /dev/full")
    assert done.returncode == 1
    assert own(done.stderr) == ["error: cannot write to standard output: No space left on device"]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_closed_output_is_one_line(command: list[str]) -> None:
    done = shell(command, ">&-")
    assert done.returncode == 1
    assert own(done.stderr) == ["error: cannot write to standard output: it is closed"]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_an_output_that_nobody_reads_ends_quietly(command: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        line = [sys.executable, "-m", "archspec", *command]
        done = subprocess.run(line, stdout=writing, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(writing)
    assert done.returncode != 0
    assert own(done.stderr) == []


@pytest.mark.parametrize(
    ("command", "code"), [(["count", TINY], 0), (["count", "no.yaml"], 1), (["cuont"], 2), (["count", WARNED], 0)]
)
@pytest.mark.parametrize("stderr", ["2>&-", pytest.param("2>/dev/full", marks=FULL)])
def test_errors_that_cannot_be_told_still_have_a_code(command: list[str], code: int, stderr: str) -> None:
    done = shell(command, stderr)
    assert done.returncode == code or (code == 2 and done.returncode == 1)
    assert bool(done.stdout) == (code == 0)


def test_no_stream_at_all() -> None:
    assert shell(["count", "-"], "<&- >&- 2>&-").returncode == 1
    assert shell(["count", TINY], "<&- >&- 2>&-").returncode == 1


@pytest.mark.parametrize("command", ["validate", "show", "count", "build", "verify"])
def test_a_closed_input_is_a_message(command: str) -> None:
    done = shell([command, "-"], "<&-")
    assert done.returncode == 1
    assert done.stderr == "<stdin>: cannot be read: it is closed\n1 problem in <stdin>\n"


def test_an_input_that_may_only_be_written_is_a_message(tmp_path: Path) -> None:
    done = shell(["count", "-"], f"0>{tmp_path / 'file'}")
    assert done.returncode == 1
    assert done.stderr.startswith("<stdin>: cannot be read: ")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
@pytest.mark.parametrize("command", ["validate", "show", "count", "build"])
def test_a_name_outside_the_encoding_is_printed_or_told(tmp_path: Path, command: str, encoding: str) -> None:
    path = tmp_path / "模型.yaml"
    path.write_text(Path(TINY).read_text().replace("name: bert_tiny", "name: 模型"))
    done = subprocess.run(
        [sys.executable, "-m", "archspec", command, str(path)],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": encoding},
    )
    if done.returncode:
        wanted = r"error: standard output cannot hold U\+6A21 \([\w-]+\); set PYTHONIOENCODING=utf-8\n"
        assert re.fullmatch(wanted, done.stderr.decode())
        assert (done.returncode, done.stdout) == (1, b"")
    else:
        assert "模型" in done.stdout.decode()
        assert not done.stderr
