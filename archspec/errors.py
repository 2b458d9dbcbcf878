"""Every error that archspec raises on purpose.

ArchspecError            the root: catch this to catch all
├── SpecError            a spec is wrong; holds every problem of the file, each with its place (exit code 1)
├── CostError            a cost is asked of a model or for sizes that have none (exit code 1)
├── GenerateError        a layer's source asks the code generator for something it cannot write out (exit code 1)
├── MissingError         a package is not installed, such as PyTorch, which extra brings it (exit code 1)
├── RenderError          a picture cannot be drawn, for example because Graphviz is missing (exit code 1)
├── VocabularyError      a text, an id or a tokenizer file does not fit a vocabulary (exit code 1)
├── StateError           a decoding state is not of this model or batch, or cannot do what is asked (exit code 1)
├── WriteError           a file cannot be written (exit code 1; 2 where its name alone says so)
└── VerifyError          a built model does not do what its spec says (exit code 1)

`SpecWarning` is the category of what a spec may say, but hardly means: settings that do not act at its sizes, and the
like. `Fault` is the small change of the spec room: one mistake found in one piece of text, before anybody knows in
which file it stands. The loader gives it a place and makes it a `Problem`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from heapq import nsmallest
from itertools import islice

CLOSE = 0.65  # how alike two words must be (0 to 1) for one to be taken for the other
LONGEST_WORD = 60
MOST_COMPARED = 50
MOST_READ = 500
MOST_WORDS = 40
STRANGE = re.compile(r"[^\x00-\x7f]|\\u([0-9a-f]{4})|\\x([0-9a-f]{2})")  # a character, or what `repr` makes of it


def printable(text: str) -> str:
    """A text with its control characters, and whatever else does not show, as escapes: it may be a stranger's."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def noted(message: str) -> str:
    """A message, with the first character that is no ASCII by its name: it may look like another, or like nothing."""
    strange = STRANGE.search(message)
    if strange is None:
        return message
    from unicodedata import name

    code = int(strange[1] or strange[2], 16) if strange[0].isascii() else ord(strange[0])
    return f"{message} (U+{code:04X} is {name(chr(code), 'a control character')})"


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A place in a file; line and column count from 1, and 0 means the whole file."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a spec: where it is, and what is wrong, was found and would be right."""

    mark: Mark
    path: str
    message: str

    def __str__(self) -> str:
        path = f"{self.path}: " if self.path else ""
        return printable(f"{self.mark}: {path}{noted(self.message)}")


def in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Each problem once, by its place; what is written once and used in several places is told of the first."""
    found: dict[object, Problem] = {}
    for problem in sorted(problems, key=lambda p: (p.mark, p.path)):
        place = problem.mark if problem.mark.column else (problem.mark, problem.path)
        found.setdefault((place, problem.message), problem)
    return tuple(found.values())


class ArchspecError(Exception):
    """The root of all errors raised on purpose."""

    exit_code = 1

    def __str__(self) -> str:
        return "\n".join(map(printable, super().__str__().split("\n")))


class SpecError(ArchspecError):
    """All problems of a spec, sorted by place."""

    def __init__(self, problems: Iterable[Problem], file: str):
        self.problems = in_order(problems)
        self.file = file
        super().__init__(str(self))

    def __str__(self) -> str:
        last = f"{many(len(self.problems), 'problem')} in {printable(self.file)}"
        return "\n".join([*map(str, self.problems), last])


class SpecWarning(UserWarning):
    """A setting of a spec that is accepted, but has no effect, or hardly the one that was meant."""


class CostError(ArchspecError, ValueError):
    """A cost is asked of a model, or for a length, that has none: decoding without a decoder, a batch of 0."""


class GenerateError(ArchspecError):
    """A layer's source does something that the code generator cannot write out."""


class MissingError(ArchspecError, ImportError):
    """A package is not installed that only some answers need."""


class RenderError(ArchspecError):
    """A picture could not be drawn."""


class StateError(ArchspecError, ValueError):
    """A decoding state does not go with what it is given to, or cannot be changed as asked; it is left as it was."""


class VocabularyError(ArchspecError, ValueError):
    """A text holds what there is no token for, ids are no tokens, or a tokenizer file is not as the spec says."""


class WriteError(ArchspecError):
    """A file could not be written; what was there is as it was."""

    def __init__(self, message: str, exit_code: int = 1):
        super().__init__(message)
        self.exit_code = exit_code


class VerifyError(ArchspecError):
    """A built model does not do what its spec says."""


class Fault(ValueError):
    """One mistake in one piece of text; whoever knows the place makes it a `Problem`."""


def many(n: int, noun: str) -> str:
    """`1 layer`, `1,024 tokens`."""
    return f"{n:,} {noun}{'s' if n != 1 else ''}"


def in_tokens(n: int) -> str:
    """`1 token`, `1,024 tokens`."""
    return many(n, "token")


def closest(word: str, known: Iterable[str]) -> str:
    """The known word that is so like this one that it was probably meant, or nothing."""
    if len(word) > LONGEST_WORD:
        return ""
    from difflib import get_close_matches  # which most runs never need

    names = sorted(set(islice(known, MOST_READ)) - {word}, key=lambda name: (abs(len(name) - len(word)), name))
    return next(iter(get_close_matches(word, names[:MOST_COMPARED], n=1, cutoff=CLOSE)), "")


def listed(known: Iterable[str]) -> str:
    """`; known: a, b, c`, cut where there are many."""
    names = nsmallest(MOST_WORDS + 1, known)
    more = ", ..." if len(names) > MOST_WORDS else ""
    return f"; known: {', '.join(names[:MOST_WORDS])}{more}" if names else ""


def suggest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` when a known word is close, else `; known: a, b, c`."""
    names = [name for name in known if name != word]
    close = closest(word, names)
    return f"; did you mean {close!r}?" if close else listed(names)
