"""What `archspec init` does: a template, the schema beside it, and what to do next."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from archspec.cli.console import DASH, put
from archspec.cli.voice import note
from archspec.errors import WriteError, noted, printable, suggest

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class Template(click.Option):
    """The name of a template; which there are is looked up when somebody asks."""

    def __init__(self, *args: Any, **extra: Any):
        super().__init__(*args, **extra, metavar="NAME", callback=_known, shell_complete=_completed)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """The line of the help, with the names."""
        from archspec.language.starter import templates

        return f"--{self.name} NAME", f"{self.help}: {', '.join(templates())}."


def _known(ctx: click.Context, option: click.Parameter, name: str | None) -> str | None:
    """The name itself; another than that of a template is wrong use."""
    from archspec.language.starter import templates

    if name is not None and name not in templates():
        raise click.BadParameter(noted(f"no template {name!r}{suggest(name, templates())}"), ctx, option)
    return name


def _completed(ctx: click.Context, option: click.Parameter, begun: str) -> "list[CompletionItem[Any]]":
    """The names that begin so."""
    from click.shell_completion import CompletionItem

    from archspec.language.starter import templates

    return [CompletionItem(name) for name in templates() if name.startswith(begun)]


def start(path: str, name: str | None) -> None:
    """Write a template, and where it became a file the schema that its first line names."""
    from archspec.language.starter import STANDS_FOR, USUAL, template

    file = STANDS_FOR if path == DASH else shlex.quote(printable(f"./{path}" if path.startswith(DASH) else path))
    put(template(name or USUAL, file), path)
    if path == DASH:
        return
    if Path(path).is_file():
        _schema(Path(path).parent)
    steps = {"validate": "after each change", "count": "the parameters", "layers": "what a spec may say"}
    for command, what in steps.items():
        line = f"archspec {command}{'' if command == 'layers' else f' {file}'}"
        note(f"  {line:<40}  # {what}")


def _schema(folder: Path) -> None:
    """Write the schema that editors use into a folder, unless another file has its name."""
    import json

    from archspec import schema
    from archspec.language.starter import SCHEMA

    path = folder / SCHEMA
    text = json.dumps(schema(), indent=1) + "\n"
    if path.exists() and not _is_ours(path):
        note(f"{path} is another file; archspec schema -o writes that for editors elsewhere")
        return
    try:
        put(text, str(path))
    except WriteError as error:  # the spec is written and complete without it
        note(f"warning: {error}; an editor completes with the output of archspec schema")


def _is_ours(path: Path) -> bool:
    """Whether a file is a schema of ours, perhaps of another version."""
    import json

    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("title") == "archspec"
