"""The commands that show what a model costs as formulas."""

from typing import Any

import click

from archspec.cli.commands import SET, STRICT, main
from archspec.cli.console import chosen, read_spec
from archspec.cli.costs import WORK
from archspec.cli.parameters import SPEC, File
from archspec.cli.printing import show_text
from archspec.cli.voice import timed

FORMAT = click.option(
    "--format",
    "form",
    type=click.Choice(("table", "json", "markdown")),
    default="table",
    show_default=True,
    help="How to write it.",
)


@main.command()
@click.argument("specs", metavar="SPEC...", nargs=-1, type=File())
@SET
@STRICT
@click.option("--kinds", is_flag=True, help="Compare all kinds of mixers and FFNs instead of the parts of specs.")
@FORMAT
def complexity(specs: tuple[str, ...], settings: tuple[str, ...], strict: bool, kinds: bool, form: str) -> None:
    """Show formulas, classes and crossing points.

    Formulas of the work, the state, the sequential steps and the memory that training takes, of each kind of layer and
    of the whole, in B sequences, T tokens, S tokens seen while decoding, M tokens of a memory, and the model's own
    sizes; and the lengths from which one kind of work costs more than another.

    \b
    archspec complexity model.yaml
    archspec complexity model.yaml --format json | jq .whole
    archspec complexity --kinds
    """
    if kinds:
        if specs or settings:
            raise click.UsageError("--kinds compares kinds by themselves; leave out SPEC and --set")
        from archspec import complexity_of_kinds
        from archspec.report.complexity import KINDS_FORMATS

        every = complexity_of_kinds()
        show_text(lambda: KINDS_FORMATS[form](every), form)
        return
    if not specs:
        raise click.UsageError("name a SPEC, or ask for --kinds")
    from archspec import complexity as formulas
    from archspec.report.complexity import FORMATS, as_json

    with timed("formulas"):
        found = [formulas(read_spec(name, settings, strict)) for name in specs]
    show_text(lambda: as_json(*found) if form == "json" else "\n\n\n".join(map(FORMATS[form], found)), form)


@main.command()
@SPEC
@SET
@STRICT
@click.option(
    "--what",
    type=click.Choice(("params", "flops", "cache", "steps", "memory")),
    default="flops",
    show_default=True,
    help="What to explain: parameters, FLOPs, bytes of decoding state, steps that must follow one another, or bytes "
    "that a training step keeps for the backward pass.",
)
@click.option("--layer", metavar="N", help="One layer alone, by its number (of another stack: encoder.0).")
@WORK
@click.option("--dtype", default="bfloat16", show_default=True, help="Type of the decoding state, and of what is kept.")
@click.option("--attention", type=click.Choice(("flash", "eager", "cpu")), default="flash", show_default=True,
              help="Scores in training: computed again, kept, or (of memory) what is kept on a CPU.")  # fmt: skip
@FORMAT
def explain(spec: str, settings: tuple[str, ...], strict: bool, form: str, **asked: Any) -> None:
    """Explain a number term by term.

    Each term stands with its formula, the numbers put in, what they come to and the rule behind it; the sums are those
    of `archspec count`, of the cost model and of the memory model, exactly.

    \b
    archspec explain model.yaml --seq 512
    archspec explain model.yaml --what params --layer 0
    archspec explain model.yaml --what cache --context 4096
    archspec explain model.yaml --what memory --seq 512 --batch 8
    """
    from archspec import explain as explained
    from archspec.report.explain import FORMATS

    loaded = read_spec(spec, settings, strict)
    with timed("explaining"):
        found = explained(loaded, **chosen(asked))
    show_text(lambda: FORMATS[form](found), form)
