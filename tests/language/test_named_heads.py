"""Heads by name in a spec: resolved, shown, changed, extended, and counted as what they are."""

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import archspec
from archspec.graph import graph, lower, problems
from archspec.language.schema import schema
from archspec.passes.memory import memory
from archspec.report.flat import flat

Document = dict[str, Any]
SIZES: Document = {"name": "heads", "d_model": 16, "vocab_size": 11, "max_seq_len": 32}
MIXER = {"kind": "attention", "n_heads": 2}
BERT: Document = {
    **SIZES,
    "mask": "bidirectional",
    "embedding": {"position": "learned"},
    "blocks": [{"mixer": MIXER, "ffn": {"kind": "mlp", "d_ff": 24}}],
    "heads": {
        "mlm": "masked_lm",
        "nsp": {"kind": "classification", "n_classes": 2, "hidden": "d_model", "loss_weight": 0.5},
    },
}
FURTHER: Document = {
    **SIZES,
    "blocks": [{"mixer": {**MIXER, "position": "rope"}}],
    "heads": {"near": {"kind": "lm", "tied": True}, "far": {"kind": "lm", "ahead": 3}, "states": "none"},
}
SPECS = [BERT, FURTHER]


@pytest.mark.parametrize("document", SPECS, ids=["bert", "further"])
def test_what_is_shown_loads_to_the_same(document: Document) -> None:
    spec = archspec.load(document)
    again = archspec.loads(archspec.show(spec))
    assert (again, again.digest) == (spec, spec.digest)
    assert problems(lower(spec)) == []


def test_one_head_is_what_it_was_and_several_are_asked_by_name() -> None:
    alone = archspec.load({k: v for k, v in BERT.items() if k != "heads"} | {"head": "masked_lm"})
    assert (alone.by_name, alone.head, [head.member for head in alone.heads]) == (
        False,
        alone.heads[0].component,
        ["head"],
    )
    several = archspec.load(BERT)
    assert [(head.name, head.member, head.loss_weight) for head in several.heads] == [
        ("mlm", "mlm_head", 1.0),
        ("nsp", "nsp_head", 0.5),
    ]
    with pytest.raises(AttributeError, match=r"heads by name \(mlm, nsp\)"):
        several.head  # noqa: B018
    assert not hasattr(several, "head")


def test_settings_remove_change_and_add_heads() -> None:
    one = archspec.load(BERT, set=["heads.nsp=null", "heads.mlm.tied=false"])
    assert [(head.name, head.component.tied_shape) for head in one.heads] == [("mlm", None)]
    heavier = archspec.load(BERT, set=["heads.nsp.loss_weight=2", "heads.more=lm"])
    assert [(head.name, head.loss_weight) for head in heavier.heads] == [("mlm", 1.0), ("nsp", 2.0), ("more", 1.0)]
    assert archspec.load(BERT, set=["heads=null", "head=lm"]).head.kind == "lm"


