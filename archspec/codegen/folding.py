"""The text of a definition with every line short enough: statements, comments and docstrings."""

import re
from collections.abc import Iterator
from textwrap import wrap

from archspec.codegen.brackets import depth
from archspec.codegen.layout import WIDTH, laid_out


def folded(text: str) -> str:
    """A text whose lines all fit; what fits already stays as it is."""
    if all(len(line) <= WIDTH for line in text.splitlines()):
        return text
    return "\n".join(line for lines in _logical_lines(text) for line in _shortened(lines))


def _logical_lines(text: str) -> Iterator[list[str]]:
    """The lines of each statement, comment and docstring."""
    here: list[str] = []
    for line in text.split("\n"):
        here.append(line)
        whole = "\n".join(here)
        if whole.count('"""') % 2 == 0 and depth(whole) <= 0:
            yield here
            here = []
    if here:
        yield here


def _shortened(lines: list[str]) -> list[str]:
    if all(len(line) <= WIDTH for line in lines):
        return lines
    said = lines[0].lstrip()
    margin = lines[0][: len(lines[0]) - len(said)]
    if said.startswith("#"):
        return comment(said.removeprefix("#").strip(), margin)
    if said.startswith('"""'):
        return docstring(lines)
    return [line for part in laid_out("\n".join(lines), len(margin)) for line in _placed(part, margin)]


def _placed(line: str, margin: str) -> list[str]:
    """A line of a statement at its place; a comment that found no room behind it is folded above it."""
    return comment(line[1:].strip(), margin) if line.startswith("#") else [margin + line]


def comment(said: str, margin: str = "") -> list[str]:
    """A comment on as many lines as it needs."""
    return [f"{margin}# {line}" for line in filled(said, WIDTH - len(margin) - 2)]


def docstring(lines: list[str]) -> list[str]:
    """A docstring on as many lines as it needs; one that had a single line ends on a line of its own."""
    if len(lines) == 1 and (match := re.fullmatch(r'( *)"""(.+)"""', lines[0])) is not None:
        lines = [f'{match[1]}"""{match[2]}', f'{match[1]}"""']
    found: list[str] = []
    for line in lines:
        said = line.lstrip()
        margin = line[: len(line) - len(said)]
        found += [margin + part for part in filled(said, WIDTH - len(margin))] if len(line) > WIDTH else [line]
    return found


def filled(text: str, width: int) -> list[str]:
    """A text on lines of at most that width, broken between words; a word without room in a line is cut."""
    return wrap(text, width, break_on_hyphens=False)
