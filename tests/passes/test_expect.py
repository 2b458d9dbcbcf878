"""The author's contract against the count."""

import pytest

from archspec.errors import Mark, Problem, SpecError
from archspec.language.expect import KEYS
from archspec.language.load import load, loads
from archspec.language.model import Spec
from archspec.language.show import show
from archspec.passes.count import count
from archspec.passes.expect import check


def spec_that_expects(**expect: int | str) -> Spec:
    return load(
        "specs/bert_tiny.yaml", set=["expect={__replace__: true}", *(f"expect.{k}={v}" for k, v in expect.items())]
    )


@pytest.mark.parametrize(
    "promise", [1253, "1_253", "== 1253", '"<= 1.3K"', '"~1.25K"', '">1252"', "1.3K +- 4%", "1300 +- 47", "1253 +- 0"]
)
def test_a_kept_promise_is_silent(promise: int | str) -> None:
    spec = spec_that_expects(params=promise)
    assert check(spec, count(spec)) == []
    assert loads(show(spec)).expect == spec.expect


@pytest.mark.parametrize(
    ("promise", "words"),
    [
        (1254, "1,254 was promised"),
        ('"< 1K"', "< 1K was promised"),
        ('"~1.26K"', "~1.26K was promised (1,255 to 1,265; `+- 5%` behind it allows more)"),
        ('"~1B"', "~1B was promised (500,000,000 to 1,500,000,000; `+- 5%` behind it allows more)"),
        ("1300 +- 3%", "1300 +- 3% was promised (1,261 to 1,339)"),
        ("~1.3K +- 46", "~1.3K +- 46 was promised (1,254 to 1,346)"),
    ],
)
def test_a_broken_promise_says_both_numbers(promise: int | str, words: str) -> None:
    spec = spec_that_expects(params=promise)
    problem = Problem(Mark(f"--set expect.params={promise}"), "expect.params", f"{words}, 1,253 counted")
    assert check(spec, count(spec)) == [problem]


def test_every_key_is_counted() -> None:
    spec = spec_that_expects(**dict.fromkeys(KEYS, 999_999))
    assert [p.path for p in check(spec, count(spec))] == [f"expect.{key}" for key in KEYS]


def gpt2_that_expects(key: str, promise: str) -> Spec:
    return load("specs/gpt2.yaml", set=["expect={__replace__: true}", f"expect.{key}={promise}"])


@pytest.mark.parametrize(
    ("key", "promise"),
    [
        ("train_flops_per_token", "{seq: 512, at most: 0.81G}"),
        ("train_flops_per_token", "{seq: 512, attention: eager, about: 798M}"),
        ("decode_flops_per_token", "{context: 256, is: 256_501_248}"),
        ("prefill_flops_per_token", '"~285M"'),
        ("prefill_flops_per_token", "{batch: 8, seq: 1, above: 1}"),
        ("peak_bytes", "{batch: 8, seq: 1024, dtype: float32, at most: 80 GB}"),
        ("saved_bytes", "{batch: 1, seq: 8, at most: 10 MiB}"),
    ],
)
def test_a_promise_of_costs_is_kept(key: str, promise: str) -> None:
    spec = gpt2_that_expects(key, promise)
    assert check(spec, count(spec)) == []
    assert loads(show(spec)).expect == spec.expect


@pytest.mark.parametrize(
    ("promise", "words"),
    [
        ("{seq: 512, at most: 0.8G}", "at most 0.8G with seq 512 was promised, 807,252,480 computed"),
        ("{seq: 2048, at most: 0.8G}", "seq = 2,048 is beyond max_seq_len = 1,024 of gpt2"),
        ("{seq: 8, dtype: bf17, is: 4}", "dtype = 'bf17' is unknown"),
        ("5", "5 was promised, 873,312,768 computed"),
    ],
)
def test_a_promise_of_costs_is_broken(promise: str, words: str) -> None:
    spec = gpt2_that_expects("train_flops_per_token", promise)
    (problem,) = check(spec, count(spec))
    assert problem.message.startswith(words)


@pytest.mark.parametrize(
    "promise",
    ["{seq: 512}", "{at most: 3, at least: 1}", "{is: '<= 4'}", "{sq: 4, is: 3}", "{seq: [1], is: 3}", "{is: null}"],
)
def test_a_promise_of_costs_that_cannot_be_read(promise: str) -> None:
    with pytest.raises(SpecError, match=r"expect\.train_flops_per_token"):
        gpt2_that_expects("train_flops_per_token", promise)
