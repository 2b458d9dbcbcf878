"""Patterns of layers: groups, repeats, refusals."""

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archspec.errors import Fault
from archspec.language.pattern import parse_pattern

KNOWN = ("ssm", "attn", "moe", "x")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("ssm", "ssm"),
        ("(ssm attn)x2 moe", "ssm attn ssm attn moe"),
        ("attn x 3", "attn attn attn"),
        ("attn*3", "attn attn attn"),
        ("attn * 3 ssm", "attn attn attn ssm"),
        ("(ssm (attn moe) x2)*2", "ssm attn moe attn moe ssm attn moe attn moe"),
        ("ssm, attn,moe\n", "ssm attn moe"),
        ("ssm attn x2", "ssm attn attn"),
        ("(((ssm)x1)x1)x1", "ssm"),
        ("x x 2 ssm", "x x ssm"),
        ("(attn)x03", "attn attn attn"),
    ],
)
def test_expansion(text: str, names: str) -> None:
    assert parse_pattern(text, KNOWN) == names.split()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "pattern '': the pattern is empty"),
        ("()", "pattern '()': a group holds nothing"),
        ("(ssm", "pattern '(ssm': a '(' is not closed"),
        ("ssm)", "pattern 'ssm)': a ')' closes nothing"),
        ("atn", "no block 'atn'; did you mean 'attn'?"),
        ("attnx3", "no block 'attnx3'; did you mean 'attn'?"),
        ("x3", "pattern 'x3': x3 repeats nothing; it stands behind a name or a group, once"),
        ("(x3)", "pattern '(x3)': x3 repeats nothing; it stands behind a name or a group, once"),
        ("ssm x2 x3", "pattern 'ssm x2 x3': x3 repeats nothing; it stands behind a name or a group, once"),
        ("3 attn", "pattern '3 attn': the number 3 repeats nothing; a repeat stands behind, as in attn x4"),
        ("attn x0", "pattern 'attn x0': a repeat must be at least 1, found 0"),
        ("attn*", "pattern 'attn*': a '*' needs a number behind it, as in attn*4"),
        ("attn x4097", "pattern 'attn x4097': more than 4096 layers"),
        ("(ssm attn)x2049", "pattern '(ssm attn)x2049': more than 4096 layers"),
        ("attn x" + "9" * 20, "pattern 'attn x99999999999999999999': more than 4096 layers"),
        ("ssm|attn", "'|' at character 4 has no meaning in a pattern; separate names by spaces"),
        ("attn x-1", "'-' at character 7 has no meaning in a pattern; write for example (ssm ssm attn)x3 attn"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(Fault) as caught:
        parse_pattern(text, KNOWN)
    assert str(caught.value) == message


def test_a_block_may_not_look_like_a_repeat() -> None:
    with pytest.raises(Fault, match="a block may not be called 'x3'"):
        parse_pattern("attn x3", ["attn", "x3"])


def test_exactly_4096_layers_are_allowed() -> None:
    assert len(parse_pattern("(ssm attn)x2048", KNOWN)) == 4096


@pytest.mark.parametrize(
    "text",
    [
        "(" * 200_000,
        "(" * 30 + "attn" + ")x2" * 30,
        "(" * 100_000 + "(attn x4096)" + ")x1" * 100_000 + "attn",
        "attn " * 200_000,
        "attn x" + "9" * 900_000,
        "a" * 900_000,
    ],
)
def test_hostile_patterns_end_soon(text: str) -> None:
    start = time.process_time()
    with pytest.raises(Fault) as caught:
        parse_pattern(text, KNOWN)
    assert len(str(caught.value)) < 300
    assert time.process_time() - start < 1


Tree = tuple[str, list[str]]


def grouped(parts: list[Tree], times: int, sign: str) -> Tree:
    return f"({' '.join(p[0] for p in parts)}){sign}{times}", [n for p in parts for n in p[1]] * times


NAMES = st.sampled_from(["ssm", "attn", "moe"]).map(lambda name: (name, [name]))
TREES = st.recursive(
    NAMES,
    lambda inner: st.builds(
        grouped, st.lists(inner, min_size=1, max_size=3), st.integers(1, 3), st.sampled_from(["x", "*", " x ", " * "])
    ),
    max_leaves=6,
)


@given(TREES)
def test_groups_mean_what_they_say(tree: Tree) -> None:
    text, names = tree
    if len(names) <= 4096:
        assert parse_pattern(text, KNOWN) == names


@given(st.text(alphabet="ax (),*3|-", max_size=30))
def test_any_text_is_a_list_or_a_fault(text: str) -> None:
    with contextlib.suppress(Fault):
        assert 1 <= len(parse_pattern(text, ["a", "x", "ax"])) <= 4096
