"""The layout of statements: one line where it fits, valid Python of the same meaning always, and never too wide."""

import ast
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archspec.codegen.folding import folded
from archspec.codegen.layout import WIDTH, laid_out, one_line

LONG = "a_name_that_is_as_long_as_a_name_of_a_spec_can_be_made_to_be"


def test_what_fits_stands_on_one_line() -> None:
    assert laid_out("y = f(\n    a,\n    b,\n)  # (B, T)", 8) == ["y = f(a, b)  # (B, T)"]


@pytest.mark.parametrize(
    ("tall", "flat"),
    [
        ("f(\n    x,\n)", "f(x)"),
        ("y = (\n    x,\n)", "y = (x,)"),
        ("table[\n    x,\n]", "table[x,]"),
        ("y = [\n    x,\n]", "y = [x]"),
        ("f(\n    x for a, b in y\n)", "f(x for a, b in y)"),
        ("f(\n    lambda a, b: a,\n    'x, y for z',\n)", "f(lambda a, b: a, 'x, y for z')"),
        ("y = (\n    a\n    + b\n)", "y = (a + b)"),
    ],
)
def test_trailing_commas_go_unless_they_make_a_tuple(tall: str, flat: str) -> None:
    assert one_line(tall) == flat


def test_a_generator_as_the_only_argument_takes_no_comma() -> None:
    """Two Hyenas of different filter_order have such a call, with longer names."""
    statement = f"self.inner = nn.ModuleList(nn.Linear({LONG}, {LONG}) for _ in range({LONG}))"
    assert laid_out(statement, 8) == [
        "self.inner = nn.ModuleList(",
        "    nn.Linear(",
        f"        {LONG},",
        f"        {LONG},",
        "    )",
        f"    for _ in range({LONG})",
        ")",
    ]


def test_the_outermost_bracket_breaks_first() -> None:
    lines = laid_out(f"y = outer(inner({LONG}), other)", 44)
    assert lines == ["y = outer(", f"    inner({LONG}),", "    other,", ")"]


def test_a_value_without_brackets_breaks_at_its_operators() -> None:
    assert laid_out(f"y = {LONG} + {LONG} * x", 8) == ["y = (", f"    {LONG}", f"    + {LONG} * x", ")"]
    assert laid_out(f"if {LONG} and {LONG}:", 8) == ["if (", f"    {LONG}", f"    and {LONG}", "):"]


def test_a_comment_without_room_stands_above() -> None:
    statement = f"y = f({LONG})"
    assert laid_out(f"{statement}  # ({LONG})", 8) == [f"# ({LONG})", statement]


def test_numbers_fill_their_lines() -> None:
    lines = laid_out(f"f(({', '.join(['1.25'] * 60)}), x)", 8)
    assert len(lines) < 10
    assert max(map(len, lines)) <= WIDTH - 8


def test_docstrings_and_comments_are_folded_between_words() -> None:
    text = f'def f():\n    """{"word " * 40}end."""\n    # {"word " * 40}\n    return 1'
    done = folded(text)
    assert max(map(len, done.splitlines())) <= WIDTH
    assert ast.get_docstring(ast.parse(done).body[0]).split() == ["word"] * 40 + ["end."]  # type: ignore[arg-type, union-attr]
    assert done.count("    # word") == 2


names = st.sampled_from(["x", "self.part", LONG, f"self.{LONG}", "'a, (b] for c'", '"#"', "12", "1e-05"])


def calls(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    several = st.lists(inner, min_size=1, max_size=4)
    return st.one_of(
        st.tuples(st.sampled_from(["f", f"self.{LONG}"]), several).map(lambda t: f"{t[0]}({', '.join(t[1])})"),
        st.tuples(inner, inner).map(lambda t: f"f(*{t[0]}, key={t[1]})"),
        several.map(lambda t: f"({', '.join(t)},)"),
        several.map(lambda t: f"[{', '.join(t)}]"),
        st.tuples(inner, inner).map(lambda t: f"f({t[0]} for a, b in {t[1]} if a)"),
        st.tuples(inner, inner).map(lambda t: f"{{{t[0]}: {t[1]}}}"),
        st.tuples(inner, inner, inner).map(lambda t: f"({t[0]} if {t[1]} else {t[2]})"),
        st.tuples(inner, st.sampled_from(["+", "-", "*", "**", "and", "==", "@"]), inner).map(
            lambda t: f"({' '.join(t)})"
        ),
        inner.map(lambda t: f"f(lambda a, b: {t}, x)"),
        st.tuples(inner, inner).map(lambda t: f"x[{t[0]}, {t[1]}]"),
        inner.map(lambda t: f"({t}).view(1, 2).{LONG}"),
    )


statements = st.tuples(
    st.sampled_from(["y = {}", f"self.{LONG} = {{}}", "return {}", "y += {}", "assert {}", "{}", "a, b = {}"]),
    st.recursive(names, calls, max_leaves=12),
).map(lambda t: t[0].format(t[1]))


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(statement=statements, indent=st.sampled_from([4, 8, 12]))
def test_any_statement_keeps_its_meaning_and_fits(statement: str, indent: int) -> None:
    lines = laid_out(statement + "  # why", indent)
    assert ast.dump(ast.parse("\n".join(lines))) == ast.dump(ast.parse(statement))
    assert max(map(len, lines)) + indent <= WIDTH
    assert laid_out("\n".join(lines), indent) == lines
    inside = textwrap.indent("\n".join(lines), " " * 4)
    assert folded(f"def f():\n{inside}") == f"def f():\n{inside}" or indent < 4


def test_a_deep_expression_fits_too() -> None:
    deep = "y = " + "self.f(x + " * 50 + "x" + ")" * 50
    lines = laid_out(deep, 8)
    assert max(map(len, lines)) + 8 <= WIDTH
    assert ast.dump(ast.parse("\n".join(lines))) == ast.dump(ast.parse(deep))
