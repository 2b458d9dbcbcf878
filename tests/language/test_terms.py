"""What a wiring adds and takes away again."""

import pytest

from archspec.language.terms import cancelled
from archspec.language.wiring import parse_wiring

GONE = "leaves nothing of what it is made of"
SOME = "leaves nothing of a term that is added and taken away; remove it"


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["x = x - x"], [(f"line 1: x - x {GONE}", False)]),
        (["h = x", "x = ffn(h - x)"], [(f"line 2: h - x {GONE}", False)]),
        (["x = ffn(-x + x)"], [(f"line 1: -x + x {GONE}", False)]),
        (["x = x + 0.1 * f(x) + 0.2 * f(x) - 0.3 * f(x)"],
         [(f"line 1: x + 0.1 * f(x) + 0.2 * f(x) - 0.3 * f(x) {SOME}", True)]),
        (["h = f(x) - x", "x = h + x"], [(f"line 2: h + x {SOME}", True)]),
        (["x = f(x) + f(x) * x - x * f(x)"], [(f"line 1: f(x) + f(x) * x - x * f(x) {SOME}", True)]),
        (["x = f(x + 1 - 1)"], [(f"line 1: x + 1 - 1 {SOME}", True)]),
        (["x = x + dropout(x) - dropout(x)"], []),
        (["x = x + f(norm1(x)) - g(norm1(x))"], []),
        (["x = x - 0.5 * x"], []),
        (["a = x", "b = x + f(a)", "x = b - 2 * a"], []),
    ],
)  # fmt: skip
def test_terms(lines: list[str], told: list[tuple[str, bool]]) -> None:
    assert [*cancelled(parse_wiring(lines))] == told


def test_long_wirings_take_no_time() -> None:
    """Products are not multiplied out: the sums stay as long as the lines."""
    lines = ["a = x + f(x)", *["a = a * a + a + x"] * 190, "x = a"]
    assert not [*cancelled(parse_wiring(lines))]
