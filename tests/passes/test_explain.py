"""Explanations: their terms add up to what `count` and `cost` say, and their text comes to their numbers."""

from math import floor
from pathlib import Path
from typing import Any

import pytest
from formula_cases import SPECS, computed, examples, spec_of

from archspec import CostError, load, loads
from archspec.language.model import Spec
from archspec.layers.registry import find
from archspec.passes.cost import cost
from archspec.passes.count import count
from archspec.passes.explain import explain
from archspec.passes.explanation import Explanation, Term
from archspec.passes.memory import memory


def workload(spec: Spec) -> dict[str, int]:
    fixed = isinstance(spec.main.embedding.n_tokens, int)
    return {} if fixed else {"seq": min(77, spec.max_seq_len or 77)}


def terms(found: Explanation) -> list[Term]:
    return [term for chapter in found.chapters for section in chapter.sections for term in section.terms]


def check_texts(found: Explanation) -> None:
    for term in terms(found):
        assert floor(computed(term.text, dict(term.numbers))) == term.value, term.equation
        assert floor(computed(term.substituted, {})) == term.value, term.equation
        assert term.equation.endswith(f"{term.value:,}")


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_parameters_add_up_to_the_count(path: Path) -> None:
    spec = spec_of(path)
    found = explain(spec, "params")
    assert found.total == count(spec).total
    assert len(terms(found)) > 3
    check_texts(found)


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
@pytest.mark.parametrize("phase", ["train", "prefill", "decode"])
def test_work_and_steps_add_up_to_the_cost(path: Path, phase: Any) -> None:
    spec = spec_of(path)
    asked: dict[str, Any] = {"phase": phase, "batch": 3, **workload(spec)}
    if phase == "decode" and not spec.causal:
        with pytest.raises(CostError, match="does not decode"):
            explain(spec, **asked)
        return
    wanted = cost(spec, **asked)
    found = explain(spec, "flops", **asked)
    assert found.total == wanted.flops
    assert explain(spec, "steps", **asked).total == wanted.sequential_steps
    check_texts(found)


@pytest.mark.parametrize("path", [p for p in SPECS if spec_of(p).causal], ids=lambda p: p.stem)
def test_state_adds_up_to_the_cost(path: Path) -> None:
    spec = spec_of(path)
    for dtype in ("bfloat16", "float32"):
        asked: dict[str, Any] = {"batch": 2, "dtype": dtype, **workload(spec)}
        wanted = cost(spec, phase="decode", **asked)
        found = explain(spec, "cache", **asked)
        assert found.total == wanted.cache_bytes + wanted.state_bytes
        check_texts(found)


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
@pytest.mark.parametrize(
    ("batch", "seq", "attention", "dtype"),
    [(3, 7, "cpu", "bfloat16"), (1, 1, "cpu", "float32"), (2, 77, "flash", "bfloat16"), (2, 77, "eager", "float32")],
)
def test_what_is_kept_adds_up_to_the_memory(path: Path, batch: int, seq: int, attention: Any, dtype: str) -> None:
    spec = spec_of(path)
    asked: dict[str, Any] = {"batch": batch, "attention": attention, "dtype": dtype}
    asked |= {name: min(seq, most) for name, most in workload(spec).items()}
    source = 5 if len(spec.stacks) > 1 else None
    found = explain(spec, "memory", memory=source, **asked)
    assert found.total == memory(spec, memory_tokens=source, **asked).saved_bytes
    check_texts(found)


@pytest.mark.parametrize("name", ["gpt2", "t5_small"])
def test_each_op_keeps_what_memory_says(name: str) -> None:
    spec = load(f"specs/{name}.yaml")
    wanted: dict[str, int] = {}
    for of in memory(spec, batch=2, seq=9, attention="flash").by_node:
        wanted[of.node.part] = wanted.get(of.node.part, 0) + of.bytes
    found: dict[str, int] = {}
    for c in explain(spec, "memory", batch=2, seq=9).chapters:
        for s in c.sections:
            found[s.part] = found.get(s.part, 0) + c.times * s.total
    assert found == wanted


def test_a_tensor_that_two_ops_need_stands_at_the_first() -> None:
    found = explain(load("specs/gpt2.yaml"), "memory", batch=2, seq=512, layer=3, attention="flash")
    equations = {(t.op, t.what): t.equation for t in terms(found)}
    assert equations["q_proj", "norm1"] == "2 B T d_model = 2 x 2 x 512 x 768 = 1,572,864"
    assert not {op for op, _ in equations} & {"k_proj", "v_proj", "out_proj"}
    assert equations["attention", "lse"] == "4 B T n_heads = 4 x 2 x 512 x 12 = 49,152"
    assert equations["norm1", "input"] == "2 B T d_model = 2 x 2 x 512 x 768 = 1,572,864"


def test_layers_that_keep_more_stand_apart() -> None:
    found = explain(load("specs/t5_small.yaml"), "memory", seq=16)
    decoder = [c.layers for c in found.chapters if c.stack == "decoder" and c.layers]
    assert decoder == [(0,), (1, 2, 3, 4, 5)]  # the first keeps what the encoder gives, which all of them read