def test_a_file_changes_the_heads_of_the_one_that_it_extends(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(archspec.show(archspec.load(BERT)))
    (tmp_path / "child.yaml").write_text("extends: base.yaml\nheads: {nsp: {n_classes: 3}, states: none}\n")
    spec = archspec.load(tmp_path / "child.yaml")
    assert [(head.name, head.component.ops()[-1].shape[-1]) for head in spec.heads] == [
        ("mlm", 11),
        ("nsp", 3),
        ("states", 16),
    ]


def test_the_weight_and_the_place_that_is_named_tell_specs_apart() -> None:
    digests = {
        archspec.load(document, set=settings).digest
        for document, settings in [
            (BERT, []),
            (BERT, ["heads.nsp.loss_weight=1"]),
            (FURTHER, []),
            (FURTHER, ["heads.far.ahead=2"]),
        ]
    }
    assert len(digests) == 4


def test_every_value_is_listed_with_where_it_came_from() -> None:
    found = {value.path: (value.value, value.origin.how) for value in flat(archspec.load(FURTHER))}
    assert found["heads.far.ahead"] == (3, "given")
    assert found["heads.near.ahead"] == (1, "default")
    assert found["heads.near.tied"] == (True, "given")
    assert "heads.states.ahead" not in found
    assert found["heads.states.loss_weight"] == (1.0, "default")


def test_a_notebook_names_them() -> None:
    assert str(archspec.load(BERT)).endswith("\n  heads: mlm (masked_lm), nsp (classification)")


def test_an_editor_knows_them() -> None:
    validator = Draft202012Validator(schema())
    assert not [*validator.iter_errors(BERT), *validator.iter_errors(FURTHER)]
    for wrong in ({"kind": "lm", "ahead": 0}, {"kind": "masked_lm", "lose_weight": 1}, "rope"):
        assert [*validator.iter_errors({**BERT, "heads": {"a": wrong}})]


def test_the_tensors_are_those_of_each_head_by_itself() -> None:
    names = [t.name for t in archspec.count(archspec.load(BERT)).tensors if "_head." in t.name]
    assert names == [
        "mlm_head.transform.weight",
        "mlm_head.transform.bias",
        "mlm_head.norm.weight",
        "mlm_head.proj.bias",
        "nsp_head.pooler.weight",
        "nsp_head.pooler.bias",
        "nsp_head.proj.weight",
        "nsp_head.proj.bias",
    ]
    assert archspec.load(BERT).ties == (("mlm_head.proj.weight", "embedding.token.weight"),)


def test_work_is_the_sum_over_the_heads() -> None:
    def flops(*names: str) -> int:
        heads = {name: FURTHER["heads"][name] for name in names}
        return archspec.cost(archspec.load({**FURTHER, "heads": heads}), batch=2, seq=8).flops_forward

    trunk = flops("states")
    assert flops("near", "far", "states") - trunk == (flops("near") - trunk) + (flops("far") - trunk) > 0
    found = graph(archspec.load(FURTHER))
    assert found.outputs == ("near_head.proj", "far_head.proj", "states_head.hidden")


def test_outputs_are_all_held_and_a_model_with_a_pooled_answer_does_not_decode() -> None:
    held = memory(archspec.load(BERT), batch=2, seq=8, dtype="float32")
    assert held.output_bytes == 4 * (2 * 8 * 11 + 2 * 2)
    with pytest.raises(archspec.CostError, match="attention sees later tokens"):
        archspec.cost(archspec.load(BERT), phase="decode")
    pooled = {**FURTHER, "heads": {"next": "lm", "label": {"kind": "classification", "n_classes": 2, "pool": "last"}}}
    with pytest.raises(archspec.CostError, match="its head label is classification"):
        archspec.cost(archspec.load(pooled), phase="decode")
    assert archspec.cost(archspec.load(FURTHER), phase="decode").flops_forward > 0


def test_the_formulas_and_terms_know_each_head() -> None:
    spec = archspec.load(BERT)
    assert "mlm_head" in repr(archspec.explain(spec, seq=8))


def test_a_tie_of_another_shape_is_told_at_the_head_that_asks_for_it() -> None:
    document = {**BERT, "heads": {"mlm": {"kind": "masked_lm", "d_embed": 4}, "other": "lm"}}
    with pytest.raises(archspec.SpecError, match=r"heads\.mlm\.tied: the head needs a table of 11 x 4"):
        archspec.load(document)


def test_a_stack_may_not_be_called_like_the_module_of_a_head() -> None:
    stacks = {"a": {"blocks": BERT["blocks"]}, "lm_head": {"memory": "a", "blocks": [{"mixer": MIXER, "cross": MIXER}]}}
    document = {**SIZES, "stacks": stacks, "heads": {"lm": "lm"}, "embedding": None}
    with pytest.raises(archspec.SpecError, match="makes a module lm_head, as the stack of that name does"):
        archspec.load(document)
