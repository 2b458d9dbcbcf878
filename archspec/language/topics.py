"""The topics of the spec language, each a page of Markdown in `texts/`, read when somebody asks for it.

A topic is a file: its name is what `archspec layers NAME` takes, its first line `# name: what it is`.
`docs/language.md` is made of the same pages, and a test runs every example in them.
"""

from pathlib import Path

FOLDER = Path(__file__).parent / "texts"
# how a reader meets them; what is not named here follows in alphabetical order
ORDER = ("blocks", "pattern", "share", "sizes", "wiring", "overrides", "extends", "stacks", "expect", "set")


def topics() -> tuple[str, ...]:
    """The names of all topics, in the order in which they are best read."""
    found = sorted(path.stem for path in FOLDER.glob("*.md"))
    return (*(name for name in ORDER if name in found), *(name for name in found if name not in ORDER))


def page(topic: str) -> str:
    """The page of a topic, as Markdown."""
    return (FOLDER / f"{topic}.md").read_text(encoding="utf-8")


def summary(topic: str) -> str:
    """What a topic is about, in one line."""
    with (FOLDER / f"{topic}.md").open(encoding="utf-8") as stream:
        return stream.readline().partition(": ")[2].strip()


def see(topic: str) -> str:
    """What a message adds where the reader may want more than a line: ` (see: archspec layers wiring)`."""
    return f" (see: archspec layers {topic})"
