"""What arguments and options are, beside text, so that a shell can complete them: files, settings, kinds of layers."""

import os
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class Text(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """A text as it is; whoever uses it says best what is wrong with it."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text itself."""
        return str(value)


class File(Text):
    """The path of a file, or `-`."""

    name = "file"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> "list[CompletionItem[Any]]":
        """The shell's own files."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(incomplete, type="file")]


class Setting(Text):
    """`path=value`."""

    name = "path=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text itself; without a path or a '=' it is wrong use."""
        path, equals, _ = str(value).partition("=")
        if not equals or not path.strip():
            self.fail(f"{value!r} must be path=value, such as d_model=512 (see: archspec layers set)", param, ctx)
        return str(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> "list[CompletionItem[Any]]":
        """The paths of the spec that was named before, and the values that can be listed."""
        from click.shell_completion import CompletionItem

        from archspec.cli.paths import offers

        spec = next(filter(os.path.isfile, ctx.obj or ()), None)  # an unfinished option leaves ctx.params empty
        return [
            CompletionItem(offer.text, type="open" if offer.open else "plain", help=offer.help)
            for offer in offers(incomplete, spec)
        ]


class Layer(Text):
    """A kind of component, role.kind, a role, or a topic of the language."""

    name = "layer"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> "list[CompletionItem[Any]]":
        """Topics, roles and kinds; role.kind behind a role."""
        from click.shell_completion import CompletionItem

        from archspec.language.topics import summary, topics
        from archspec.layers.registry import everything

        found = everything()
        names = {topic: summary(topic) for topic in topics()} | {role: role.replace("_", " ") for role in found}
        for role, kinds in found.items():
            for kind, cls in kinds.items():
                said = (cls.__doc__ or "").partition("\n")[0]
                names |= {f"{role}.{kind}" if "." in incomplete else kind: said}
        return [CompletionItem(name, help=text) for name, text in names.items() if name.startswith(incomplete)]


SPEC = click.argument("spec", metavar="SPEC", type=File())
SPECS = click.argument("specs", metavar="SPEC...", nargs=-1, required=True, type=File())
