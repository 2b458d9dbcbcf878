"""The author's contract as a spec says it: comparisons, units, tolerances."""

from fractions import Fraction

import pytest

from archspec.errors import SpecError
from archspec.language.expect import KEYS
from archspec.language.load import loads
from archspec.language.model import Spec
from archspec.passes.count import count
from archspec.passes.expect import check

TOP = "d_model: 64\nvocab_size: 100\nmax_seq_len: 32\n"


def spec(text: str) -> Spec:
    return loads(TOP + text)


def refused(text: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        spec(text)
    return [f"{p.path}: {p.message}" for p in caught.value.problems]


@pytest.mark.parametrize(
    ("promise", "kept"),
    [
        ("2", True),
        ('"2"', True),
        ('"== 2"', True),
        ('"~2"', True),
        ('"<= 2"', True),
        ('">= 2"', True),
        ('"< 3"', True),
        ('"> 1"', True),
        ("3", False),
        ('"< 2"', False),
        ('"> 2"', False),
        ('">= 3"', False),
        ('"<= 1"', False),
        ('"~3"', False),
    ],
)
def test_every_comparison_of_a_promise(promise: str, kept: bool) -> None:
    found = spec(f"blocks: [{{repeat: 2, ffn: {{kind: mlp, d_ff: 8}}}}]\nexpect: {{layers: {promise}}}\n")
    assert (check(found, count(found)) == []) == kept


@pytest.mark.parametrize(
    ("key", "text", "number", "step"),
    [
        ("params", "46.7B", 46_700_000_000, 100_000_000),
        ("params", "~46.7B", 46_700_000_000, 100_000_000),
        ("params", "1_000", 1000, 1),
        ("params", "1.5e3", 1500, 100),
        ("params", "~350M", 350_000_000, 1_000_000),
        ("params", "350M +- 5%", 350_000_000, 35_000_000),
        ("params", "350k +- 5%", 350_000, 35_000),
        ("params", "~350M +- 0.5M", 350_000_000, 1_000_000),
        ("params", "1.25K +/- 3", 1250, 6),
        ("state_bytes", "2 MiB +- 1 KiB", 2 * 2**20, 2048),
        ("params", "2T", 2 * 10**12, 10**12),
        ("kv_bytes_per_token", "128 KiB", 131_072, 1024),
        ("state_bytes", "<= 2MiB", 2 * 2**20, 2**20),
        ("state_bytes", "8 B", 8, 1),
    ],
)
def test_numbers_and_units_of_a_promise(key: str, text: str, number: int, step: Fraction) -> None:
    found = dict(spec(f'blocks: [{{ffn: {{kind: mlp, d_ff: 8}}}}]\nexpect: {{{key}: "{text}"}}\n').expect)[key]
    assert (found.number, found.step) == (number, step)


@pytest.mark.parametrize(
    "text",
    ["12 KiB", "-1", "1.2.3", "1e", "about 3", "<> 3", "3 B B", "< 3 +- 1", "3 +- ", "3 +- -1", "3 +- 1 KiB", "3 5%"],
)
def test_what_no_promise_can_say(text: str) -> None:
    assert refused(f'blocks: [{{ffn: {{kind: mlp, d_ff: 8}}}}]\nexpect: {{layers: "{text}"}}\n')[0].startswith(
        "expect.layers: "
    )


def test_every_key_of_a_promise_can_be_said() -> None:
    wishes = ", ".join(f'{key}: ">= 0"' for key in KEYS)
    found = spec(f"blocks: [{{ffn: {{kind: mlp, d_ff: 8}}}}]\nexpect: {{{wishes}}}\n")
    assert check(found, count(found)) == []
