"""The example finds its motif, in a third of the steps that it usually takes."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

EXAMPLES = str(Path(__file__).parents[2] / "examples")


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(EXAMPLES)
    import dna_motif

    yield dna_motif
    del sys.modules["dna_motif"]


def test_the_motif_is_found_and_nothing_else(example: Any, capsys: pytest.CaptureFixture[str]) -> None:
    inside, outside = example.main(["--steps", "100"])
    assert inside > 0.6
    assert 0.18 < outside < 0.32  # random letters: nobody can name more than one in four
    assert f"{inside:.0%} in the motif, {outside:.0%} elsewhere" in capsys.readouterr().out


def test_only_real_letters_are_hidden(example: Any) -> None:
    vocabulary = example.archspec.vocabulary(example.archspec.loads(example.SPEC))
    generator = torch.Generator().manual_seed(0)
    tokens, mask, ids, hidden, motif = example.batch(vocabulary, 16, example.random.Random(0), generator)
    assert not (hidden & ~mask).any()
    assert torch.equal(tokens == vocabulary.special("mask"), hidden)
    assert torch.equal(tokens[~hidden], ids[~hidden])
    assert [vocabulary.decode(row[kept]) for row, kept in zip(ids, motif, strict=True)] == [example.MOTIF] * 16
