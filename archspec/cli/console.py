"""What the commands share: reading a spec, printing or writing a text, errors in colour, a sign of life."""

import os
import sys
import threading
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import cycle
from typing import TYPE_CHECKING, Any

import click

from archspec.errors import ArchspecError, Mark, Problem, SpecError, SpecWarning
from archspec.files import write

if TYPE_CHECKING:
    from archspec.language.model import Spec

DASH = "-"  # standard input, or output
LARGEST_INPUT = 1 << 20


class Commands(click.Group):
    """Commands whose errors are messages: never a traceback for a user's mistake, and a near miss gets a suggestion."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what archspec raises on purpose becomes a message and an exit code."""
        if "NO_COLOR" in os.environ:
            ctx.color = False
        with announce():
            return super().invoke(ctx)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command; an unknown one is wrong use."""
        with suppress(click.UsageError):
            return super().resolve_command(ctx, args)
        close = get_close_matches(args[0], self.list_commands(ctx), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(self.list_commands(ctx))}"
        raise click.UsageError(f"no command {args[0]!r}{hint}", ctx)


class UsualValue(click.Command):
    """A command with an option whose value may be left out, and is only given behind a `=`."""

    name_and_usual = ("--standalone", "plain")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments, the option by itself as that with its usual value."""
        name, usual = self.name_and_usual
        return super().parse_args(ctx, [f"{name}={usual}" if argument == name else argument for argument in args])


class Setting(click.ParamType[str]):
    """`path=value`."""

    name = "path=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text itself; without a path or a '=' it is wrong use."""
        path, equals, _ = str(value).partition("=")
        if not equals or not path.strip():
            self.fail(f"{value!r} must be path=value, such as d_model=512", param, ctx)
        return str(value)


@dataclass
class Failure:
    """The exit code of what was tried; 0 when it went well."""

    code: int = 0


@contextmanager
def announce(collect: bool = False) -> Iterator[Failure]:
    """Tell errors on standard error; with `collect` go on after them, else leave with their exit code."""
    failure = Failure()
    try:
        yield failure
    except ArchspecError as error:
        click.echo(_coloured(error), err=True)
        failure.code = error.exit_code
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        click.echo("this needs PyTorch: pip install 'archspec-compiler[torch]'", err=True)
        failure.code = 1
    if failure.code and not collect:
        sys.exit(failure.code)


def _coloured(error: ArchspecError) -> str:
    if not isinstance(error, SpecError):
        return click.style("error: ", fg="red", bold=True) + str(error)
    last = str(error).rpartition("\n")[2]
    return "\n".join([*map(_coloured_problem, error.problems), click.style(last, fg="red", bold=True)])


def _coloured_problem(problem: Problem, kind: str = "") -> str:
    place = click.style(f"{problem.mark}:", bold=True)
    path = click.style(f" {problem.path}:", fg="cyan") if problem.path else ""
    return f"{place}{kind}{path} {problem.message}"


def read_spec(name: str, settings: tuple[str, ...], strict: bool = False) -> "Spec":
    """The spec of a file, or of standard input for `-`; its warnings are told, or with `strict` its mistakes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SpecWarning)
        spec = _loaded(name, settings)
    if strict and spec.warnings:
        raise SpecError(spec.warnings, spec.file)
    for warning in spec.warnings:
        click.echo(_coloured_problem(warning, click.style(" warning:", fg="yellow")), err=True)
    return spec


def _loaded(name: str, settings: tuple[str, ...]) -> "Spec":
    from archspec import load, loads

    if name != DASH:
        return load(name, set=settings)
    data = sys.stdin.buffer.read(LARGEST_INPUT + 1)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"byte 0x{data[error.start]:02x} at {error.start} is not UTF-8"
        raise SpecError([Problem(Mark("<stdin>"), "", message)], "<stdin>") from None
    return replace(loads(text, "<stdin>", set=settings), files=("/dev/stdin",))


def put(text: str, output: str | None, keep: Collection[str] = ()) -> None:
    """Print a text, or write it to the file that `-o` names, which must be none of `keep`."""
    if output is None or output == DASH:
        click.echo(text, nl=False)
    else:
        write(output, text.encode(), keep)


class Progress:
    """A line on a terminal that says what takes so long; nothing in a pipe or file, or for the first `wait` seconds."""

    def __init__(self, what: str, wait: float = 0.5):
        self.what, self.wait = what, wait
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._turn, daemon=True) if sys.stderr.isatty() else None

    def __enter__(self) -> None:
        if self.thread is not None:
            self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.done.set()
        if self.thread is not None:
            self.thread.join()

    def _turn(self) -> None:
        if self.done.wait(self.wait):
            return
        for sign in cycle("|/-\\"):
            click.echo(f"\r{sign} {self.what}", err=True, nl=False)
            if self.done.wait(0.1):
                break
        click.echo(f"\r{' ' * (len(self.what) + 2)}\r", err=True, nl=False)
