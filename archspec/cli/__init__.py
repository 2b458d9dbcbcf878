"""The command line: each command is a few lines over the public API, which is imported when the command runs.

Exit codes: 0 when all is well, 1 for a bad spec or a failed check, 2 for wrong use.
"""

from archspec.cli import costs, formulas, validate, vocabulary  # noqa: F401  # add their commands
from archspec.cli.commands import main

__all__ = ["main"]
