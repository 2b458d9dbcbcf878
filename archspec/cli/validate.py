"""The command that checks specs: for people with the lines that are wrong, as JSON, or as annotations of GitHub."""

import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import click

from archspec.cli.commands import SET, STRICT, kept, main
from archspec.cli.console import DASH, STDIN, WARNING, coloured_error, in_lines, load_spec
from archspec.cli.folders import Found, found
from archspec.cli.parameters import SPECS
from archspec.cli.streams import tell
from archspec.cli.voice import QUIET, voice
from archspec.errors import ArchspecError, Mark, Problem, SpecError, many, noted, printable


class Checked(NamedTuple):
    """What a check of one file came to; `error` is None where nothing is wrong."""

    file: str
    name: str = ""
    layers: int = 0
    total: int = 0
    warnings: tuple[Problem, ...] = ()
    error: ArchspecError | None = None

    @property
    def errors(self) -> tuple[Problem, ...]:
        """Every mistake; one of the whole file where it is no matter of its text."""
        if self.error is None:
            return ()
        return self.error.problems if isinstance(self.error, SpecError) else (_whole(self.file, str(self.error)),)


@main.command()
@SPECS
@SET
@STRICT
@click.option(
    "--format",
    "form",
    type=click.Choice(("text", "json", "github")),
    default="text",
    show_default=True,
    help="How to say it: github writes annotations, which show beside the lines of a change.",
)
def validate(specs: tuple[str, ...], settings: tuple[str, ...], strict: bool, form: str) -> None:
    """Check specs, and what they promise.

    Every mistake is told at once, with its line and column. SPEC may be a folder, whose YAML files are all checked,
    those in folders below it too.

    \b
    archspec validate model.yaml
    archspec validate specs/*.yaml
    archspec validate specs --strict --format github
    """
    tell_all: Callable[[Iterator[Checked]], bool] = {"text": _text, "json": _json, "github": _github}[form]
    sys.exit(0 if tell_all(_check(each, settings, strict) for each in found(specs)) else 1)


def _check(place: Found, settings: tuple[str, ...], strict: bool) -> Checked:
    """Read and count one spec, and hold it to its promises."""
    if place.problem is not None:
        return Checked(place.name, error=SpecError([place.problem], place.name))
    file = STDIN if place.name == DASH else place.name
    warnings: tuple[Problem, ...] = ()
    try:
        spec = load_spec(place.name, settings)
        if strict and spec.warnings:
            raise SpecError(spec.warnings, spec.file)
        warnings = spec.warnings
        counted = kept(spec, settings)
    except ArchspecError as error:
        return Checked(file, warnings=warnings, error=error)
    return Checked(file, spec.name, counted.layers, counted.total, warnings)


def _whole(file: str, message: str) -> Problem:
    return Problem(Mark(file), "", message)


# The formats; each says whether all is well


def _text(checks: Iterator[Checked]) -> bool:
    """A line for each file that is well, on standard output; the rest, with the lines that are meant, as errors."""
    well = True
    for each in checks:
        if each.warnings and voice() > QUIET:
            tell("\n".join(in_lines(each.warnings, WARNING)))
        if each.error is not None:
            tell(coloured_error(each.error))
            well = False
        elif voice() > QUIET:
            what = f"{many(each.layers, 'layer')}, {many(each.total, 'parameter')}"
            click.echo(f"{'-' if each.file == STDIN else printable(each.file)}: ok, {what}")
    return well


def _json(checks: Iterator[Checked]) -> bool:
    """One object: whether all is well, and each file with what was found in it."""
    import json

    every = list(checks)
    well = not any(each.errors for each in every)
    click.echo(json.dumps({"ok": well, "files": [_record(each) for each in every]}, indent=2))
    return well


def _record(each: Checked) -> dict[str, Any]:
    counted = {"name": each.name, "layers": each.layers, "total": each.total}
    return {
        "file": each.file,
        "ok": each.error is None,
        **(counted if each.error is None else dict.fromkeys(counted)),
        "errors": [_problem(problem) for problem in each.errors],
        "warnings": [_problem(problem) for problem in each.warnings],
    }


def _problem(problem: Problem) -> dict[str, Any]:
    """A problem as JSON; line and column, from 1, are null where it is one of the whole file."""
    mark = problem.mark
    place = {"file": mark.file, "line": mark.line or None, "column": mark.column or None}
    return {**place, "path": problem.path, "message": noted(problem.message)}


def _github(checks: Iterator[Checked]) -> bool:
    """Workflow commands, which GitHub shows beside the lines; what is well is only counted."""
    errors = warnings = n = 0
    for each in checks:
        said = [("error", p) for p in each.errors] + [("warning", p) for p in each.warnings if voice() > QUIET]
        for kind, problem in said:
            click.echo(annotation(kind, problem, each.file))
        n, errors, warnings = n + 1, errors + len(each.errors), warnings + len(each.warnings)
    if voice() > QUIET:
        click.echo(f"{many(n, 'file')}, {many(errors, 'error')}, {many(warnings, 'warning')}")
    return errors == 0


def annotation(kind: str, problem: Problem, file: str) -> str:
    """A workflow command of GitHub; a problem of a setting, which stands in no file, is one of the spec."""
    mark, path = problem.mark, f"{problem.path}: " if problem.path else ""
    message = path + noted(problem.message)
    if mark.line:
        place = f"file={_property(mark.file)},line={mark.line},col={mark.column}"
    else:
        place, message = f"file={_property(file)}", message if mark.file == file else f"{mark.file}: {message}"
    return f"::{kind} {place}::{_data(message)}"


def _data(text: str) -> str:
    """A text as the message of a workflow command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """A text as a value before the message."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")
