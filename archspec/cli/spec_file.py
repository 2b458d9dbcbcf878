"""The arguments that name specs, which a shell completes as files."""

from typing import Any

import click
from click.shell_completion import CompletionItem


class SpecFile(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """The path of a YAML file, or `-`; whatever it is, reading it says best what is wrong with it."""

    name = "spec"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text itself."""
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The shell's own files."""
        return [CompletionItem(incomplete, type="file")]


SPEC = click.argument("spec", metavar="SPEC", type=SpecFile())
SPECS = click.argument("specs", metavar="SPEC...", nargs=-1, required=True, type=SpecFile())