@pytest.mark.parametrize(("role", "kind", "number"), [e for e in examples() if e[0] in ("mixer", "ffn")])
def test_every_kind_adds_up(role: str, kind: str, number: int) -> None:
    part = {"kind": kind, **find(role, kind).examples[number]}
    block = {"mixer": part} if role == "mixer" else {"mixer": {"kind": "rnn"}, "ffn": part}
    sizes = {"d_model": 16, "vocab_size": 11, "max_seq_len": 32}
    if part.get("mask") == "cross":
        encoder, decoder = {"blocks": [{"mixer": "rnn"}]}, {"memory": "a", "blocks": [{"cross": part}]}
        spec = load({**sizes, "stacks": {"a": encoder, "b": decoder}, "head": "lm"})
    else:
        spec = load({**sizes, "blocks": [{"repeat": 2, **block}], "head": "lm"})
    assert explain(spec, "params").total == count(spec).total
    kept = explain(spec, "memory", batch=2, seq=31)
    assert kept.total == memory(spec, batch=2, seq=31, attention="flash").saved_bytes
    check_texts(kept)
    for phase in ("train", "prefill", *(("decode",) if spec.causal else ())):
        wanted = cost(spec, phase=phase, batch=2, seq=31)  # type: ignore[arg-type]
        found = explain(spec, "flops", phase=phase, batch=2, seq=31)  # type: ignore[arg-type]
        assert found.total == wanted.flops
        check_texts(found)


def test_a_term_reads_like_a_line_of_a_book() -> None:
    found = explain(load("specs/gpt2.yaml"), seq=512, layer=3)
    term = next(t for t in terms(found) if (t.op, t.what) == ("up_proj", "forward"))
    assert term.equation == "2 B T d_model d_ff = 2 x 1 x 512 x 768 x 3,072 = 2,415,919,104"
    assert term.rule == "Linear: Two for each weight and row."


def test_a_tensor_is_told_by_its_shape() -> None:
    found = explain(load("specs/mamba_130m.yaml"), "params", layer=0)
    equations = {t.op: t.equation for t in terms(found)}
    assert equations["in_proj.weight"] == "2 d_inner x d_model = 3,072 x 768 = 2,359,296"
    assert equations["x_proj.weight"] == "(2 d_state + dt_rank) x d_inner = 80 x 1,536 = 122,880"


def test_one_layer_is_its_share() -> None:
    spec = load("specs/bytes_hybrid.yaml")
    whole = explain(spec, seq=64)
    layers = [explain(spec, seq=64, layer=i) for i in range(spec.main.n_layers)]
    ends = sum(c.total for c in whole.chapters if not c.layers)
    assert sum(found.total for found in layers) + ends == whole.total
    assert {c.times for found in layers for c in found.chapters} == {1}


def test_layers_of_another_stack_go_by_its_name() -> None:
    spec = load("specs/t5_small.yaml")
    parts = {s.part for c in explain(spec, layer="encoder.2").chapters for s in c.sections}
    assert "cross" not in parts
    assert "cross" in {s.part for c in explain(spec, layer=2).chapters for s in c.sections}
    assert explain(spec, layer="decoder.2").total == explain(spec, layer=2).total


def test_shared_weights_count_once_and_run_often() -> None:
    spec = loads(
        "{d_model: 16, vocab_size: 9, max_seq_len: 99, blocks: [{repeat: 3, share: true, mixer: rnn}], head: lm}"
    )
    assert explain(spec, "params").total == count(spec).total
    assert explain(spec, "flops").total == cost(spec).flops


def test_a_head_says_which_patterns_it_can_make() -> None:
    found = explain(load("specs/gpt2.yaml"), seq=1024, layer=0)
    remarks = [remark for c in found.chapters for s in c.sections for remark in s.remarks]
    assert remarks == [
        "a head of 64 channels makes T x T patterns of rank 64 at most, from 2 d_model head_dim = 98,304 numbers; any "
        "pattern has T x T = 1,048,576"
    ]


def test_sources_are_those_of_the_component() -> None:
    found = explain(load("specs/mamba_130m.yaml"), "params", layer=0)
    sources = {s.title: s.source for c in found.chapters for s in c.sections}
    assert sources["Mamba"].startswith("Gu and Dao 2023 (arXiv 2312.00752)")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"what": "flop"}, "what = 'flop' is unknown; known: params, flops"),
        ({"layer": 12}, "layer = 12 is none of gpt2; known: 0 to 11"),
        ({"layer": "encoder.0"}, "layer = 'encoder.0' is none of gpt2"),
        ({"layer": "-1"}, "layer = '-1' is none of gpt2"),
        ({"batch": 0}, "batch = 0 must be a whole number, at least 1"),
        ({"seq": 0}, "seq = 0 must be a whole number, at least 1"),
        ({"what": "cache", "dtype": "float3"}, "dtype = 'float3' is unknown"),
        ({"what": "memory", "attention": "slow"}, "attention = 'slow' is unknown; known: flash, eager, cpu"),
        ({"what": "params", "batch": 7}, "batch = 7 has no effect on params; leave it out"),
        ({"what": "params", "seq": 7}, "seq = 7 has no effect on params; leave it out"),
        ({"what": "cache", "phase": "train"}, "phase = 'train' has no effect on cache; leave it out"),
        ({"what": "cache", "attention": "eager"}, "attention = 'eager' has no effect on cache; leave it out"),
        ({"what": "flops", "dtype": "float32"}, "dtype = 'float32' has no effect on flops; leave it out"),
        ({"what": "steps", "attention": "eager"}, "attention = 'eager' has no effect on steps; leave it out"),
        ({"what": "memory", "phase": "decode"}, "memory is what a training step keeps for its backward pass"),
    ],
)
def test_what_cannot_be_explained_is_told(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(CostError) as error:
        explain(load("specs/gpt2.yaml"), **asked)
    assert words in str(error.value)


def test_html_has_every_row() -> None:
    found = explain(load("specs/gpt2.yaml"), seq=512)
    html = found._repr_html_()
    assert html.count("<tr>") == len(found.rows)
    assert "2 x 1 x 512 x 768 x 3,072 = 2,415,919,104" in html
