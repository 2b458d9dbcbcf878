"""What is done for a model of many different layers grows like their number."""

import cProfile
import pstats
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import archspec


def layers(n: int, first: int) -> dict[str, Any]:
    """A model of so many layers, none like another."""
    blocks = [
        {"mixer": {"kind": "attention", "n_heads": 2}, "ffn": {"kind": "mlp", "d_ff": first + i}} for i in range(n)
    ]
    return {"d_model": 8, "vocab_size": 5, "max_seq_len": 9, "blocks": blocks, "head": "lm"}


WORK: dict[str, tuple[Callable[[archspec.Spec], object], int]] = {
    "show": (archspec.show, 100),
    "count": (archspec.count, 100),
    "diagram": (archspec.diagram, 100),
    "generate": (archspec.generate, 8),
    "plain": (partial(archspec.generate, standalone="plain"), 8),
}


@pytest.mark.parametrize("what", WORK)
def test_twice_the_layers_take_about_twice_the_calls(what: str) -> None:
    """Calls are counted, not time; differences leave out what is done once. Quadratic work would give 4."""
    work, n = WORK[what]
    work(archspec.load(layers(n, 1)))  # what is remembered of the library is there
    calls = [counted(work, archspec.load(layers(size, 1000 * i))) for i, size in enumerate((n, 2 * n, 4 * n), 1)]
    assert (calls[2] - calls[1]) / (calls[1] - calls[0]) < 2.6


def test_reading_takes_about_twice_the_calls() -> None:
    documents = [layers(n, 1) for n in (100, 100, 200, 400)]
    calls = [counted(archspec.load, document) for document in documents][1:]
    assert (calls[2] - calls[1]) / (calls[1] - calls[0]) < 2.6


def counted(work: Callable[[Any], object], argument: Any) -> int:
    """The calls of functions, those of C included."""
    profile = cProfile.Profile()
    profile.runcall(work, argument)
    return pstats.Stats(profile).total_calls  # type: ignore[attr-defined, no-any-return]
