"""How tables and lines fit a width."""

import pytest

from archspec.report.text import in_columns
from archspec.report.width import folded, reflowed, within, wrapped


@pytest.mark.parametrize(
    ("cell", "columns", "lines"),
    [
        ("A_log 8192 x 16, D 8192", 16, ["A_log 8192 x 16,", "D 8192"]),
        ("A_log 8192 x 16, D 8192", 12, ["A_log 8192 x", "16, D 8192"]),
        ("blocks.0-1.mixer.out_proj", 20, ["blocks.0-1.mixer.", "out_proj"]),
        ("0123456789", 4, ["0123", "4567", "89"]),
        ("2 B T (a + b) + 4 B", 14, ["2 B T (a + b)", "+ 4 B"]),
        ("short", 5, ["short"]),
        ("", 5, [""]),
    ],
)
def test_a_cell_is_broken_where_it_reads_best(cell: str, columns: int, lines: list[str]) -> None:
    assert wrapped(cell, columns) == lines


def test_a_line_goes_on_below_the_cell_that_was_broken() -> None:
    line = "  training  O(T d)  2 B T d_model + 4 B T d_ff + 6 B"
    assert folded(line, 46).splitlines() == [
        "  training  O(T d)  2 B T d_model + 4 B T d_ff",
        "                    + 6 B",
    ]
    assert folded("one two three", 8) == "one two\n  three"
    assert folded(line, None) == line


def test_paragraphs_are_broken_anew_and_the_rest_is_left() -> None:
    text = "one two\nthree\n\n  a = b\n- four\n- five"
    assert reflowed(text, 80) == "one two three\n\n  a = b\n- four\n- five"
    assert reflowed(text, None) == text


TABLE = [
    ("layer", "forward", "backward", "total"),
    ("blocks.0-11", "1,000,000,000", "2,000,000,000", "3,000,000,000"),
    ("total", "1,000,000,000", "2,000,000,000", "3,000,000,000"),
]


def test_numbers_that_do_not_fit_stand_in_a_second_table() -> None:
    with within(45):
        lines = in_columns(TABLE, ("forward", "backward", "total"))
    assert lines == [
        "layer              forward       backward",
        "-----------------------------------------",
        "blocks.0-11  1,000,000,000  2,000,000,000",
        "-----------------------------------------",
        "total        1,000,000,000  2,000,000,000",
        "",
        "layer                total",
        "--------------------------",
        "blocks.0-11  3,000,000,000",
        "--------------------------",
        "total        3,000,000,000",
    ]
    assert len(in_columns(TABLE, ("forward", "backward", "total"))) == 5


def test_the_width_is_that_of_the_innermost() -> None:
    with within(45), within(None):
        assert len(in_columns(TABLE, ())) == 5
