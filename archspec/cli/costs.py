"""The command that prices a spec."""

from collections.abc import Callable
from functools import reduce
from typing import Any

import click

from archspec.cli.commands import BATCH, MEMORY, SEQ, SET, SIZE, STRICT, main
from archspec.cli.console import chosen, read_spec
from archspec.cli.parameters import SPEC
from archspec.cli.printing import show_text
from archspec.cli.voice import timed

Decorator = Callable[[Any], Any]


def together(*options: Decorator) -> Decorator:
    """Several options as one."""
    return lambda command: reduce(lambda made, option: option(made), reversed(options), command)


WORK = together(  # what is priced
    click.option("--phase", type=click.Choice(("train", "prefill", "decode")), default="train", show_default=True,
                 help="A training step, the forward pass over a prompt, or one more token."),
    BATCH,
    SEQ,
    MEMORY,
    click.option("--context", metavar="S", type=SIZE, help="Decoding: tokens that are seen, the new one included."),
)  # fmt: skip


@main.command()
@SPEC
@SET
@STRICT
@WORK
@click.option("--dtype", default="bfloat16", show_default=True, help="Of weights, activations and caches.")
@click.option("--attention", type=click.Choice(("flash", "eager", "cpu")), default="flash", show_default=True,
              help="Scores in training: flash computes them twice, eager keeps them, cpu either of both.")  # fmt: skip
@click.option("--mla", type=click.Choice(("absorbed", "expanded")), default="absorbed", show_default=True,
              help="How latent attention decodes: on the latents, or expanding all of them at every step.")  # fmt: skip
@click.option("--checkpoint", type=click.Choice(("none", "block")), default="none", show_default=True,
              help="block runs the forward pass of a layer again in the backward pass.")  # fmt: skip
@click.option("--optimizer", default="adamw", show_default=True, help="Whose states a training step holds.")
@click.option("--gradient-dtype", help="Of gradients.  [default: that of the weights]")
@click.option("--master-dtype", help="Of a second copy of the weights, which the optimizer steps.")
@click.option("--generate", metavar="N", type=SIZE, help="The bill of a whole answer of N tokens instead.")
@click.option("--prompt", metavar="T", type=SIZE, help="Tokens of the prompt of that answer.")
@click.option("--by", type=click.Choice(("layer", "kind", "op")), help="What a row is.  [default: layer]")
@click.option("--format", "form", type=click.Choice(("table", "json", "markdown", "csv")), default="table",
              show_default=True, help="How to write it.")  # fmt: skip
def cost(
    spec: str,
    settings: tuple[str, ...],
    strict: bool,
    by: str | None,
    form: str,
    generate: int | None,
    prompt: int | None,
    **asked: Any,
) -> None:
    """Price training, a prompt, or one more token.

    The model is not built. FLOPs are those of products, two a multiply-add; attention over every pair of a query and a
    key that is kept, and beside it the pairs that its mask leaves. "For MFU" are those that the trainers Megatron-LM
    and torchtitan count. What no counter can prove is called an estimate.

    \b
    archspec cost model.yaml --batch 8 --seq 2048
    archspec cost model.yaml --phase decode --context 4096
    archspec cost model.yaml --generate 500 --prompt 2000
    archspec cost model.yaml --format json | jq .flops
    """
    from archspec import cost as priced
    from archspec.report.cost import FORMATS

    if (generate is None) != (prompt is None):
        raise click.UsageError("--generate and --prompt go together: the tokens of an answer, and of what it answers")
    loaded = read_spec(spec, settings, strict)
    if generate is not None and prompt is not None:
        show_text(_bill(loaded, prompt, generate, by, form, asked), form)
    else:
        with timed("pricing"):
            found = priced(loaded, **asked)
        show_text(lambda: FORMATS[form](found, by or ""), form)


def _bill(
    loaded: Any, prompt: int, generate: int, by: str | None, form: str, asked: dict[str, Any]
) -> Callable[[], str]:
    """What writes a bill; options that say nothing of one are wrong use."""
    from archspec import bill
    from archspec.report.bill import FORMATS

    used = {name: asked[name] for name in ("batch", "memory", "dtype", "mla")}
    said = [f"--{name.replace('_', '-')}" for name in chosen(asked) if name not in used] + (["--by"] if by else [])
    if said or form not in FORMATS:
        what = " and ".join(said) or f"--format {form}"
        go = "do" if len(said) > 1 else "does"
        raise click.UsageError(f"{what} {go} not go with --generate, which prices a prompt and an answer")
    with timed("pricing"):
        found = bill(loaded, prompt=prompt, generate=generate, **used)
    return lambda: FORMATS[form](found)
