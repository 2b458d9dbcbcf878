"""The line of a problem and the caret under its place."""

import pytest

from archspec.cli.excerpt import WIDEST, excerpt
from archspec.errors import Mark

GUTTER = len("    1 | ")


def shown(line: str, column: int) -> tuple[str, int]:
    """The line as it is shown, and in which of its columns (from 0) the caret stands."""
    text, caret = excerpt(Mark("x.yaml", 1, column), line)
    assert caret.strip("| ") == "^"
    return text[GUTTER:], caret.index("^") - GUTTER


@pytest.mark.parametrize(
    ("line", "column", "text", "caret"),
    [
        ("d_model: x", 10, "d_model: x", 9),
        ("d_model: x", 11, "d_model: x", 10),  # behind the end, where something is missing
        ("\ta: b", 2, "    a: b", 4),
        ("a:\tb", 4, "a:    b", 6),
        ("名: 模型 x", 4, "名: 模型 x", 4),  # each takes two columns
        ("e\u0301: x", 5, "e\u0301: x", 3),  # an accent takes none
        ("a\x1b[31m: x", 8, "a\\x1b[31m: x", 10),  # no terminal is steered
        ("\ufeffa: x", 4, "a: x", 3),
    ],
    ids=["plain", "end", "tab", "tab-inside", "wide", "accent", "escape", "byte-order-mark"],
)
def test_the_caret_stands_under_the_place(line: str, column: int, text: str, caret: int) -> None:
    assert shown(line, column) == (text, caret)


@pytest.mark.parametrize("at", [0, 30, 5_000, 9_970, 9_999])
def test_a_long_line_is_cut_around_the_place(at: int) -> None:
    line = "".join("0123456789"[i % 10] if i != at else "X" for i in range(10_000))
    text, caret = shown(line, at + 1)
    assert len(text) <= WIDEST
    assert text[caret] == "X"
    assert text.startswith("...") == (at > WIDEST) or at in range(51, WIDEST)


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r", "\x85", "\u2028"])
def test_lines_end_where_yaml_ends_them(ending: str) -> None:
    assert excerpt(Mark("x", 2, 1), f"one{ending}two{ending}")[0] == "    2 | two"


@pytest.mark.parametrize("mark", [Mark("x"), Mark("x", 3, 1), Mark("x", 1, 5), Mark("x", 2, 1)])
def test_a_place_that_is_not_there_has_no_line(mark: Mark) -> None:
    assert excerpt(mark, "one\n") == []
