"""Tables on standard output: no wider than a terminal, and as wide as they are in a pipe or a file."""

import shutil
import sys
from collections.abc import Callable

import click

from archspec.report.width import folded, folded_yaml, within

NARROWEST = 20  # what claims to be narrower is no screen for a table


def columns() -> int | None:
    """How wide the terminal is that reads standard output, or None where none does; COLUMNS may say it."""
    try:
        on_terminal = sys.stdout.isatty()
    except ValueError:  # it is closed
        return None
    return max(NARROWEST, shutil.get_terminal_size().columns) if on_terminal else None


def show_text(made: Callable[[], str], form: str = "table") -> None:
    """Print what a report makes; a table, and the text around it, fits the terminal."""
    width = columns() if form == "table" else None
    with within(width):
        text = made()
    click.echo(folded(text, width))


def fitted(line: str) -> str:
    """A line that fits the terminal, or goes on in the next one."""
    return folded(line, columns())


def show_yaml(text: str) -> None:
    """Print YAML, of which long values go on in the next line; it says the same."""
    click.echo(folded_yaml(text, columns()), nl=False)
