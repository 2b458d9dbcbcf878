"""Numbers in short, and texts measured and broken."""

import pytest

from archspec.diagram.text import Line, extent, measure, shorten, wrap
from archspec.diagram.words import amount, byte_size


def test_numbers_in_short() -> None:
    assert [amount(n) for n in (864, 1253, 9999, 10_000, 65_536, 999_999, 4_456_448, 2_818_572_288)] == [
        "864",
        "1,253",
        "9,999",
        "10.0 K",
        "65.5 K",
        "1.00 M",
        "4.46 M",
        "2.82 B",
    ]
    assert amount(51_570_323_328, 4) == "51.57 B"
    assert [byte_size(n) for n in (12, 4096, 589_824, 2**32, 1_100_000)] == [
        "12 B",
        "4 KiB",
        "576 KiB",
        "4 GiB",
        "1.05 MiB",
    ]


def test_texts_are_measured_and_broken() -> None:
    assert measure("aa", 10) == pytest.approx(11.12)
    assert measure("aa", 10, True) == pytest.approx(11.12)
    assert wrap("one two three", 10, 40) == ["one two", "three"]
    assert shorten("x" * 100, 10, 50).endswith("\u2026")
    assert measure(shorten("x" * 100, 10, 50), 10) <= 50
    assert extent((Line("a", 10),))[1] == pytest.approx(15)
