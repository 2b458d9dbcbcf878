"""Pictures are the same in every version of Python, whose `sum` of floats is compensated from 3.12 on."""

import builtins
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from diagram_specs import CUSTOM

from archspec.diagram.render import diagram
from archspec.diagram.text import measure
from archspec.language.load import load, loads


def plain_sum(values: Iterable[Any], start: Any = 0) -> Any:
    """As before 3.12: from left to right."""
    for value in values:
        start = start + value
    return start


def exact_sum(values: Iterable[Any], start: Any = 0) -> Any:
    """As from 3.12 on, or better."""
    found = [start, *values]
    return math.fsum(found) if any(isinstance(value, float) for value in found) else plain_sum(found)


def drawn(text: str | Path, sums: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    measure.cache_clear()
    with monkeypatch.context() as patched:
        spec = load(text) if isinstance(text, Path) else loads(text)
        patched.setattr(builtins, "sum", sums)
        return diagram(spec)


SPECS = [*sorted(Path("specs").glob("*.yaml")), *CUSTOM.values()]


@pytest.mark.parametrize("text", SPECS, ids=[p.stem for p in SPECS if isinstance(p, Path)] + [*CUSTOM])
def test_no_picture_depends_on_how_floats_are_summed(text: str | Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(text, plain_sum, monkeypatch) == drawn(text, exact_sum, monkeypatch)
