"""How much a command says beside its result: usually what it wrote and warnings, with `-q` errors alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import click

from archspec.cli.streams import tell
from archspec.errors import printable

QUIET, USUAL, VERBOSE = -1, 0, 1
_KEY = "archspec.voice"  # in what a command line shares, whichever of its commands the option was given to


def voice() -> int:
    """How much is said: QUIET, USUAL or VERBOSE."""
    ctx = click.get_current_context(silent=True)
    return USUAL if ctx is None else int(ctx.meta.get(_KEY, USUAL))


def note(message: str) -> None:
    """Say on standard error what was done, such as what was written; nothing with `-q`."""
    if voice() > QUIET:
        tell(printable(message))


def detail(message: str) -> None:
    """Say on standard error how it was done, with `--verbose` alone."""
    if voice() >= VERBOSE:
        tell(printable(message))


@contextmanager
def timed(what: str) -> Iterator[None]:
    """With `--verbose`, say how long something took."""
    begun = perf_counter()
    yield
    detail(f"{what}: {perf_counter() - begun:.3f} s")


class Voiced(click.Command):
    """A command that takes `-q` and `--verbose`."""

    def __init__(self, name: str | None, params: list[click.Parameter] | None = None, **extra: Any) -> None:
        super().__init__(name, params=[*(params or []), *_options()], **extra)


def _options() -> list[click.Parameter]:
    return [
        _option(["-q", "--quiet"], QUIET, "Say nothing but the result, and errors."),
        _option(["--verbose"], VERBOSE, "Say what is read, and how long each step takes."),
    ]


def _option(names: list[str], level: int, help: str) -> click.Option:
    return click.Option(names, is_flag=True, expose_value=False, callback=_chosen(level), help=help)


def _chosen(level: int) -> Callable[[click.Context, click.Parameter, bool], None]:
    def choose(ctx: click.Context, param: click.Parameter, given: bool) -> None:
        if given and ctx.meta.setdefault(_KEY, level) != level:
            raise click.UsageError("-q and --verbose contradict one another; give one of them", ctx)

    return choose
