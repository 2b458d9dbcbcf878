"""The commands."""

import os
import sys
from typing import TYPE_CHECKING, Any, Literal

import click

from archspec.cli.console import COMPLETE, DASH, Commands, UsualValue, chosen, put, read_spec
from archspec.cli.parameters import SPEC, File, Layer, Setting
from archspec.cli.printing import fitted, show_text, show_yaml
from archspec.cli.progress import Progress, Steps
from archspec.cli.start import Template, start
from archspec.cli.voice import note, timed

if TYPE_CHECKING:
    from archspec.language.model import Spec
    from archspec.passes.count import Count

SET = click.option(
    "--set",
    "settings",
    metavar="PATH=VALUE",
    multiple=True,
    type=Setting(),
    help="Override one setting of the spec, such as d_model=512 or define.attn.mixer.n_heads=4. May be repeated.",
)
STRICT = click.option("--strict", is_flag=True, help="Take warnings for mistakes.")
SIZE = click.IntRange(min=1)
BATCH = click.option("--batch", metavar="B", type=SIZE, default=1, show_default=True, help="Sequences.")
SEQ = click.option("--seq", metavar="T", type=SIZE, help="Tokens of each.  [default: max_seq_len]")
MEMORY = click.option("--memory", metavar="M", type=SIZE, help="Tokens of an encoder's input.  [default: as many]")
PICTURES = (".svg", ".png", ".pdf", ".dot")


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="SPEC is a YAML file, or - for standard input. Start with `archspec init`.",
)
@click.version_option(package_name="archspec-compiler", prog_name="archspec", message="%(prog)s %(version)s")
def main() -> None:
    """Sequence models from a page of YAML: exact counts, pictures and readable PyTorch."""


@main.command()
@SPEC
@SET
@STRICT
@click.option("--flat", is_flag=True, help="One value a line: its path, the value, and where it came from.")
@click.option(
    "--format",
    "form",
    type=click.Choice(("table", "json", "markdown", "csv")),
    help="How to write it; without --flat a spec is YAML, or JSON.  [default with --flat: table]",
)
def show(spec: str, settings: tuple[str, ...], strict: bool, flat: bool, form: str | None) -> None:
    """Print a spec with everything resolved.

    Every size and default is written out, the wiring as lines; the text is a spec again. With --flat each value says
    whether it was given (and where), is a default or a formula, or was inherited: hold it against a published config.

    \b
    archspec show model.yaml
    archspec show model.yaml --set d_model=1024 > larger.yaml
    archspec show model.yaml --flat
    archspec show model.yaml --flat --format csv
    """
    if form not in (None, "json") and not flat:
        raise click.UsageError(f"--format {form} is of values by themselves; add --flat")
    loaded = read_spec(spec, settings, strict)
    if flat:
        from archspec.report.flat import FORMATS

        show_text(lambda: FORMATS[form or "table"](loaded), form or "table")
    elif form == "json":
        import json

        from archspec.language.show import document

        click.echo(json.dumps(document(loaded), indent=2))
    else:
        import archspec

        show_yaml(archspec.show(loaded))


@main.command()
@SPEC
@SET
@STRICT
@click.option("--by", type=click.Choice(("tensor", "module", "kind")), help="What a row is.  [default: module]")
@click.option(
    "--format",
    "form",
    type=click.Choice(("table", "json", "markdown", "csv")),
    default="table",
    show_default=True,
    help="How to write it; JSON lists tensors unless --by says otherwise.",
)
@BATCH
@SEQ
@MEMORY
@click.option("--dtype", default="bfloat16", show_default=True, help="Of the decoding state.")
def count(spec: str, settings: tuple[str, ...], strict: bool, by: str | None, form: str, **asked: Any) -> None:
    """Count the parameters exactly, without building the model.

    Bytes of decoding are those of one sequence of max_seq_len tokens, at 2 bytes a number, unless other sizes are
    asked for; recurrent states that are exact have 4 bytes a number at least.

    \b
    archspec count model.yaml
    archspec count model.yaml --by kind
    archspec count model.yaml --batch 8 --seq 4096 --dtype float8
    archspec count model.yaml --format json | jq .total
    """
    from archspec import count as counted
    from archspec.passes.dtypes import bytes_of
    from archspec.passes.expect import check
    from archspec.report.count import FORMATS

    unused = [f"--{name}" for name in chosen(asked)]
    if form == "csv" and unused:
        raise click.UsageError(f"{' and '.join(unused)} changes what decoding holds, which --format csv does not list")
    loaded = read_spec(spec, settings, strict)
    with timed("counting"):
        found = counted(loaded, **asked)
    show_text(lambda: FORMATS[form](found, by or ""), form)
    usual = found if found.batch == 1 and bytes_of(found.dtype) == 2 else counted(loaded)  # of which promises speak
    _held(loaded, check(loaded, usual), settings)


@main.command(cls=UsualValue)
@SPEC
@SET
@STRICT
@click.option(
    "-o", "--output", metavar="FILE", type=File(), help="Where to write the module; by default it is printed."
)
@click.option(
    "--standalone",
    type=click.Choice(("plain", "fast")),
    metavar="[=plain|fast]",
    help="Write a file that needs torch alone. plain (what --standalone means): short, each operation as one would "
    "write it for this model; training keeps more in memory, since autograd derives every gradient, recurrences run "
    "slower, and losses of routers are those of one process and ask checkpoints for use_reentrant=False. fast: the "
    "package's hand-written gradients and tiles, in many more lines.",
)
def build(
    spec: str, settings: tuple[str, ...], strict: bool, output: str | None, standalone: Literal["plain", "fast"] | None
) -> None:
    """Write the model as one readable Python file.

    \b
    archspec build model.yaml -o model.py
    archspec build model.yaml --standalone -o model.py
    archspec build model.yaml --standalone=fast -o model.py
    """
    from archspec import generate

    loaded = read_spec(spec, settings, strict)
    with Progress(f"building {loaded.name}"), timed("generating"):
        source = generate(loaded, standalone=standalone or False)
    put(source, output, loaded.files)


