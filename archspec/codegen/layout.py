"""The layout of one statement: one line if it fits, else its brackets broken from the outermost in.

Of what does not fit, the brackets that hold most of it are broken: what stands between them is written on a line of its
own, or one item a line where that is too long, and each item is laid out in the same way; where no bracket helps, the
value stands in parentheses of its own and breaks at its operators. Nothing but this decides how a generated file looks,
so that no output depends on the version of an installed tool.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain

from archspec.codegen.brackets import Bracket, Parts, flat, read, tokens

WIDTH = 120

# where an item may end a line, first what binds least: comprehensions, conditions, and, or, sums, products, anything
_BREAKS = (
    r" (?=(?:async )?for )",
    r" (?=if |else )",
    r" (?=or )",
    r" (?=and )",
    r" (?=[+-] )",
    r" (?=[*/|@%&]+ )",
    " ",
)
_ASSIGNS = re.compile(r" (?:[-+*/%@&|^]|//|\*\*|<<|>>)?=(?= |$)")
_KEYWORD = re.compile(r"(?:return|assert|if|elif|while|yield)(?= )")
_NUMBER = re.compile(r"-?[\d.]+(?:e[-+]?\d+)?")


def laid_out(statement: str, indent: int) -> list[str]:
    """The lines of a statement that stands `indent` columns to the right, without that indent.

    A comment stands behind the statement, or above it where it has no room there.

    Args:
        statement: one logical line, a header such as `def f(x):` included; it may already stand on several lines.
        indent: columns to its left.
    """
    parts, comments = read(statement)
    ends = bool(comments) and statement.rstrip().endswith(comments[-1])
    inside, last = (comments[:-1], "  " + comments[-1]) if ends else (comments, "")
    line = flat(parts)
    lines = [line] if len(line) + indent <= WIDTH else _broken(parts, indent)
    if len(lines[-1] + last) + indent <= WIDTH:
        return [*inside, *lines[:-1], lines[-1] + last]
    return [*inside, last.strip(), *lines]


def one_line(statement: str) -> str:
    """A statement on one line whatever its length; one with a comment between its brackets stays as it is."""
    parts, comments = read(statement)
    if not comments:
        return flat(parts)
    inside = len(comments) > 1 or not statement.rstrip().endswith(comments[0])
    return statement if inside else f"{flat(parts)}  {comments[0]}"


def _fitting(ways: Iterator[list[str]], indent: int, otherwise: list[str]) -> list[str]:
    """The first way whose lines all fit, else that whose longest line is shortest."""
    tried = [otherwise]
    for way in ways:
        if _widest(way) + indent <= WIDTH:
            return way
        tried.append(way)
    return min(tried, key=_widest)


def _widest(lines: list[str]) -> int:
    return max(map(len, lines))


# Statements


def _broken(parts: Parts, indent: int) -> list[str]:
    """A statement that is too long for one line."""
    text = flat(parts)
    if text.startswith("from ") and " import " in text:
        head, _, names = text.partition(" import ")
        return [f"{head} import (", *(f"    {name}," for name in names.strip("()").split(", ")), ")"]

    def ways() -> Iterator[list[str]]:
        yield from _at_brackets(parts, indent)
        yield from _in_parentheses(parts, indent)

    return _fitting(ways(), indent, [text])


def _in_parentheses(parts: Parts, indent: int) -> Iterator[list[str]]:
    """A statement whose value stands between parentheses of its own."""
    head, value = _head(parts)
    if head:
        header = re.match(r"(?:if|elif|while)\b", head) is not None
        text = flat(value).removesuffix(":") if header else flat(value)
        yield [f"{head} (", *(f"    {line}" for line in _item(text, indent + 4, "")), "):" if header else ")"]


def _head(parts: Parts) -> tuple[str, Parts]:
    """What stands before the value of a statement, and the value; no head where there is no value."""
    for i, part in enumerate(parts):
        if not isinstance(part, str):
            continue
        found = (_KEYWORD.match(part) if i == 0 else None) or _ASSIGNS.search(part)
        if found:
            rest = part[found.end() :].lstrip()
            return flat([*parts[:i], part[: found.end()]]), [*([rest] if rest else []), *parts[i + 1 :]]
    return "", parts


# Brackets and what stands between them


def _at_brackets(parts: Parts, indent: int) -> Iterator[list[str]]:
    """The ways to break at one bracket, first that which holds most."""
    places = [i for i, part in enumerate(parts) if isinstance(part, Bracket) and part.items]
    for i in sorted(places, key=lambda i: -len(flat([parts[i]]))):
        bracket = parts[i]
        assert isinstance(bracket, Bracket)
        head = _beside([*parts[:i], bracket.opening], indent)
        tail = _beside([bracket.closing, *parts[i + 1 :]], indent)
        inside = bracket.flat()[1:-1]
        if len(inside) + indent + 4 <= WIDTH:
            yield [*head, f"    {inside}", *tail]
        yield [*head, *(f"    {line}" for line in _items(bracket, indent + 4)), *tail]


def _beside(parts: Parts, indent: int) -> list[str]:
    """What stands before or after a broken bracket, which may be too long itself."""
    line = flat(parts)
    return [line] if len(line) + indent <= WIDTH else _fitting(_at_brackets(parts, indent), indent, [line])


def _items(bracket: Bracket, indent: int) -> list[str]:
    """The items of a bracket, one a line; numbers fill their lines."""
    texts = [flat(item) for item in bracket.items]
    ends = [","] * (len(texts) - 1) + ["," if bracket.takes_comma else ""]
    if len(texts) > 8 and all(_NUMBER.fullmatch(text) for text in texts):
        return _filled(" ".join(text + end for text, end in zip(texts, ends, strict=True)), indent)
    return [line for text, end in zip(texts, ends, strict=True) for line in _item(text, indent, end)]


@lru_cache(maxsize=1024)  # the same item is tried again and again where little fits
def _item(text: str, indent: int, end: str) -> tuple[str, ...]:
    """An item between brackets, where a line may end anywhere, and the comma after it."""
    if len(text + end) + indent <= WIDTH:
        return (text + end,)
    parts, _ = read(text)

    def ways() -> Iterator[list[str]]:
        brackets, operators = _at_brackets(parts, indent), _at_operators(parts, indent)
        is_comprehension = len(_split(parts, _BREAKS[0])) > 1
        first, second = (operators, brackets) if is_comprehension else (brackets, operators)
        for way in chain(first, second, [_filled(text, indent)]):
            yield [*way[:-1], way[-1] + end]

    return tuple(_fitting(ways(), indent, [text + end]))


def _at_operators(parts: Parts, indent: int) -> Iterator[list[str]]:
    """The ways to break at operators, first at those that bind least; each piece is laid out in turn."""
    for pattern in _BREAKS:
        pieces = _split(parts, pattern)
        if len(pieces) > 1:
            yield [line for piece in pieces for line in _item(piece, indent, "")]


def _split(parts: Parts, pattern: str) -> list[str]:
    """Parts cut where their own text, not that between brackets or quotes, matches."""
    pieces = [""]
    for part in parts:
        for kind, text in [("bracket", part.flat())] if isinstance(part, Bracket) else _words(part):
            cut = kind == "text" and re.split(pattern, text)
            first, *others = cut or [text]
            pieces[-1] += first
            pieces += others
    return [piece for piece in pieces if piece]


def _words(text: str) -> Iterator[tuple[str, str]]:
    """A text as quoted strings and what stands between them."""
    here = ""
    for kind, token in tokens(text):
        if kind == "string":
            yield from (("text", here), (kind, token))
            here = ""
        else:
            here += token
    yield "text", here


def _filled(text: str, indent: int) -> list[str]:
    """A text broken after whatever fits, at spaces and behind opening brackets and commas: the last resort."""
    lines = [""]
    for kind, token in tokens(text):
        if lines[-1].endswith(("(", "[", "{", " ")) and len(lines[-1] + token) + 1 + indent > WIDTH:
            lines.append("")
        lines[-1] += "" if kind == "space" and not lines[-1] else token
    return [line.rstrip() for line in lines]
