"""Files that are written: whole or not at all, and without destroying what is no plain file.

A plain file is replaced by a finished draft that stood beside it, with the mode, owner and attributes that it had. What
has other names, or cannot be replaced, is written over where it is, and given its old content back when that fails.
Links are followed; devices, pipes and descriptors (`/dev/fd/3`) are written through.
"""

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Collection
from contextlib import suppress
from errno import EACCES, EBUSY, EISDIR, EPERM, EROFS
from pathlib import Path

from archspec.errors import WriteError

REFUSED = (EACCES, EBUSY, EPERM, EROFS)  # what a folder answers in which no file can be put or replaced
DESCRIPTORS = re.compile(r"/dev/fd|/proc/[^/]+(/task/[^/]+)?/fd")
MOST_LINKS = 40
WRONG_USE = 2  # the exit code of what the user could have known


def write(target: str | Path, data: bytes, keep: Collection[str] = (), kept: str = "the spec") -> None:
    """Write a file, or through what is none.

    Args:
        target: where to; a link is followed.
        data: all of it.
        keep: files that must not be written over, such as the spec that was read.
        kept: what was read from them, for the message.

    Raises:
        WriteError: what was there is as it was.
    """
    try:
        _check(target, keep, kept)
        _write(os.fspath(target), data)
    except OSError as error:
        raise WriteError(f"cannot write {target}: {_said(error)}") from None
    except ValueError:
        raise WriteError(f"cannot write {target}: it is no file name") from None


def _said(error: OSError) -> str:
    return "it is a directory" if error.errno == EISDIR else error.strerror or str(error)


def _check(target: str | Path, keep: Collection[str], kept: str) -> None:
    """Refuse what is told better than by the system."""
    name = os.fspath(target)
    if not name:
        raise WriteError("cannot write a file without a name", WRONG_USE)
    if _is_one_of(name, keep):
        raise WriteError(f"cannot write {name}: {kept} was read from it; choose another file", WRONG_USE)
    folder = os.path.dirname(_followed(name)) or os.curdir
    with suppress(FileNotFoundError):
        if not stat.S_ISDIR(os.stat(folder).st_mode):
            raise WriteError(f"cannot write {name}: {folder} is no folder", WRONG_USE)
        return
    raise WriteError(f"cannot write {name}: there is no folder {folder}", WRONG_USE)


def _is_one_of(name: str, others: Collection[str]) -> bool:
    """Whether it is one of some plain files, by whatever name."""
    with suppress(OSError):
        found = os.stat(name)
        for other in others:
            with suppress(OSError, ValueError):
                if stat.S_ISREG(found.st_mode) and os.path.samestat(found, os.stat(other)):
                    return True
    return False


def _followed(name: str) -> str:
    """Where links lead, one after another; as it is where they go in a circle, or to an open descriptor."""
    for _ in range(MOST_LINKS):
        if not os.path.islink(name) or _is_descriptor(name):
            break
        name = os.path.join(os.path.dirname(name), os.readlink(name))
    return name


def _is_descriptor(name: str) -> bool:
    return DESCRIPTORS.fullmatch(_folder(name)) is not None


def _own_descriptor(name: str) -> int | None:
    """The number of an open descriptor of this process, by which it is written to where it stands."""
    number = os.path.basename(name)
    own = _folder(name) in ("/dev/fd", f"/proc/{os.getpid()}/fd")
    return int(number) if own and number.isdecimal() else None


def _folder(name: str) -> str:
    return os.path.realpath(os.path.dirname(name) or os.curdir)


def _write(name: str, data: bytes) -> None:
    """Write through what is there, or a plain file."""
    place = _followed(name)
    if (descriptor := _own_descriptor(place)) is not None:
        _all(descriptor, data)
        return
    try:
        found = os.stat(place)
    except FileNotFoundError:
        _replace(place, data)
        return
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(EISDIR, os.strerror(EISDIR))
    if not stat.S_ISREG(found.st_mode):
        _through(place, data)
    elif not os.access(place, os.W_OK):
        raise PermissionError(EACCES, os.strerror(EACCES))
    elif found.st_nlink > 1 or _is_descriptor(place):
        _overwrite(place, data)
    else:
        try:
            _replace(place, data, found)
        except OSError as error:
            if error.errno not in REFUSED:
                raise
            _overwrite(place, data)


def _replace(place: str, data: bytes, old: os.stat_result | None = None) -> None:
    """A finished draft takes the place of a file, and is like it; one that did not exist is as any new file."""
    handle, draft = tempfile.mkstemp(prefix=".archspec-", dir=os.path.dirname(place) or os.curdir)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        if old is None:
            os.chmod(draft, 0o666 & ~_umask())
        else:
            new = os.stat(draft)
            if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
                os.chown(draft, old.st_uid, old.st_gid)
            shutil.copystat(place, draft)
            os.utime(draft)
        os.replace(draft, place)
    except BaseException:
        os.unlink(draft)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _through(place: str, data: bytes) -> None:
    """Write to a device or a pipe as it is."""
    handle = os.open(place, os.O_WRONLY | getattr(os, "O_NOCTTY", 0))
    with os.fdopen(handle, "wb", buffering=0) as file:
        _all(file.fileno(), data)


def _overwrite(place: str, data: bytes) -> None:
    """Write over a file in place; what stood there comes back when that fails."""
    handle = os.open(place, os.O_RDWR | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "r+b", buffering=0) as file:
        old = file.read()
        try:
            _fill(file.fileno(), data)
        except BaseException:
            _fill(file.fileno(), old)
            raise


def _fill(handle: int, data: bytes) -> None:
    os.lseek(handle, 0, os.SEEK_SET)
    _all(handle, data)
    os.ftruncate(handle, len(data))


def _all(handle: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(handle, rest) :]
