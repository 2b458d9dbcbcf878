"""Files that commands write: through devices, pipes and links, with the mode that they had, whole or not at all."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import archspec
from archspec.cli import main
from archspec.errors import WriteError
from archspec.files import write
from archspec.language.starter import template

ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
TINY = Path("specs/bert_tiny.yaml").read_text()
NEW = b"new and longer than what was there\n"


def run(*arguments: str, stdin: str | None = None) -> Result:
    result = CliRunner().invoke(main, arguments, input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def only(folder: Path, *names: str) -> bool:
    """Whether nothing else is left in a folder."""
    return sorted(path.name for path in folder.iterdir()) == sorted(names)


# What is no plain file


def test_a_pipe_is_written_through(tmp_path: Path) -> None:
    pipe, found = tmp_path / "pipe", list[bytes]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    assert run("init", str(pipe)).exit_code == 0
    reader.join(20)
    assert found == [template(file=str(pipe)).encode()]
    assert pipe.is_fifo()
    assert only(tmp_path, "pipe")


def test_a_terminal_is_written_through() -> None:
    pty = pytest.importorskip("pty")
    reading, writing = pty.openpty()
    try:
        name = os.ttyname(writing)
        before = os.stat(name)
        write(name, b"one line\n")
        assert os.read(reading, 100) == b"one line\r\n"
        assert os.stat(name).st_ino == before.st_ino
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("target", ["real.yaml", "not_there_yet.yaml"])
def test_a_link_stays_and_leads_to_what_was_written(tmp_path: Path, target: str) -> None:
    (tmp_path / "real.yaml").write_text("old")
    (tmp_path / "inner").mkdir()
    link = tmp_path / "inner" / "link.yaml"
    link.symlink_to(Path("..") / target)
    assert run("init", str(link), "--force").exit_code == 0
    assert link.is_symlink()
    assert (tmp_path / target).read_text() == template(file=str(link))


def test_links_in_a_circle_are_told(tmp_path: Path) -> None:
    for a, b in ("ab", "ba"):
        (tmp_path / a).symlink_to(b)
    result = run("schema", "-o", str(tmp_path / "a"))
    assert result.exit_code == 1
    assert result.stderr == f"error: cannot write {tmp_path}/a: Too many levels of symbolic links\n"
    assert only(tmp_path, "a", "b")


def test_other_names_of_a_file_stay_the_same_file(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("old")
    other.hardlink_to(one)
    write(one, NEW)
    assert other.read_bytes() == NEW
    write(one, b"short")
    assert other.read_bytes() == b"short"


def test_an_open_descriptor_is_written_to_where_it_stands(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as file:
        file.write("before\n")
        file.flush()
        write(f"/dev/fd/{file.fileno()}", NEW)
        os.write(file.fileno(), b"after\n")
    assert log.read_bytes() == b"before\n" + NEW + b"after\n"


# What a plain file keeps


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_the_mode_stays(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "model.yaml"
    path.write_text("old")
    path.chmod(mode)
    write(path, NEW)
    assert (path.stat().st_mode & 0o777, path.read_bytes()) == (mode, NEW)
    assert only(tmp_path, "model.yaml")


def test_a_new_file_is_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    write(tmp_path / "new", NEW)
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.skipif(not ROOT, reason="only root gives files away")
def test_the_owner_stays(tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    path.write_text("old")
    os.chown(path, 12345, 23456)
    write(path, NEW)
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 23456)


def test_a_file_in_a_folder_that_takes_no_other_is_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "model.yaml"
    path.write_text("old")
    monkeypatch.setattr("tempfile.mkstemp", refused)
    write(path, NEW)
    assert path.read_bytes() == NEW
    with pytest.raises(WriteError, match="new: Permission denied"):
        write(tmp_path / "new", NEW)


@pytest.mark.skipif(ROOT, reason="root may write everything")
def test_a_file_that_may_not_be_written_stays(tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    path.write_text("old")
    path.chmod(0o444)
    with pytest.raises(WriteError, match="Permission denied"):
        write(path, NEW)
    assert path.read_text() == "old"


# What was read is not written over


@pytest.mark.parametrize("victim", ["child.yaml", "base.yaml", "link.yaml", "twin.yaml"])
@pytest.mark.parametrize("command", [["build"], ["build", "--standalone"]])
def test_a_spec_is_not_written_over(tmp_path: Path, victim: str, command: list[str]) -> None:
    (tmp_path / "base.yaml").write_text(TINY)
    (tmp_path / "child.yaml").write_text("extends: base.yaml\nname: child\n")
    (tmp_path / "link.yaml").symlink_to("base.yaml")
    (tmp_path / "twin.yaml").hardlink_to(tmp_path / "child.yaml")
    result = run(*command, str(tmp_path / "child.yaml"), "-o", str(tmp_path / victim))
    assert result.exit_code == 2
    assert result.stderr == f"error: cannot write {tmp_path / victim}: the spec was read from it; choose another file\n"
    assert (tmp_path / "base.yaml").read_text() == TINY


def test_a_picture_does_not_take_the_place_of_its_spec(tmp_path: Path) -> None:
    path = tmp_path / "model.dot"
    path.write_text(TINY)
    assert run("render", str(path), "-o", str(path)).exit_code == 1
    with pytest.raises(archspec.RenderError, match="the spec was read from it"):
        archspec.render(archspec.load(path), path)
    assert path.read_text() == TINY


def test_a_spec_on_standard_input_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    path.write_text(TINY)
    command = [sys.executable, "-m", "archspec", "build", "-", "-o", str(path)]
    with path.open() as file:
        done = subprocess.run(command, stdin=file, capture_output=True, text=True)
    assert (done.returncode, path.read_text()) == (2, TINY)
    assert "the spec was read from it" in done.stderr


# Whole or not at all


@contextmanager
def full_disk(folder: Path, kib: int) -> Iterator[Path]:
    """A file system of so many KiB, as root; skipped where it cannot be mounted."""
    if not ROOT or sys.platform != "linux":
        pytest.skip("only root can mount a small file system")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "none", folder], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("linked", [False, True])
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, linked: bool) -> None:
    with full_disk(tmp_path, 32) as folder:
        path, names = folder / "model.yaml", ["model.yaml"]
        path.write_bytes(b"old" * 3000)
        if linked:
            (folder / "other").hardlink_to(path)
            names.append("other")
        with pytest.raises(WriteError, match=r"model\.yaml: No space left on device"):
            write(path, b"new" * 30_000)
        assert path.read_bytes() == b"old" * 3000
        assert only(folder, *names)


def test_a_failure_in_the_middle_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, twin, real = tmp_path / "file", tmp_path / "twin", os.write
    path.write_text("old text")
    twin.hardlink_to(path)
    left = [7]

    def some(handle: int, data: bytes) -> int:
        if data[:3] == NEW[:3]:
            return real(handle, data[:7])
        if left and left.pop():
            raise OSError(28, "No space left on device")
        return real(handle, data)

    monkeypatch.setattr(os, "write", some)
    with pytest.raises(WriteError, match="No space left"):
        write(path, NEW)
    assert path.read_text() == twin.read_text() == "old text"


def test_a_draft_that_fails_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "file"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(WriteError, match="No space left"):
        write(path, NEW)
    assert path.read_text() == "old"
    assert only(tmp_path, "file")


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("", 2, "a file without a name"),
        ("folder", 1, "it is a directory"),
        ("new/", 2, "there is no folder new"),
        ("no/such/file", 2, "there is no folder no/such"),
        ("plain/file", 2, "plain is no folder"),
        ("x" * 300, 1, "File name too long"),
    ],
)
def test_what_cannot_be_a_file_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: int, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "plain").write_text("old")
    result = run("schema", "-o", name)
    assert result.exit_code == code
    assert result.stderr.startswith("error: cannot write ")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert only(tmp_path, "folder", "plain")


def test_a_name_with_a_null_is_told() -> None:
    with pytest.raises(WriteError, match="it is no file name"):
        write("a\0b", NEW)


@pytest.mark.parametrize("name", [".svg", "folder/.png"])
def test_a_suffix_alone_is_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    result = run("render", "tiny.yaml", "-o", name)
    assert result.exit_code == 2
    assert f"'{name}' must end in one of .svg, .png, .pdf, .dot behind a name" in result.stderr
