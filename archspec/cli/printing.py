"""Tables on standard output: no wider than a terminal, and as wide as they are in a pipe or a file."""

import sys
from collections.abc import Callable

import click

NARROWEST = 20  # what claims to be narrower is no screen for a table


def columns() -> int | None:
    """How wide the terminal is that reads standard output, or None where none does; COLUMNS may say it."""
    try:
        on_terminal = sys.stdout.isatty()
    except ValueError:  # it is closed
        return None
    if not on_terminal:
        return None
    from shutil import get_terminal_size

    return max(NARROWEST, get_terminal_size().columns)


def show_text(made: Callable[[], str], form: str = "table") -> None:
    """Print what a report makes; a table, and the text around it, fits the terminal."""
    from archspec.report.width import folded, within

    width = columns() if form == "table" else None
    with within(width):
        text = made()
    click.echo(folded(text, width))


def fitted(line: str) -> str:
    """A line that fits the terminal, or goes on in the next one."""
    from archspec.report.width import folded

    return folded(line, columns())


def show_yaml(text: str) -> None:
    """Print YAML, of which long values go on in the next line; it says the same."""
    from archspec.report.width import folded_yaml

    click.echo(folded_yaml(text, columns()), nl=False)
