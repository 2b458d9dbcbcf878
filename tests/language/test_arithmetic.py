"""Sizes as arithmetic: exact values, bounds, refusals."""

import contextlib
import operator
import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archspec.errors import Fault
from archspec.language.arithmetic import evaluate

SIZES = {"d_model": 3072, "n_layers": 24, "negative": -2, "eps": 1e-6}


def look(name: str) -> int | float:
    if name not in SIZES:
        raise Fault(f"no size {name!r}")
    return SIZES[name]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8/3 * d_model", 8192),
        ("round_up(8/3 * 1000, 256)", 2816),
        ("round_up(512, 256)", 512),
        ("ceil(d_model / 17)", 181),
        ("floor(d_model / 17)", 180),
        ("round(2.5)", 2),
        ("sqrt(16)", 4),
        ("sqrt(4 / 9)", Fraction(2, 3)),
        ("(d_model * 3) ** 0.5", 96),
        ("1/3", Fraction(1, 3)),
        ("0.1 * 30", 3),
        ("max(1, 2.5)", Fraction(5, 2)),
        ("min(d_model, 7, 9)", 7),
        ("-7 % 3", 2),
        ("-8**2", -64),
        ("7 // 2 + 1_000", 1003),
        ("2 ** -1", Fraction(1, 2)),
        ("2 ** 64", 2**64),
        ("+d_model", 3072),
        ("eps", Fraction(1, 10**6)),
        ("  8 ", 8),
    ],
)
def test_exact_values(text: str, value: int | Fraction) -> None:
    found = evaluate(text, look)
    assert found == value
    assert type(found) is type(value)


def test_other_roots_are_floats() -> None:
    assert evaluate("(2 * n_layers) ** 0.25", look) == 48**0.25
    assert evaluate("sqrt(d_model)", look) == 3072**0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2^3", "`2^3` is not arithmetic: write ** for a power, not ^"),
        ("1 / 0", "`1 / 0` divides by zero"),
        ("1 % 0", "`1 % 0` divides by zero"),
        ("1 // (2 - 2)", "`1 // (2 - 2)` divides by zero"),
        ("0 ** -1", "`0 ** -1` divides by zero"),
        ("2 ** 65", "`2 ** 65` has the exponent 65: at most 64 is allowed"),
        ("9 ** 9 ** 9", "`9 ** 9 ** 9` has the exponent 3.8742e+08: at most 64 is allowed"),
        ("10**29 * 10", "`10**29 * 10` is too large: sizes stay below 10**30"),
        ("sqrt(2) * 1e30", "`sqrt(2) * 1e30` is too large: sizes stay below 10**30"),
        ("(1e20 * sqrt(2)) ** 64", "`(1e20 * sqrt(2)) ** 64` is too large: sizes stay below 10**30"),
        ("1e999", "`1e999` holds a number that is not finite"),
        ("sqrt(negative)", "`sqrt(negative)` takes a root of a negative number"),
        ("negative ** 0.3", "`negative ** 0.3` takes a root of a negative number"),
        ("ceil()", "`ceil()`: ceil takes one value, found 0"),
        ("round_up(1)", "`round_up(1)`: round_up takes two values, as in round_up(x, 256), found 1"),
        ("round_up(5, 0)", "`round_up(5, 0)` rounds up to a multiple of 0: it must be positive"),
        ("min()", "`min()`: min takes at least one value, found 0"),
        ("d_modl", "no size 'd_modl'"),
        ("-" * 100 + "1", f"`{'-' * 40}...` is nested too deeply: at most 50 levels"),
        ("1" * 201, f"`{'1' * 40}...` is too long: arithmetic has at most 200 characters, found 201"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(Fault) as caught:
        evaluate(text, look)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')", "a.b", "a[0]", "lambda: 1", "1 if 2 else 3", "(x := 1)", "f'{x}'", "'a'", "True", "None",
        "1j", "1or 2", "0x10", "1 2", "", "5(2)", "[1]", "1 < 2", "not 1", "~1", "a and b", "x @ y", "1 << 3",
        "print(1)", "1; 2", "1#x", "\\\n1", "1\n+1", "012", "ceil(*a)", "min(1, key=2)", "\uff44_model", "(((",
        "\x00", "ceil(1",
    ],
)  # fmt: skip
def test_only_arithmetic_is_read(text: str) -> None:
    with pytest.raises(Fault, match="is not arithmetic: only numbers, names of sizes"):
        evaluate(text, look)


@pytest.mark.parametrize(
    "text", ["((1/3)**64)**64", "(((1e-300**64)**64)**64)**64", "(" * 90 + "1" + ")" * 90, "((((3/7)**64)**-64)**64)"]
)
def test_nothing_takes_long(text: str) -> None:
    start = time.process_time()
    with contextlib.suppress(Fault):
        evaluate(text, look)
    assert time.process_time() - start < 0.1


Pair = tuple[str, Fraction | None]
OPERATORS = {
    "+": operator.add, "-": operator.sub, "*": operator.mul,
    "/": operator.truediv, "//": operator.floordiv, "%": operator.mod,
}  # fmt: skip


def combined(left: Pair, sign: str, right: Pair) -> Pair:
    """The text of both and its value; None once something divides by zero."""
    text = f"({left[0]} {sign} {right[0]})"
    if left[1] is None or right[1] is None or (right[1] == 0 and sign in "//%"):
        return text, None
    return text, Fraction(OPERATORS[sign](left[1], right[1]))


LEAVES = st.sampled_from(["0.5", "1e-3", ".25"]) | st.integers(0, 99).map(str)
PAIRS = st.recursive(
    LEAVES.map(lambda text: (text, Fraction(text))),
    lambda inner: st.builds(combined, inner, st.sampled_from(list(OPERATORS)), inner),
    max_leaves=8,
)


@given(PAIRS)
def test_agrees_with_fractions(pair: Pair) -> None:
    text, expected = pair
    if expected is None:
        with pytest.raises(Fault, match="divides by zero"):
            evaluate(text, look)
    elif len(text) <= 200:
        assert evaluate(text, look) == expected


@given(st.text(alphabet="a1.0e*/%+-(), _x^[]'\\\n#", max_size=30))
def test_any_text_is_a_value_or_a_fault(text: str) -> None:
    try:
        value = evaluate(text, lambda name: 3)
    except Fault:
        return
    assert abs(value) < 10**30
