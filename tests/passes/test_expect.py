"""The author's contract against the count."""

import pytest

from archspec.errors import Mark, Problem
from archspec.language.expect import KEYS
from archspec.language.load import load
from archspec.language.model import Spec
from archspec.passes.count import count
from archspec.passes.expect import check


def spec_that_expects(**expect: int | str) -> Spec:
    return load(
        "specs/bert_tiny.yaml", set=["expect={__replace__: true}", *(f"expect.{k}={v}" for k, v in expect.items())]
    )


@pytest.mark.parametrize("promise", [1253, "1_253", "== 1253", '"<= 1.3K"', '"~1.25K"', '">1252"'])
def test_a_kept_promise_is_silent(promise: int | str) -> None:
    spec = spec_that_expects(params=promise)
    assert check(spec, count(spec)) == []


@pytest.mark.parametrize(
    ("promise", "words"),
    [(1254, "1,254"), ('"< 1K"', "< 1K"), ('"~1.26K"', "~1.26K"), ('"~1B"', "~1B")],
)
def test_a_broken_promise_says_both_numbers(promise: int | str, words: str) -> None:
    spec = spec_that_expects(params=promise)
    problem = Problem(Mark(f"--set expect.params={promise}"), "expect.params", f"{words} was promised, 1,253 counted")
    assert check(spec, count(spec)) == [problem]


def test_every_key_is_counted() -> None:
    spec = spec_that_expects(**dict.fromkeys(KEYS, 999_999))
    assert [p.path for p in check(spec, count(spec))] == [f"expect.{key}" for key in KEYS]
