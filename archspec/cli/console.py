"""What the commands share: reading a spec, printing or writing a text, errors in colour, a sign of life."""

import os
import sys
import threading
import warnings
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import cycle
from typing import TYPE_CHECKING, Any

import click

from archspec.cli.streams import careful_streams, tell
from archspec.errors import ArchspecError, Mark, Problem, SpecError, SpecWarning, noted, printable
from archspec.files import write

if TYPE_CHECKING:
    from archspec.language.model import Spec

DASH = "-"  # standard input, or output
LARGEST_INPUT = 1 << 20
# a folder of the unrelated package `archspec`, whose files stand among ours when both are installed
NEIGHBOUR = os.path.join(os.path.dirname(os.path.dirname(__file__)), "cpu")
SHARED = (
    "the package 'archspec', a library about CPUs, is installed in the same place as archspec-compiler, and each "
    "overwrites files of the other; install them into environments of their own"
)


class Commands(click.Group):
    """Commands whose errors are messages: never a traceback for a user's mistake, and a near miss gets a suggestion."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run a command line; what goes wrong with the standard streams is a message too."""
        with careful_streams() if extra.get("standalone_mode", True) else nullcontext():
            return super().main(*args, **extra)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Read the options of the group; a word that is wrong is shown without control characters."""
        with _escaped():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what archspec raises on purpose becomes a message and an exit code."""
        if "NO_COLOR" in os.environ:
            ctx.color = False
        shared = os.path.exists(NEIGHBOUR)
        if shared:
            tell(f"warning: {SHARED}")
        try:
            with announce(), _escaped():
                return super().invoke(ctx)
        except ImportError:  # a name of ours in a file that is theirs
            if not shared:
                raise
            sys.exit(1)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command; an unknown one is wrong use."""
        with suppress(click.UsageError):
            return super().resolve_command(ctx, args)
        close = get_close_matches(args[0], self.list_commands(ctx), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(self.list_commands(ctx))}"
        raise click.UsageError(noted(f"no command {args[0]!r}{hint}"), ctx)


class UsualValue(click.Command):
    """A command with an option whose value may be left out, and is only given behind a `=`."""

    name_and_usual = ("--standalone", "plain")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments, the option by itself as that with its usual value."""
        name, usual = self.name_and_usual
        return super().parse_args(ctx, [f"{name}={usual}" if argument == name else argument for argument in args])


class Setting(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """`path=value`."""

    name = "path=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text itself; without a path or a '=' it is wrong use."""
        path, equals, _ = str(value).partition("=")
        if not equals or not path.strip():
            self.fail(f"{value!r} must be path=value, such as d_model=512 (see: archspec layers set)", param, ctx)
        return str(value)


@contextmanager
def _escaped() -> Iterator[None]:
    """Wrong use is told with the words that were wrong, but without their control characters."""
    try:
        yield
    except click.ClickException as error:
        vars(error)["message"] = printable(error.message)
        raise


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
        tell(_coloured(error))
        failure.code = error.exit_code
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        tell("this needs PyTorch: pip install 'archspec-compiler[torch]'")
        failure.code = 1
    if failure.code and not collect:
        sys.exit(failure.code)


def _coloured(error: ArchspecError) -> str:
    if not isinstance(error, SpecError):
        return click.style("error: ", fg="red", bold=True) + str(error)
    last = str(error).rpartition("\n")[2]
    return "\n".join([*map(_coloured_problem, error.problems), click.style(last, fg="red", bold=True)])


def _coloured_problem(problem: Problem, kind: str = "") -> str:
    place = click.style(printable(f"{problem.mark}:"), bold=True)
    path = click.style(printable(f" {problem.path}:"), fg="cyan") if problem.path else ""
    return f"{place}{kind}{path} {printable(noted(problem.message))}"


def read_spec(name: str, settings: tuple[str, ...], strict: bool = False) -> "Spec":
    """The spec of a file, or of standard input for `-`; its warnings are told, or with `strict` its mistakes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SpecWarning)
        spec = _loaded(name, settings)
    if strict and spec.warnings:
        raise SpecError(spec.warnings, spec.file)
    for warning in spec.warnings:
        tell(_coloured_problem(warning, click.style(" warning:", fg="yellow")))
    return spec


def _loaded(name: str, settings: tuple[str, ...]) -> "Spec":
    from archspec import load, loads

    if name != DASH:
        return load(name, set=settings)
    data = _standard_input()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"byte 0x{data[error.start]:02x} at {error.start} is not UTF-8"
        raise SpecError([Problem(Mark("<stdin>"), "", message)], "<stdin>") from None
    return replace(loads(text, "<stdin>", set=settings), files=("/dev/stdin",))


def _standard_input() -> bytes:
    try:
        if sys.stdin is None:
            raise OSError("it is closed")
        return sys.stdin.buffer.read(LARGEST_INPUT + 1)
    except (OSError, ValueError) as error:  # a folder, what may only be written, what was closed
        message = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        raise SpecError([Problem(Mark("<stdin>"), "", message)], "<stdin>") from None


def put(text: str, output: str | None, keep: Collection[str] = ()) -> None:
    """Print a text, or write it to the file that `-o` names, which must be none of `keep`."""
    if output is None or output == DASH:
        click.echo(text, nl=False)
    else:
        write(output, text.encode(), keep)


class Steps:
    """What is being done now, as a `Progress` that is another with each step; lines may be printed between two."""

    def __init__(self, what: str):
        self.what, self.now = what, ExitStack()

    def __enter__(self) -> "Steps":
        self.next(self.what)
        return self

    def __exit__(self, *_: object) -> None:
        self.now.close()

    def next(self, what: str) -> None:
        """Begin the next step."""
        self.now.close()
        self.now.enter_context(Progress(what))

    def put(self, line: str) -> None:
        """Print a line at once, when a step is done."""
        self.now.close()
        click.echo(line)


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
            tell(f"\r{sign} {self.what}", nl=False)
            if self.done.wait(0.1):
                break
        tell(f"\r{' ' * (len(self.what) + 2)}\r", nl=False)
