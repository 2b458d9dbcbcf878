"""Patterns of layers: `"(ssm ssm attn moe)x3 attn"` to a list of names.

Names stand apart by spaces or commas; parentheses group; `x3` or `*3` after a name or a group repeats it.
"""

import re
from collections.abc import Collection
from typing import NoReturn

from archspec.errors import Fault, suggest

MAX_LAYERS = 4096
MAX_LENGTH = 1 << 16

_TOKEN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+|[()*]")
_GAP = re.compile(r"[\s,]*")
_REPEAT = re.compile(r"x[0-9]+")


def parse_pattern(text: str, known: Collection[str]) -> list[str]:
    """The names of the layers in order, groups and repeats written out.

    Raises Fault for wrong syntax, for a name that is not in `known`, for a repeat below 1 and for more than 4096 layers
    (found before they are written out).
    """
    if len(text) > MAX_LENGTH:
        raise Fault(f"pattern {_shown(text)!r}: longer than {MAX_LENGTH} characters; repeat groups, as in (a b)x4")
    return _Parser(text, known).layers()


class _Parser:
    """Reads tokens from left to right; `last` is where the thing that a repeat would repeat begins."""

    def __init__(self, text: str, known: Collection[str]) -> None:
        self.text = text
        self.known = known
        self.tokens = self.split()
        self.items: list[str] = []
        self.groups: list[int] = []
        self.last: int | None = None

    def split(self) -> list[str]:
        """The tokens; raises Fault at the first character that starts none."""
        tokens = []
        at = self.skip(0)
        while at < len(self.text):
            token = _TOKEN.match(self.text, at)
            if token is None:
                raise Fault(self.stray(at))
            tokens.append(token[0])
            at = self.skip(token.end())
        return tokens

    def skip(self, at: int) -> int:
        """The place behind spaces and commas."""
        gap = _GAP.match(self.text, at)
        return gap.end() if gap else at

    def stray(self, at: int) -> str:
        """What to say of a character that has no meaning here."""
        advice = "; separate names by spaces" if self.text[at] == "|" else "; write for example (ssm ssm attn)x3 attn"
        return f"{self.text[at]!r} at character {at + 1} has no meaning in a pattern{advice}"

    def layers(self) -> list[str]:
        """All names of the pattern."""
        at = 0
        while at < len(self.tokens):
            at += self.step(self.tokens[at], self.tokens[at + 1] if at + 1 < len(self.tokens) else "")
        if self.groups:
            self.fail("a '(' is not closed")
        if not self.items:
            self.fail("the pattern is empty")
        return self.items

    def step(self, token: str, following: str) -> int:
        """Takes one name, bracket or repeat; returns how many tokens it was."""
        if token == "(":
            self.groups.append(len(self.items))
            self.last = None
        elif token == ")":
            self.close()
        elif token == "*" or (token == "x" and following.isdigit()):
            self.repeat(following)
            return 2
        elif _REPEAT.fullmatch(token):
            if token in self.known:
                raise Fault(f"a block may not be called {token!r}: in a pattern it would be a repeat")
            self.repeat(token[1:])
        else:
            self.name(token)
        return 1

    def close(self) -> None:
        """A group ends; from here on it is what a repeat repeats."""
        if not self.groups:
            self.fail("a ')' closes nothing")
        self.last = self.groups.pop()
        if self.last == len(self.items):
            self.fail("a group holds nothing")

    def name(self, token: str) -> None:
        """One layer."""
        if token.isdigit():
            self.fail(f"the number {_shown(token)} repeats nothing; a repeat stands behind, as in attn x4")
        if token not in self.known:
            raise Fault(f"no block {_shown(token)!r}{suggest(token[:60], self.known)}")
        self.last = len(self.items)
        self.items.append(token)
        self.bound(len(self.items))

    def repeat(self, digits: str) -> None:
        """Writes the last name or group out as often as asked."""
        if not digits.isdigit():
            self.fail("a '*' needs a number behind it, as in attn*4")
        if self.last is None:
            self.fail(f"x{_shown(digits)} repeats nothing; it stands behind a name or a group, once")
        times = int(digits) if len(digits) <= 9 else MAX_LAYERS + 1
        if times < 1:
            self.fail(f"a repeat must be at least 1, found {_shown(digits)}")
        body = len(self.items) - self.last
        self.bound(len(self.items) + (times - 1) * body)
        if times > 1:
            self.items += self.items[self.last :] * (times - 1)
        self.last = None

    def bound(self, count: int) -> None:
        """Refuses too many layers before they are written out."""
        if count > MAX_LAYERS:
            self.fail(f"more than {MAX_LAYERS} layers")

    def fail(self, what: str) -> NoReturn:
        """Refuses the pattern."""
        raise Fault(f"pattern {_shown(self.text)!r}: {what}")


def _shown(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
