"""The topics of the spec language, each a page of Markdown in `texts/`, read when somebody asks for it.

A topic is a file: its name is what `archspec layers NAME` takes, its first line `# name: what it is`.
`docs/language.md` is made of the same pages, and a test runs every example in them.
"""

import re
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).parent / "texts"
# how a reader meets them; what is not named here follows in alphabetical order
ORDER = (
    "spec",
    "blocks",
    "pattern",
    "share",
    "sizes",
    "vocabulary",
    "wiring",
    "between",
    "streams",
    "overrides",
    "extends",
    "stacks",
    "heads",
    "expect",
    "set",
)

OPENING = """\
# The spec language

A spec is one YAML mapping. It says sizes, layers and how they are put together; `archspec show` prints what it leaves
unsaid, and `archspec layers` the components that it may use. This page is made of what `archspec layers TOPIC` prints
(`make generated`), and a test runs its examples. An example that says no `d_model`, `vocab_size`, `max_seq_len` or
`head` is part of a spec that does.
"""


def topics() -> tuple[str, ...]:
    """The names of all topics, in the order in which they are best read."""
    found = sorted(path.stem for path in FOLDER.glob("*.md"))
    return (*(name for name in ORDER if name in found), *(name for name in found if name not in ORDER))


def page(topic: str) -> str:
    """The page of a topic, as Markdown; `[KEYS of expect]` on a line is that table of words with what they mean."""
    text = (FOLDER / f"{topic}.md").read_text(encoding="utf-8")
    return re.sub(r"^\[(\w+) of (\w+)\]$", _words, text, flags=re.MULTILINE)


def _words(table: re.Match[str]) -> str:
    """A table of the language, a line for each of its words."""
    from importlib import import_module
    from textwrap import fill

    words: Mapping[str, str] = getattr(import_module(f"archspec.language.{table[2]}"), table[1])
    return "\n".join(fill(f"- `{word}`: {meaning}", 118, subsequent_indent="  ") for word, meaning in words.items())


def summary(topic: str) -> str:
    """What a topic is about, in one line."""
    with (FOLDER / f"{topic}.md").open(encoding="utf-8") as stream:
        return stream.readline().partition(": ")[2].strip()


def language() -> str:
    """All topics, as one page of Markdown."""
    names = topics()
    contents = "\n".join(f"- [{name}](#{name}): {summary(name)}" for name in names)
    pages = "\n".join(_section(name) for name in names)
    return f"{OPENING}\n{contents}\n\n{pages}"


def _section(topic: str) -> str:
    """The page of a topic, below a heading of its name alone."""
    text = page(topic).partition("\n")[2].strip()
    return f"## {topic}\n\n{summary(topic)[0].upper()}{summary(topic)[1:]}.\n\n{text}\n"


def see(topic: str) -> str:
    """What a message adds where the reader may want more than a line: ` (see: archspec layers wiring)`."""
    return f" (see: archspec layers {topic})"
