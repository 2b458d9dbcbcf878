"""Heads by name in the figure: a branch for each, with its name, its size and what comes out."""

from typing import Any

import pytest
from diagram_faults import faults

import archspec
from archspec.diagram.figure import draw
from archspec.diagram.scene import Scene

MIXER = {"kind": "attention", "n_heads": 2}
LOCAL = {**MIXER, "position": "rope"}
LONG = "a_name_that_is_far_too_long_for_the_box_of_a_head"
STACKS = {
    "encoder": {"mask": "bidirectional", "embedding": {"position": "learned"}, "blocks": [{"mixer": MIXER}]},
    "decoder": {"memory": "encoder", "blocks": [{"mixer": LOCAL, "cross": MIXER}]},
}
HEADS: dict[str, dict[str, Any]] = {
    "one": {"next": "lm"},
    "bare": {"states": "none", "next": {"kind": "lm", "tied": True}},
    "states": {"states": "none"},
    "four": {"next": "lm", "second": {"kind": "lm", "ahead": 2}, "states": "none", "n": {"kind": "regression"}},
    "many": {f"{LONG}_{i}": {"kind": "lm", "ahead": i} for i in range(1, 10)},
}


def drawn(heads: dict[str, Any], **body: Any) -> Scene:
    sizes = {"name": "branches", "d_model": 16, "vocab_size": 11, "max_seq_len": 32}
    return draw(archspec.load({**sizes, **(body or {"blocks": [{"mixer": LOCAL}]}), "heads": heads}))


def words(scene: Scene) -> list[str]:
    return [line.text for shape in scene.shapes for line in shape.lines]


@pytest.mark.parametrize("name", HEADS)
def test_nothing_overlaps(name: str) -> None:
    assert not faults(drawn(HEADS[name]))
    assert not faults(drawn(HEADS[name], stacks=STACKS))


def test_each_branch_says_its_name_and_what_it_gives() -> None:
    found = words(drawn(HEADS["four"]))
    assert {"next", "second", "states", "n", "LM head", "Regression head", "hidden states", "[B, T, 16]", "[B, 1]"} <= {
        *found
    }
    assert {"logits of the next token", "logits of the token 2 places further", "predictions"} <= {*found}
    assert "No head" not in found


def test_of_very_many_the_first_are_drawn() -> None:
    found = words(drawn(HEADS["many"]))
    assert found.count("LM head") == 3
    assert any(text.endswith("6 more heads") for text in found)
