"""The wiring language: reading, writing, checks, the built-in texts."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archspec.errors import Fault
from archspec.language.wiring import (
    Assign,
    Binary,
    Call,
    Expr,
    Name,
    Negate,
    Number,
    Wiring,
    parse_wiring,
)
from archspec.language.wiring_checks import problems
from archspec.language.wirings import BUILTINS, builtin

MODULES = ("norm1", "mixer", "ffn")

EXPRS = st.recursive(
    st.builds(Name, st.sampled_from(["x", "h"]))
    | st.builds(Number, st.integers(0, 9) | st.floats(0, 1e20, allow_nan=False)),
    lambda inner: (
        st.builds(Call, st.sampled_from(MODULES), inner)
        | st.builds(Negate, inner)
        | st.builds(Binary, st.sampled_from("+-*"), inner, inner)
    ),
    max_leaves=12,
)


@given(EXPRS)
def test_text_round_trips(expr: Expr) -> None:
    wiring = Wiring((Assign("x", expr),))
    if len(wiring.lines()[0]) <= 400:
        assert parse_wiring(wiring.lines()) == wiring


@pytest.mark.parametrize(
    ("line", "canonical"),
    [
        ("x=x+mixer( (h) )", "x = x + mixer(h)"),
        ("x = (x + h) + (h * x)", "x = x + h + h * x"),
        ("x = x + (h + x)", "x = x + (h + x)"),
        ("x = (x + h) * -x", "x = (x + h) * -x"),
        ("x = -(x * h)", "x = -(x * h)"),
        ("x = (-x) * h", "x = -x * h"),
        ("x = x - (h - x)", "x = x - (h - x)"),
        ("x = 0.50 * x", "x = 0.5 * x"),
    ],
)
def test_minimal_parentheses(line: str, canonical: str) -> None:
    assert parse_wiring([line]).lines() == (canonical,)


def test_calls_are_in_order_of_evaluation() -> None:
    wiring = parse_wiring(["h = norm1(x)", "x = ffn(mixer(h)) + norm1(h) * ffn(x)"])
    assert wiring.calls() == ("norm1", "mixer", "ffn", "norm1", "ffn")
    assert hash(wiring) == hash(parse_wiring(wiring.lines()))


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("x = x +", "`x = x +` cannot be read: only names, numbers, + - *"),
        ("x += 1", "`x += 1` is not an assignment; write name = expression"),
        ("x = a = b", "is not an assignment"),
        ("x = a; y = b", "is not an assignment"),
        ("x = a\ny = b", "only printable ASCII characters are allowed, one assignment a line"),
        ("import os", "is not an assignment"),
        ("x: int = 3", "is not an assignment"),
        ("", "`` is not an assignment"),
        ("x = f(1, 2)", "f takes exactly one value, found 2: `x = f(1, 2)`"),
        ("x = f()", "f takes exactly one value, found 0"),
        ("x = f(*x)", "f takes exactly one value"),
        ("x = f(x=x)", "f takes exactly one value"),
        ("x = x / 2", "`x / 2` is not allowed: only numbers and sizes are divided, so write 1/2 * x"),
        ("x = (x + y) / (3 * a)", "so write 1/(3 * a) * (x + y)"),
        ("x = 2 / x", "`2 / x` is not allowed: only names, numbers"),
        ("x = x ** 2", "`x ** 2` is not allowed: only names, numbers"),
        ("x = max(x, 2)", "max takes exactly one value, found 2"),
        ("x = sqrt(2, 3) * x", "`sqrt(2, 3)`: sqrt takes one value, found 2"),
        ("x = 2^3 / 4 * x", "`2^3 / 4 * x` is not allowed"),
        ("x = a.b(x)", "`a.b(x)` is not allowed"),
        ("x = __import__('os')", "`'os'` is not allowed"),
        ("x = True", "`True` is not allowed"),
        ("x = 1e999", "a number is too large; stay below 1e+30"),
        ("x = " + "9" * 300, "a number is too large"),
        ("x = +x", "`+x` is not allowed"),
        ("x = (y := x)", "`y := x` is not allowed"),
        ("x = " + "-" * 300 + "x", "nested more than 50 levels deep; use more lines"),
        ("x = " + "~" * 380 + "x", "is not allowed"),
        ("x = x" + ".a" * 190, "is not allowed"),
        ("x = " + "(" * 190 + "x", "cannot be read"),
        ("x = " + "x + " * 100 + "x", "at most 400 characters are allowed, found 405; use more lines"),
        ("self = x", "'self' cannot be assigned; use lower-case names other than "),
        ("X = x", "'X' cannot be assigned"),
        ("h\u00e9 = x", "only printable ASCII"),
    ],
)
def test_refusals_name_the_line(line: str, part: str) -> None:
    with pytest.raises(Fault) as caught:
        parse_wiring(["x = x", line])
    assert str(caught.value).startswith("line 2: ")
    assert part in str(caught.value)


def test_number_of_lines_is_bounded() -> None:
    for lines in ([], ["x = x"] * 201):
        with pytest.raises(Fault, match="the wiring has"):
            parse_wiring(lines)


@given(st.text(alphabet="xh=()+-*1.,f\\#'[ \n", max_size=40))
def test_any_text_is_a_wiring_or_a_fault(line: str) -> None:
    try:
        wiring = parse_wiring([line])
    except Fault:
        return
    assert parse_wiring(wiring.lines()) == wiring
    problems(wiring, MODULES)


@pytest.mark.parametrize(
    ("lines", "messages"),
    [
        (["h = norm1(x)", "x = x + mixer(h) + 0.5 * ffn(h)"], []),
        (["h = mixer(norm1(x))", "x = x + h * ffn(x)"], []),
        (
            ["h = norm1(mixer(x))", "x = ffn(h) + g"],
            ["line 2 reads 'g', which no earlier line defines; known: h, x"],
        ),
        (
            ["x = norm1(mixr(mixer(ffn(x))))"],
            ["line 1 calls 'mixr', which is no module of the block; did you mean 'mixer'?"],
        ),
        (["x = norm1(mixer(x))"], ["the module 'ffn' is never called"]),
        (["x = norm1(mixer(ffn(x))) + mixer"], ["line 1 names the module 'mixer' without a call; write mixer(x)"]),
        (["h = norm1(mixer(x))", "x = ffn(x)"], ["line 1 assigns 'h', which no later line reads"]),
        (
            ["x = norm1(x)", "h = mixer(x)", "h = ffn(x)", "x = x + h"],
            ["line 2 assigns 'h', which line 3 overwrites before anything reads it"],
        ),
        (
            ["h = 3", "x = norm1(mixer(ffn(h)))"],
            ["line 1 gives 'h' a number; a line needs a tensor, such as x or mixer(x)"],
        ),
        (["x = x + norm1(mixer(ffn(2)))"], ["line 1 gives 'ffn' a number; a module needs a tensor"]),
        (
            ["x = norm1(mixer(x))", "h = ffn(x)"],
            ["the last line assigns 'h', but the output of a block is x; write x = ... there"],
        ),
        (
            ["mixer = mixer(x)", "x = norm1(ffn(mixer))"],
            ["line 1 assigns 'mixer', which is the name of a module; choose another name"],
        ),
        (
            ["x = norm1(mixer(x)) + 0 * ffn(x)"],
            ["line 1: the factor 0 leaves nothing of ffn(x); remove the product"],
        ),
        (
            ["x = norm1(mixer(x)) + ffn(x) * -0.0"],
            ["line 1: the factor 0 leaves nothing of ffn(x); remove the product"],
        ),
    ],
)  # fmt: skip
def test_checks(lines: list[str], messages: list[str]) -> None:
    assert problems(parse_wiring(lines), MODULES) == messages


def test_checks_are_bounded() -> None:
    line = "x = " + " + ".join(f"a{i}(x)" for i in range(40))
    start = time.process_time()
    assert len(problems(parse_wiring([line] * 200), MODULES)) == 50
    assert time.process_time() - start < 4  # without a bound it would be minutes


@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        ("pre", ["x = x + mixer(norm1(x))", "x = x + ffn(norm2(x))"]),
        ("post", ["x = norm1(x + mixer(x))", "x = norm2(x + ffn(x))"]),
        ("sandwich", ["x = x + norm2(mixer(norm1(x)))", "x = x + norm4(ffn(norm3(x)))"]),
        ("inner_post", ["x = x + norm1(mixer(x))", "x = x + norm2(ffn(x))"]),
        ("parallel", ["h = norm1(x)", "x = x + mixer(h) + ffn(h)"]),
        ("parallel_two_norms", ["x = x + mixer(norm1(x)) + ffn(norm2(x))"]),
        ("deepnorm", ["x = norm1(2.5 * x + mixer(x))", "x = norm2(2.5 * x + ffn(x))"]),
        ("layer_scale", ["x = x + scale1(mixer(norm1(x)))", "x = x + scale2(ffn(norm2(x)))"]),
        ("none", ["x = x + mixer(x)", "x = x + ffn(x)"]),
    ],
)
def test_builtin_texts(kind: str, lines: list[str]) -> None:
    assert list(builtin(kind, ["mixer", "ffn"], alpha=2.5 if kind == "deepnorm" else None)) == lines


@pytest.mark.parametrize("kind", BUILTINS)
@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("sublayers", [["mixer", "cross", "ffn"], ["mixer", "ffn"], ["cross"]])
def test_builtins_are_canonical_and_pass_the_checks(kind: str, dropout: bool, sublayers: list[str]) -> None:
    if kind.startswith("parallel") and len(sublayers) < 2:
        return
    lines = builtin(kind, sublayers, dropout, 0.1 if kind == "deepnorm" else None)
    wiring = parse_wiring(lines)
    assert wiring.lines() == lines
    assert problems(wiring, set(wiring.calls())) == []
    assert wiring.calls().count("dropout") == (len(sublayers) if dropout else 0)
    assert [call for call in wiring.calls() if call in sublayers] == sublayers
    norms = [call for call in wiring.calls() if call.startswith("norm")]
    assert norms == [f"norm{i}" for i in range(1, len(norms) + 1)]


def test_dropout_is_outermost_on_the_branch() -> None:
    assert builtin("sandwich", ["ffn"], True) == ("x = x + dropout(norm2(ffn(norm1(x))))",)
    assert builtin("post", ["ffn"], True) == ("x = norm1(x + dropout(ffn(x)))",)


def test_a_parallel_wiring_needs_two_sub_layers() -> None:
    with pytest.raises(Fault, match="parallel needs at least two sub-layers, found ffn alone; use pre"):
        builtin("parallel", ["ffn"])
