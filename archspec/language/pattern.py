"""Patterns of layers: `"(ssm ssm attn moe)x3 attn"` to a list of names.

Names stand apart by spaces or commas; parentheses group; `x3` or `*3` after a name or a group repeats it.
"""

import re
from collections.abc import Collection
from typing import NoReturn

from archspec.errors import Fault, suggest
from archspec.language.tree import clipped

MAX_LAYERS = 4096
MAX_LENGTH = 1 << 16

# a repeat (with its number, which may be missing after a star), a name or a number, a bracket; or what is none of them
_TOKEN = re.compile(
    r"[\s,]*(?:(?P<repeat>x(?=[0-9]+(?![A-Za-z0-9_]))|x(?=[\s,]+[0-9])|\*)[\s,]*(?P<times>[0-9]*)"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*|[0-9]+)|(?P<bracket>[()])|(?P<stray>.)|$)"
)


def parse_pattern(text: str, known: Collection[str]) -> list[str]:
    """The names of the layers in order, groups and repeats written out.

    Raises Fault for wrong syntax, for a name that is not in `known`, for a repeat below 1 and for more than 4096 layers
    (found before they are written out).
    """
    if len(text) > MAX_LENGTH:
        raise Fault(f"pattern {clipped(text)!r}: longer than {MAX_LENGTH} characters; repeat groups, as in (a b)x4")
    for token in _TOKEN.finditer(text):
        if found := token["stray"]:
            advice = "separate names by spaces" if found == "|" else "write for example (ssm ssm attn)x3 attn"
            raise Fault(f"{found!r} at character {token.start('stray') + 1} has no meaning in a pattern; {advice}")
    return _Parser(text, known).layers()


class UnknownBlock(Fault):
    """A pattern names a block that is not defined."""


class _Parser:
    """Reads tokens from left to right; `last` is where the thing that a repeat would repeat begins."""

    def __init__(self, text: str, known: Collection[str]) -> None:
        self.text, self.known = text, known
        self.items: list[str] = []
        self.groups: list[int] = []
        self.last: int | None = None

    def layers(self) -> list[str]:
        """All names of the pattern."""
        for token in _TOKEN.finditer(self.text):
            if token["repeat"]:
                self.repeat(token["times"])
            elif token["word"]:
                self.name(token["word"])
            elif token["bracket"] == "(":
                self.groups.append(len(self.items))
                self.last = None
            elif token["bracket"]:
                self.close()
        if self.groups:
            self.fail("a '(' is not closed")
        if not self.items:
            self.fail("the pattern is empty")
        return self.items

    def close(self) -> None:
        """A group ends; from here on it is what a repeat repeats."""
        if not self.groups:
            self.fail("a ')' closes nothing")
        self.last = self.groups.pop()
        if self.last == len(self.items):
            self.fail("a group holds nothing")

    def name(self, word: str) -> None:
        """One layer."""
        if word.isdigit():
            self.fail(f"the number {clipped(word)} repeats nothing; a repeat stands behind, as in attn x4")
        if word not in self.known:
            raise UnknownBlock(f"no block {clipped(word)!r}{suggest(word[:60], self.known)}")
        self.last = len(self.items)
        self.extend([word], 1)

    def repeat(self, digits: str) -> None:
        """Writes the last name or group out as often as asked."""
        if not digits:
            self.fail("a '*' needs a number behind it, as in attn*4")
        if f"x{digits}" in self.known:
            raise Fault(f"a block may not be called 'x{digits}': in a pattern it would be a repeat")
        if self.last is None:
            self.fail(f"x{clipped(digits)} repeats nothing; it stands behind a name or a group, once")
        times = int(digits) if len(digits) <= 9 else MAX_LAYERS + 1
        if times < 1:
            self.fail(f"a repeat must be at least 1, found {clipped(digits)}")
        self.extend(self.items[self.last :], times - 1)
        self.last = None

    def extend(self, names: list[str], times: int) -> None:
        """More layers; too many are refused before they are written out."""
        if len(self.items) + times * len(names) > MAX_LAYERS:
            self.fail(f"more than {MAX_LAYERS} layers")
        self.items += names * times

    def fail(self, what: str) -> NoReturn:
        """Refuses the pattern."""
        raise Fault(f"pattern {clipped(self.text)!r}: {what}")
