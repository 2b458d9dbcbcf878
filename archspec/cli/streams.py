"""Standard streams that are closed, full, of another encoding or nobody reads: a line of error, never a traceback."""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EAGAIN, EBADF, EDQUOT, EFBIG, EIO, ENOSPC

import click

from archspec.errors import printable

STREAM_ERRORS = (EAGAIN, EBADF, EDQUOT, EFBIG, EIO, ENOSPC)  # what writing to an open stream may answer


class _Closed(io.TextIOBase):
    """Standard output that was closed: printing to it is an error, as printing to a full disk is."""

    encoding, errors = "utf-8", "strict"

    def write(self, text: str) -> int:
        """Refuse the text."""
        raise OSError(EBADF, "it is closed")


class _Nowhere(io.TextIOBase):
    """What is printed here is lost."""

    encoding, errors = "utf-8", "backslashreplace"

    def write(self, text: str) -> int:
        """Lose the text."""
        return len(text)


@contextmanager
def careful_streams() -> Iterator[None]:
    """Run a command with all streams there; what cannot be printed ends it with a line on standard error and code 1."""
    sys.stdout = sys.stdout or _Closed()
    sys.stderr = sys.stderr or _Nowhere()
    try:
        yield
    except UnicodeEncodeError as error:
        found = f"U+{ord(error.object[error.start]):04X} ({sys.stdout.encoding})"
        _leave(f"standard output cannot hold {found}; set PYTHONIOENCODING=utf-8")
    except BrokenPipeError:
        _leave("")
    except OSError as error:
        reason = error.strerror or str(error)
        stream = error.errno in STREAM_ERRORS and error.filename is None
        where = "cannot write to standard output: " if stream else f"{error.filename}: " if error.filename else ""
        _leave(f"{where}{reason}")


def tell(message: str, nl: bool = True) -> None:
    """Print on standard error, where that can be done; a command does not fail because nobody listens."""
    try:
        click.echo(message, err=True, nl=nl)
    except (OSError, ValueError):
        sys.stderr = _Nowhere()


def _leave(message: str) -> None:
    """Say why, and leave; what the broken stream still holds is not tried again."""
    sys.stdout = _Nowhere()
    if message:
        tell(f"error: {printable(message)}")
    sys.exit(1)
