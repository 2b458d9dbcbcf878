"""Folding layers into repeats: written out they are the layers again, and no shorter way of writing is missed."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archspec.language.fold import LONGEST_PERIOD, fold, periods
from archspec.language.load import load
from archspec.language.model import Layer

KEYS = st.lists(st.integers(0, 2), max_size=24)
PERIODIC = st.lists(st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=4), st.integers(1, 5)), max_size=4)


def block(d_ff: int) -> dict:
    return {"ffn": {"kind": "mlp", "d_ff": d_ff}}


def layers_of(keys: list[int], groups: list[tuple[int, int] | None] | None = None) -> tuple[Layer, ...]:
    """Layers that are equal where the keys are."""
    define = {f"b{key}": block(key + 1) for key in {*keys}}
    spec = load({"d_model": 4, "vocab_size": 3, "define": define, "blocks": [f"b{key}" for key in keys]})
    pairs = zip(spec.main.layers, groups or [None] * len(keys), strict=True)
    return tuple(Layer(layer.block, layer.label, group) for layer, group in pairs)


def written(found: list[tuple[int, int, int]]) -> int:
    """How many keys have to be written."""
    return sum(period for _, period, _ in found)


def fewest(keys: tuple[int, ...]) -> int:
    """The fewest keys, by trying every way."""
    if not keys:
        return 0
    best = len(keys)
    for period, repeat in product(range(1, len(keys) + 1), repeat=2):
        n = period * repeat
        if n <= len(keys) and keys[:n] == keys[:period] * repeat:
            best = min(best, period + fewest(keys[n:]))
    return best


@given(KEYS | PERIODIC.map(lambda parts: [key for keys, n in parts for key in keys * n]))
def test_written_out_they_are_the_keys_again(keys: list[int]) -> None:
    out: list[int] = []
    for start, period, repeat in periods(keys):
        assert start == len(out)
        assert period >= 1
        assert repeat >= 1
        out += keys[start : start + period] * repeat
    assert out == keys


@given(st.lists(st.integers(0, 1), max_size=9))
def test_nothing_shorter_exists(keys: list[int]) -> None:
    assert written(periods(keys)) == fewest(tuple(keys))


@pytest.mark.parametrize(
    ("keys", "segments"),
    [
        ([], []),
        ([0], [(0, 1, 1)]),
        ([0] * 32, [(0, 1, 32)]),
        ([0, 1] * 16, [(0, 2, 16)]),
        ([0, 0, 0, 1] * 8, [(0, 4, 8)]),
        ([0] + [1] * 26, [(0, 1, 1), (1, 1, 26)]),
        ([0, 1, 2], [(0, 1, 1), (1, 1, 1), (2, 1, 1)]),
        ([0, 1, 0, 1, 0], [(0, 2, 2), (4, 1, 1)]),
        ([0, 0, 1, 0, 0, 1], [(0, 3, 2)]),
    ],
)
def test_known_cases(keys: list[int], segments: list[tuple[int, int, int]]) -> None:
    found = periods(keys)
    assert written(found) == written(segments)
    assert len(found) == len(segments)
    assert sorted(r for _, _, r in found) == sorted(r for _, _, r in segments)


def test_a_period_has_a_limit() -> None:
    keys = list(range(LONGEST_PERIOD + 1)) * 2
    assert written(periods(keys)) == len(keys)


@given(KEYS.filter(bool))
def test_segments_written_out_are_the_layers(keys: list[int]) -> None:
    layers = layers_of(keys)
    segments = fold(layers)
    assert tuple(la for s in segments for _ in range(s.repeat) for la in s.layers) == layers
    assert [s.start for s in segments] == [sum(s.n_layers for s in segments[:i]) for i in range(len(segments))]
    assert not any(s.shared for s in segments)


def test_a_group_that_shares_weights_stays_apart() -> None:
    layers = layers_of([0, 0, 0, 0, 0, 0], [None, None, (1, 1), (1, 1), (2, 1), (2, 1)])
    assert [(s.start, len(s.layers), s.repeat, s.shared) for s in fold(layers)] == [
        (0, 1, 2, False),
        (2, 1, 2, True),
        (4, 1, 2, True),
    ]


def test_a_group_with_a_period_shares_each_place_of_it() -> None:
    layers = layers_of([0, 1, 0, 1], [(1, 2)] * 4)
    assert [(len(s.layers), s.repeat, s.shared) for s in fold(layers)] == [(2, 2, True)]


def test_equal_layers_of_a_shared_period_have_weights_of_their_own() -> None:
    layers = layers_of([0, 0, 0, 0], [(1, 2)] * 4)
    assert [(len(s.layers), s.repeat, s.shared) for s in fold(layers)] == [(2, 2, True)]
