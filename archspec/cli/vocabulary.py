"""`archspec vocabulary`: the tokens of a spec, text to ids and back, and tokenizer files learned from texts."""

import os
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import click

from archspec.cli.commands import SET, STRICT, main
from archspec.cli.console import DASH, put, read_spec
from archspec.cli.parameters import SPEC, File
from archspec.cli.printing import fitted
from archspec.cli.progress import Progress
from archspec.cli.voice import Voiced, note
from archspec.errors import VocabularyError, printable

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from archspec import Vocabulary

SHOW = "show"


class _Vocabulary(Voiced, click.Group):
    """A group whose first command needs no name: `archspec vocabulary model.yaml`."""

    command_class = Voiced

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments; those that begin with no command are about a spec."""
        if not args and not ctx.resilient_parsing:  # not while a shell asks what could come next
            raise click.UsageError("needs a spec, or learn and texts", ctx)
        named = not args or args[0] in self.commands or args[0] in ("-h", "--help")
        return super().parse_args(ctx, args if named else [SHOW, *args])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem[Any]]":
        """Its commands, and the files of which one may be a spec."""
        from click.shell_completion import CompletionItem

        return [*super().shell_complete(ctx, incomplete), CompletionItem(incomplete, type="file")]


@main.group(cls=_Vocabulary)
def vocabulary() -> None:
    """Show tokens, encode a text, or learn a vocabulary.

    \b
    archspec vocabulary model.yaml
    archspec vocabulary model.yaml --encode "ACGT[MASK]"
    archspec vocabulary learn *.txt --size 4096 -o tok.json
    """


@vocabulary.command()
@SPEC
@SET
@STRICT
@click.option("--encode", metavar="TEXT", help="Print the ids of a text instead.")
@click.option("--decode", metavar="IDS", help="Print the text of ids instead, such as '5 6 4'.")
def show(spec: str, settings: tuple[str, ...], strict: bool, encode: str | None, decode: str | None) -> None:
    """Print the tokens of a spec with their ids."""
    from archspec import vocabulary as of

    if encode is not None and decode is not None:
        raise click.UsageError("--encode and --decode exclude one another")
    found = of(read_spec(spec, settings, strict))
    if encode is not None:
        click.echo(" ".join(map(str, found.encode(encode))))
    elif decode is not None:
        click.echo(found.decode(_numbers(decode)))
    else:
        table = list(_rows(found))  # before anything is printed, since it may read a file
        padded = "" if found.vocab_size == found.n_ids else f", padded to {found.vocab_size:,}"
        click.echo(f"{found.kind}: {found.n_ids:,} tokens{padded}")
        width = max(len(ids) for ids, _ in table)
        for ids, tokens in table:
            click.echo(fitted(f"  {ids:<{width}}  {printable(tokens)}"))


def _rows(found: "Vocabulary", most: int = 12) -> Iterator[tuple[str, str]]:
    """Ids and tokens for people: special tokens one by one, others in runs of which the ends are shown."""
    specials = {i: token for token, i in found.specials.items()}
    edges = [0, *sorted({*specials, *(i + 1 for i in specials)} - {0, found.n_ids}), found.n_ids]
    for start, end in pairwise(edges):
        if start in specials:
            yield str(start), specials[start]
            continue
        shown = range(start, end) if end - start <= most else [*range(start, start + most // 2), end - 1]
        words = [found.token(i) for i in shown]
        if len(words) < end - start:
            words.insert(-1, "...")
        yield (str(start) if end - start == 1 else f"{start}-{end - 1}"), " ".join(words)
    if found.vocab_size > found.n_ids:
        yield f"{found.n_ids}-{found.vocab_size - 1}", "(padding of the table)"


def _numbers(text: str) -> list[int]:
    """Ids, separated by spaces or commas."""
    try:
        return [int(word) for word in text.replace(",", " ").split()]
    except ValueError:
        raise click.BadParameter(f"{text!r} must be whole numbers, such as '5 6 4'", param_hint="'--decode'") from None


@vocabulary.command()
@click.argument("texts", metavar="TEXT...", nargs=-1, required=True, type=File())
@click.option("--size", type=int, required=True, help="Tokens in all: 256 bytes, special tokens, the rest learned.")
@click.option(
    "--kind", type=click.Choice(("bpe", "unigram")), default="bpe", show_default=True, help="How text is cut."
)
@click.option("--special", "specials", metavar="TOKEN", multiple=True, default=("<pad>", "<eos>", "<mask>"),
              show_default=True, help="A special token; may be repeated.")  # fmt: skip
@click.option("-o", "--output", metavar="FILE", type=File(), required=True, help="Where to write the tokenizer file.")
def learn(texts: tuple[str, ...], size: int, kind: str, specials: tuple[str, ...], output: str) -> None:
    """Learn a BPE or Unigram vocabulary from text files.

    Pieces are made of bytes, so any text can be encoded. The last line says how a spec names the file.

    \b
    archspec vocabulary learn notes/*.txt --size 4096 -o tok.json
    archspec vocabulary learn reads.txt --size 512 --kind unigram -o tok.json
    """
    from archspec import learn_vocabulary
    from archspec.files import write
    from archspec.language.yaml_writer import flow

    with Progress(f"learning {size} tokens"):
        text = learn_vocabulary(_lines(texts), size=size, kind=kind, specials=specials)
    if output == DASH:
        put(text, output)
    else:
        write(output, text.encode(), texts, "a text")
        said = {"kind": kind, "file": os.path.basename(output), "size": size, "specials": list(specials)}
        note(f"wrote {output}; a spec beside it says:")
        click.echo(printable(f"vocabulary: {flow(said)}"))


def _lines(names: tuple[str, ...]) -> Iterator[str]:
    """The lines of text files, one after another."""
    for name in names:
        try:
            with open(name, encoding="utf-8") as file:
                yield from file
        except UnicodeDecodeError as error:
            raise VocabularyError(f"{name}: is no text: byte 0x{error.object[error.start]:02x} is not UTF-8") from None
        except OSError as error:
            raise VocabularyError(f"{name}: {error.strerror or error}") from None
