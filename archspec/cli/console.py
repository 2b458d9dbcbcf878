"""What the commands share: reading a spec, printing or writing a text, errors as messages."""

import gc
import os
import sys
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from archspec.cli.streams import careful_streams, tell
from archspec.cli.voice import QUIET, Voiced, detail, note, timed, voice
from archspec.errors import ArchspecError, Mark, Problem, SpecError, SpecWarning, many, noted, printable

if TYPE_CHECKING:
    from archspec.language.model import Spec

DASH, STDIN = "-", "<stdin>"  # standard input or output, and what problems call the input
COMPLETE = "_ARCHSPEC_COMPLETE"  # the variable in which a shell asks what could stand at its cursor
OBJECTS = 50_000  # new ones after which garbage is looked for
PLUGINS = "PYDANTIC_DISABLE_PLUGINS"
MOST_SHOWN = 20  # problems with their lines; of more the places alone are enough to read
LARGEST_INPUT = 1 << 20
_INPUT = "archspec.input"  # under which a command line keeps the text of its standard input
# a folder of the unrelated package `archspec`, whose files stand among ours when both are installed
NEIGHBOUR = os.path.join(os.path.dirname(os.path.dirname(__file__)), "cpu")
SHARED = (
    "the package 'archspec', a library about CPUs, is installed in the same place as archspec-compiler, and each "
    "overwrites files of the other; install them into environments of their own"
)


class Commands(Voiced, click.Group):
    """Commands whose errors are messages: never a traceback for a user's mistake, and a near miss gets a suggestion."""

    command_class = Voiced

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run a command line; what goes wrong with the standard streams is a message too."""
        if COMPLETE in os.environ:  # the shell asks
            from archspec.cli.shells import register

            register()
            extra["complete_var"] = COMPLETE
        with quick_start(), careful_streams() if extra.get("standalone_mode", True) else nullcontext():
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
        from difflib import get_close_matches

        close = get_close_matches(args[0], self.list_commands(ctx), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(self.list_commands(ctx))}"
        raise click.UsageError(noted(f"no command {args[0]!r}{hint}"), ctx)


class UsualValue(Voiced):
    """A command with an option whose value may be left out, and is only given behind a `=`."""

    name_and_usual = ("--standalone", "plain")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments, the option by itself as that with its usual value."""
        name, usual = self.name_and_usual
        return super().parse_args(ctx, [f"{name}={usual}" if argument == name else argument for argument in args])


@contextmanager
def quick_start() -> Iterator[None]:
    """Look for garbage seldom, as nearly all that a command makes at its start it keeps; and not for plugins.

    To find plugins pydantic reads the metadata of everything that is installed; a command needs none.
    """
    usual, plugins = gc.get_threshold(), os.environ.get(PLUGINS)
    gc.set_threshold(max(usual[0], OBJECTS), *usual[1:])
    os.environ.setdefault(PLUGINS, "__all__")
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        if plugins is None:
            os.environ.pop(PLUGINS, None)


@contextmanager
def _escaped() -> Iterator[None]:
    """Wrong use is told with the words that were wrong, but without their control characters.

    The help, which newer versions of click raise where a command is missing, has lines.
    """
    try:
        yield
    except click.ClickException as error:
        lines = error.message.split("\n") if type(error).__name__ == "NoArgsIsHelpError" else [error.message]
        vars(error)["message"] = "\n".join(map(printable, lines))
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
        tell(coloured_error(error))
        failure.code = error.exit_code
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        tell("this needs PyTorch: pip install 'archspec-compiler[torch]'")
        failure.code = 1
    if failure.code and not collect:
        sys.exit(failure.code)


def coloured_error(error: ArchspecError) -> str:
    """An error in colour; of a spec every problem, with its line."""
    if not isinstance(error, SpecError):
        return click.style("error: ", fg="red", bold=True) + str(error)
    last = str(error).rpartition("\n")[2]
    return "\n".join([*in_lines(error.problems), click.style(last, fg="red", bold=True)])


def in_lines(problems: Collection[Problem], kind: str = "") -> Iterator[str]:
    """Problems in colour; of a few each with the line that it stands in, where that can still be read."""
    from archspec.cli.excerpt import excerpt, text_of

    ctx = click.get_current_context(silent=True)
    texts: dict[str, str | None] = {} if ctx is None else {STDIN: ctx.meta.get(_INPUT)}
    for problem in problems:
        yield coloured(problem, kind)
        mark = problem.mark
        if mark.line and len(problems) <= MOST_SHOWN:
            text = texts[mark.file] if mark.file in texts else texts.setdefault(mark.file, text_of(mark.file))
            yield from excerpt(mark, text or "")


def coloured(problem: Problem, kind: str = "") -> str:
    """A problem in a line, with the word for what it is (` warning:`) behind its place."""
    place = click.style(printable(f"{problem.mark}:"), bold=True)
    path = click.style(printable(f" {problem.path}:"), fg="cyan") if problem.path else ""
    return f"{place}{kind}{path} {printable(noted(problem.message))}"


WARNING = click.style(" warning:", fg="yellow")


def read_spec(name: str, settings: tuple[str, ...], strict: bool = False) -> "Spec":
    """The spec of a file, or of standard input for `-`; its warnings are told, or with `strict` its mistakes."""
    spec = load_spec(name, settings)
    if strict and spec.warnings:
        raise SpecError(spec.warnings, spec.file)
    for warning in spec.warnings if voice() > QUIET else ():
        tell(coloured(warning, WARNING))
    return spec


def load_spec(name: str, settings: tuple[str, ...]) -> "Spec":
    """The spec of a file, or of standard input for `-`; its warnings are left for the caller to tell."""
    with warnings.catch_warnings(), timed(f"loading {name}"):
        warnings.simplefilter("ignore", SpecWarning)
        spec = _loaded(name, settings)
    detail("read " + ", which extends ".join(spec.files))
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
        raise SpecError([Problem(Mark(STDIN), "", message)], STDIN) from None
    click.get_current_context().meta[_INPUT] = text
    return replace(loads(text, STDIN, set=settings), files=("/dev/stdin",))


def _standard_input() -> bytes:
    try:
        if sys.stdin is None:
            raise OSError("it is closed")
        return sys.stdin.buffer.read(LARGEST_INPUT + 1)
    except (OSError, ValueError) as error:  # a folder, what may only be written, what was closed
        message = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        raise SpecError([Problem(Mark(STDIN), "", message)], STDIN) from None


def put(text: str, output: str | None, keep: Collection[str] = ()) -> None:
    """Print a text, or write it to the file that `-o` names, which must be none of `keep`, and say so."""
    if output is None or output == DASH:
        click.echo(text, nl=False)
    else:
        from archspec.files import write

        write(output, text.encode(), keep)
        note(f"wrote {output} ({many(text.count(chr(10)), 'line')})")


def chosen(asked: dict[str, Any]) -> dict[str, Any]:
    """The options that were given on the command line."""
    source = click.get_current_context().get_parameter_source
    return {name: value for name, value in asked.items() if source(name) is not click.core.ParameterSource.DEFAULT}
