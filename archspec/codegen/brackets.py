"""A statement read as a tree of brackets whose leaves are text."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"""(?P<string>[rbfuRBFU]{0,2}(?:\"{3}(?:\\.|[^\\])*?\"{3}|'{3}(?:\\.|[^\\])*?'{3}
        |"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))
    |(?P<comment>\#[^\n]*)|(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<comma>,)|(?P<space>\s+)|(?P<word>\w+)|(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)


@dataclass
class Bracket:
    """A pair of brackets and what stands between its commas."""

    opening: str
    calls: bool  # what stands before it is called or subscripted
    items: list["Parts"] = field(default_factory=lambda: [[]])
    comma: bool = False  # after the last item
    comprehends: bool = False

    @property
    def closing(self) -> str:
        """The bracket that ends it."""
        return {"(": ")", "[": "]", "{": "}"}[self.opening]

    @property
    def needs_comma(self) -> bool:
        """Whether its last comma makes it a tuple: `(x,)` and `table[x,]`, but not `f(x,)` and `[x,]`."""
        return self.comma and len(self.items) == 1 and self.calls == (self.opening == "[")

    @property
    def takes_comma(self) -> bool:
        """Whether a comma after the last item changes nothing."""
        if self.comprehends:
            return False
        return len(self.items) > 1 or self.needs_comma or self.calls == (self.opening == "(")

    def flat(self) -> str:
        """The whole on one line."""
        comma = "," if self.needs_comma else ""
        return f"{self.opening}{', '.join(map(flat, self.items))}{comma}{self.closing}"


Parts = list[str | Bracket]


def flat(parts: Parts) -> str:
    """Parts on one line."""
    return "".join(part if isinstance(part, str) else part.flat() for part in parts)


def tokens(text: str) -> Iterator[tuple[str, str]]:
    """The pieces of a text with what they are: string, comment, open, close, comma, space, word or other."""
    for match in _TOKEN.finditer(text):
        yield str(match.lastgroup), match[0]


def depth(text: str) -> int:
    """How many brackets a text leaves open."""
    return sum((kind == "open") - (kind == "close") for kind, _ in tokens(text))


def read(statement: str) -> tuple[Parts, list[str]]:
    """A statement as parts, and its comments."""
    reader = _Reader()
    for kind, text in tokens(statement.strip()):
        reader.take(kind, text)
    _strip(reader.top)
    return reader.top, reader.comments


class _Reader:
    """Takes one token after another."""

    def __init__(self) -> None:
        self.top: Parts = []
        self.comments: list[str] = []
        self.open: list[Bracket] = []
        self.lambdas: list[int] = []  # the depths at which a comma stands between parameters

    @property
    def here(self) -> Parts:
        """What the next token belongs to."""
        return self.open[-1].items[-1] if self.open else self.top

    def take(self, kind: str, text: str) -> None:
        """Add a token."""
        if kind == "comment":
            self.comments.append(text)
        elif kind == "open":
            bracket = Bracket(text, _is_called(self.here))
            self.here.append(bracket)
            self.open.append(bracket)
        elif kind == "close":
            _end(self.open.pop())
        elif kind == "comma" and self.open and len(self.open) not in self.lambdas:
            self.open[-1].items.append([])
        else:
            if text == "for" and self.open:
                self.open[-1].comprehends = True
            if text == "lambda":
                self.lambdas.append(len(self.open))
            elif text == ":" and self.lambdas[-1:] == [len(self.open)]:
                self.lambdas.pop()
            _add(self.here, " " if kind == "space" else text)


def _add(parts: Parts, text: str) -> None:
    """Add text, with one space where there were several and none at the start."""
    before = parts[-1] if parts and isinstance(parts[-1], str) else ""
    if text == " " and (not parts or before.endswith(" ")):
        return
    if before:
        parts[-1] = before + text
    else:
        parts.append(text)


def _strip(parts: Parts) -> None:
    """Take away the space at the end."""
    if parts and isinstance(last := parts[-1], str):
        parts[-1:] = [last.rstrip()] if last.strip() else []


def _end(bracket: Bracket) -> None:
    """Its items without spaces around them, without an empty one behind the last comma; a comprehension is one item."""
    for item in bracket.items:
        _strip(item)
    if bracket.comprehends:
        bracket.items = [_joined(bracket.items)]
    if not bracket.items[-1]:
        bracket.items.pop()
        bracket.comma = bool(bracket.items)


def _joined(items: list[Parts]) -> Parts:
    """Items that a comma within a comprehension has cut."""
    whole: Parts = []
    for i, item in enumerate(items):
        for part in [*([", "] if i else []), *item]:
            if isinstance(part, str):
                _add(whole, part)
            else:
                whole.append(part)
    return whole


def _is_called(before: Parts) -> bool:
    """Whether a bracket that comes next is a call or a subscript."""
    return bool(before) and (isinstance(before[-1], Bracket) or re.search(r"[\w\"']$", before[-1]) is not None)