@main.command()
@SPEC
@SET
@STRICT
@click.option("-o", "--output", metavar="FILE", type=File(), required=True, help="x.svg, x.png, x.pdf or x.dot.")
def render(spec: str, settings: tuple[str, ...], strict: bool, output: str) -> None:
    """Draw the architecture; all but .dot need Graphviz.

    \b
    archspec render model.yaml -o model.svg
    """
    from pathlib import Path

    from archspec import render as draw

    if Path(output).suffix.lower() not in PICTURES:
        behind = " behind a name" if output.lower().endswith(PICTURES) else ""
        raise click.BadParameter(f"{output!r} must end in one of {', '.join(PICTURES)}{behind}", param_hint="'-o'")
    loaded = read_spec(spec, settings, strict)
    with Progress(f"drawing {loaded.name}"), timed("drawing"):
        draw(loaded, output)
    note(f"wrote {output}")


@main.command()
@SPEC
@SET
@STRICT
def verify(spec: str, settings: tuple[str, ...], strict: bool) -> None:
    """Build the model and check what it does, on this machine.

    Counts and declarations are held against the model at full size. What runs is the model itself, or a copy of the
    same kinds and options with smaller sizes, with random weights, on sequences of up to 160 tokens that go past its
    windows, chunks and limits: the generated file gives what the spec says, gradients are those of the loss, no token
    changes an earlier output, decoding, padding and packing change nothing. The copy bounds the time to seconds.

    A line says "ok", "FAIL", "no" (not so, by the design of a component) or "--" (nothing to look at), and why. No
    weights, no data and no GPU kernel are looked at, nor how well the model learns.

    \b
    archspec verify model.yaml
    """
    loaded = read_spec(spec, settings, strict)  # before PyTorch is imported, which takes seconds
    with Steps(f"loading PyTorch to verify {loaded.name}") as steps:
        from archspec import verify as verified

        report = verified(
            loaded,
            begun=lambda heading: steps.put(fitted(heading)),
            progress=lambda name: steps.next(f"{loaded.name}: {name}"),
            found=lambda check: steps.put(click.style(fitted(str(check)), fg="red" if check.failed else None)),
        )
    click.echo(fitted(report.summary))
    sys.exit(0 if report.passed else 1)


@main.command()
@click.argument("name", required=False, type=Layer())
def layers(name: str | None) -> None:
    """Explain a component or a topic, or list them.

    NAME is a kind, or role.kind where two roles have it; a role, whose components are listed; or a topic.

    \b
    archspec layers
    archspec layers norm
    archspec layers attention
    archspec layers position.t5
    archspec layers wiring
    """
    from archspec.cli.catalogue import explain, overview

    show_text(overview if name is None else lambda: explain(name))


@main.command()
@click.option("-o", "--output", metavar="FILE", type=File(), help="Where to write it; by default it is printed.")
def schema(output: str | None) -> None:
    """Write the JSON Schema of specs.

    An editor takes it for completion, checks and descriptions.

    \b
    archspec schema -o archspec.schema.json
    # then, in the first line of a spec:
    # yaml-language-server: $schema=archspec.schema.json
    """
    import json

    from archspec import schema as language

    text = json.dumps(language(), indent=2) + "\n"
    put(text, output)


@main.command()
@click.argument("path", default="model.yaml", type=File())
@click.option("--template", cls=Template, help="Which model to start from")
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
def init(path: str, template: str | None, force: bool) -> None:
    """Write a commented spec to start from.

    Beside it comes the schema that an editor completes and checks with.

    \b
    archspec init
    archspec init tiny.yaml --template llama
    archspec init dna.yaml --template dna
    """
    if path != DASH and os.path.isfile(path) and not force:
        raise click.UsageError(f"{path} exists already; give another name, or --force to overwrite it")
    start(path, template)


@main.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> None:
    """Print the script that completes commands in a shell.

    \b
    eval "$(archspec completion bash)"           # in ~/.bashrc
    eval "$(archspec completion zsh)"            # in ~/.zshrc
    archspec completion fish | source            # in ~/.config/fish/config.fish
    """
    from click.shell_completion import get_completion_class

    from archspec.cli.shells import register

    register()
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(main, {}, "archspec", COMPLETE).source())


def kept(spec: "Spec", settings: tuple[str, ...]) -> "Count":
    """The count of a spec that keeps its promises."""
    from archspec import count as counted
    from archspec.passes.expect import check

    found = counted(spec)
    _held(spec, check(spec, found), settings)
    return found


def _held(spec: "Spec", problems: list[Any], settings: tuple[str, ...]) -> None:
    """Raise what the spec does not keep; a setting may well break a promise that was made without it."""
    from dataclasses import replace

    from archspec import SpecError

    if settings:
        problems = [replace(p, message=f"{p.message} (drop it with --set expect=null)") for p in problems]
    if problems:
        raise SpecError(problems, spec.file or spec.name)
