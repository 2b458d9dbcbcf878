"""Numbers that differ from layer to layer: in wirings, in sizes, and what is told where they have no value."""

import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

import archspec
from archspec.errors import SpecError
from archspec.language.depth import as_python, value_at, with_sizes
from archspec.modules.model import eager

ATTENTION = {"kind": "attention", "n_heads": 2}
MLP = {"kind": "mlp", "d_ff": 12, "activation": "gelu"}
SCALED = ["x = x + mixer(1 / sqrt(layer + 1) * norm1(x))", "x = x + (layer + 1) / n_layers * ffn(norm2(x))"]
TOP: dict[str, Any] = {"name": "depth", "d_model": 8, "vocab_size": 11, "head": "lm"}


def spec(*blocks: dict[str, Any], **more: Any) -> archspec.Spec:
    return archspec.load({**TOP, "blocks": [*blocks], **more})


def block(**more: Any) -> dict[str, Any]:
    return {"mixer": ATTENTION, "ffn": MLP, "wiring": SCALED, **more}


def test_layer_norm_scaling_is_that_of_its_definition() -> None:
    """Sun et al. 2025 (arXiv:2502.05795): what a norm of layer l gives is divided by sqrt(l), counted from 1."""
    found = spec(block(repeat=3))
    model = archspec.build(found, seed=0).double()
    tokens = torch.randint(0, 11, (2, 5))
    x = model.embedding(tokens)
    for i, layer in enumerate(model.blocks):
        x = x + layer.mixer(layer.norm1(x) / (i + 1) ** 0.5)
        x = x + (i + 1) / 3 * layer.ffn(layer.norm2(x))
    torch.testing.assert_close(model(tokens), model.head(model.norm(x)), rtol=1e-12, atol=1e-12)


def test_layers_stay_one_class_and_one_row() -> None:
    found = spec(block(repeat=3))
    text = archspec.generate(found)
    assert text.count("class Block(") == 1
    assert "nn.ModuleList(Block(i) for i in range(3))" in text
    assert "self.factor1 = 1 / math.sqrt(layer + 1)" in text
    assert [len(s.layers) for s in found.main.segments] == [1]
    assert archspec.count(found).total == archspec.count(spec(block(repeat=3, wiring="pre"))).total


def test_numbers_go_on_over_segments_and_patterns() -> None:
    other = block(ffn="none", wiring=["x = x + (layer + 2) * mixer(norm1(x))"])
    found = spec(block(), {"repeat": 2, "pattern": [other, block()]})
    model, run = archspec.build(found, seed=0), eager(found)
    factors = [1 / 1, 3, 1 / 3**0.5, 5, 1 / 5**0.5]
    for made in (model.blocks, run.blocks):
        named = [dict(vars(b)) for b in made]
        assert [b.get("factor", b.get("factor1")) for b in named] == pytest.approx(factors)
    assert "for i in range(1, 5, 2)" in archspec.generate(found)
    run.load_state_dict(model.state_dict())
    tokens = torch.randint(0, 11, (2, 5))
    assert torch.equal(run(tokens), model(tokens))
    assert torch.equal(deepcopy(model)(tokens), model(tokens))


def test_what_is_shown_loads_again() -> None:
    found = spec(block(repeat=3))
    assert archspec.loads(archspec.show(found)) == found


def test_sizes_may_differ_from_layer_to_layer() -> None:
    found = spec({"repeat": 3, "mixer": ATTENTION, "ffn": {**MLP, "d_ff": "4 * (layer + 1)"}})
    widths = [layer.block.part("ffn").d_ff for layer in found.main.layers]  # type: ignore[union-attr]
    assert widths == [4, 8, 12]
    assert [ffn.up_proj.out_features for ffn in (b.ffn for b in archspec.build(found).blocks)] == widths


def test_equal_layers_are_built_once_where_no_size_asks() -> None:
    found = spec({"repeat": 3, "mixer": ATTENTION, "ffn": MLP})
    assert len({id(layer.block) for layer in found.main.layers}) == 1


def test_factors_that_differ_are_drawn(tmp_path: Path) -> None:
    archspec.render(spec(block(repeat=3)), tmp_path / "depth.dot")
    assert "(1 / sqrt(layer + 1))" in (tmp_path / "depth.dot").read_text()


WRONG: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (block(wiring=["x = x + 1 / layer * mixer(x) + ffn(x)"]), {}, "layer 0: `1 / layer` divides by zero"),
    (block(wiring=["x = x + 1 / (layer - 2) * mixer(x) + ffn(x)"], repeat=3), {},
     "layer 2: `1 / (layer - 2)` divides by zero"),
    (block(wiring=["x = x + 1 / (lay + 1) * mixer(x) + ffn(x)"]), {}, "no size 'lay' is known here; did you mean"),
    (block(wiring=["layer = mixer(x)", "x = x + layer + ffn(x)"]), {}, "assigns 'layer', which is the name of a size"),
    (block(repeat=2, share=True), {}, "which cannot be said of several with one set of weights; remove share"),
    (block(), {"sizes": {"layer": 3}}, "'layer' is a size or function that every spec has; choose another word"),
    (block(), {"embedding": {"kind": "token", "scale": "layer + 1"}}, "no size 'layer' is known here"),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "more", "message"), WRONG, ids=[str(i) for i in range(len(WRONG))])
def test_mistakes_are_one_message(layer: dict[str, Any], more: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec(layer, **more)
    assert len(caught.value.problems) == 1
    assert message in str(caught.value)


FORMULAS = [
    "1 / sqrt(layer + 1)",
    "round_up(layer, 4) * 2 ** -1",
    "max(layer, 2) // 3 - -layer % 5",
    "-(layer + 1) ** 0.5",
    "ceil(layer / 3) + floor(layer * 0.7) - round(layer / 2)",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_generated_arithmetic_is_that_of_the_spec(text: str) -> None:
    said = with_sizes(text, lambda name: 0)
    for layer in range(7):
        assert eval(as_python(said), {"math": math, "layer": layer}) == value_at(said, layer)
