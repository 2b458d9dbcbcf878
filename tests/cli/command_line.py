"""A command of archspec run in this process."""

import inspect
from typing import Any

from click.testing import CliRunner, Result

from archspec.cli import main

SEPARATE: dict[str, Any] = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}


def run(*arguments: str, stdin: str | bytes | None = None, color: bool = False) -> Result:
    result = CliRunner(**SEPARATE).invoke(main, arguments, input=stdin, color=color)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    assert "Traceback" not in result.output
    return result
