"""Memory of a training step: what is kept for the backward pass equals, to the byte, what autograd keeps."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from contract_models import ATTENTION, BOTH, MAMBA, MOE, model, models
from contract_specs import MLP, PLAIN, Document, cases, hosted, inputs, name
from contract_storages import SavedBytes
from hypothesis import given as drawn
from test_random_specs import at_most, specs
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from archspec.codegen.load import build
from archspec.graph import graph
from archspec.language.load import load
from archspec.language.model import Spec
from archspec.layers.ops import Attend, Conv, Elementwise, Experts, Linear, Norm, Rotate, Route, Scan
from archspec.modules.model import eager
from archspec.passes.memory import Memory, memory, saved_formula, unproved

WIDTHS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def asked(spec: Spec, T: int = 9, B: int = 2, **options: Any) -> Memory:
    """The memory of a training step of B sequences of T tokens."""
    return memory(spec, batch=B, seq=T if spec.main.embedding.n_tokens == "T" else None, **options)


def given(spec: Spec, dtype: torch.dtype, T: int, B: int) -> dict[str, Any]:
    """Arguments of the model in its type."""
    found = inputs(spec, T=T, B=B)
    return {k: v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in found.items()}


def measured(spec: Spec, model: nn.Module, dtype: str, T: int = 9, B: int = 2) -> SavedBytes:
    """What a forward pass of the built model leaves."""
    model.to(WIDTHS[dtype]).eval()
    arguments = given(spec, WIDTHS[dtype], T, B)
    with SavedBytes(model, [v for v in arguments.values() if isinstance(v, Tensor)]) as found:
        y = model(**arguments)
    assert y.requires_grad
    return found


def check(
    spec: Spec,
    T: int = 9,
    B: int = 2,
    dtypes: Iterable[str] = WIDTHS,
    make: Callable[[Spec], nn.Module] = eager,
) -> None:
    """What is said equals what is measured, wherever it is said without reservation."""
    model = make(spec)
    for dtype in dtypes:
        said = asked(spec, T, B, dtype=dtype)
        assert sum(line.bytes for line in said.by_node) == said.saved_bytes
        if unproved(graph(spec)):
            assert "saved_bytes" in said.estimates
        else:  # without dropout, which does nothing here
            found = measured(spec, model, dtype, T, B)
            assert said.saved_bytes == found.total, found.log


@pytest.mark.parametrize("case", cases(), ids=name)
def test_every_example_of_every_kind(case: tuple[str, str, int]) -> None:
    check(hosted(*case))


@pytest.mark.parametrize("case", cases()[::14], ids=name)
def test_generated_models_keep_the_same(case: tuple[str, str, int]) -> None:
    check(hosted(*case), make=build)


@pytest.mark.parametrize("kind", models())
def test_whole_models(kind: str) -> None:
    check(load(models()[kind]), T=7, B=3)


@at_most(4)
@drawn(spec=specs())
def test_random_specs(spec: Spec) -> None:
    check(spec, T=5)


LONG = {"d_model": 16, "max_seq_len": 600}
WIDE = {"kind": "attention", "n_heads": 2, "head_dim": 128, "position": {"kind": "rope"}}
THRESHOLDS: dict[str, tuple[Document, int]] = {
    "window": ({"mixer": {**PLAIN, "window": 9}}, 512),
    "alibi": ({"mixer": {**PLAIN, "position": {"kind": "alibi"}}}, 512),
    "softcap": ({"mixer": {**PLAIN, "softcap": 5.0}}, 192),
    "sinks": ({"mixer": {**PLAIN, "sinks": True, "window": 9, "gate": "head"}}, 192),
    "sinks of all": ({"mixer": {**PLAIN, "sinks": True, "mask": "bidirectional"}}, 192),
    "t5": ({"mixer": {**PLAIN, "position": {"kind": "t5", "n_buckets": 8, "max_distance": 16}}}, 192),
    "narrow values": ({"mixer": {**PLAIN, "v_head_dim": 4}}, 255),
    "wide values": ({"mixer": {**PLAIN, "v_head_dim": 12}}, 255),
    "rope": ({"mixer": WIDE}, 511),
    "scan": ({"mixer": MAMBA}, 16),
}


@pytest.mark.parametrize("kind", THRESHOLDS)
def test_both_sides_of_every_threshold(kind: str) -> None:
    block, last = THRESHOLDS[kind]
    spec = load(model([block], **LONG))
    for T in (1, last, last + 1):
        check(spec, T, B=1, dtypes=("bfloat16",) if last == T else ("float32",))


def test_a_large_norm_runs_as_an_operator() -> None:
    spec = load(model([{"ffn": MLP}], d_model=512, max_seq_len=600))
    for T in (511, 512):
        check(spec, T, B=1)


SINGLE = {
    "dense": [{"repeat": 5, **BOTH}],
    "mixed": [{"repeat": 2, "mixer": MAMBA}, {"mixer": PLAIN, "ffn": MOE}, {"repeat": 3, "share": True, **BOTH}],
}


@pytest.mark.parametrize("kind", SINGLE)
def test_checkpoints_keep_the_inputs_of_layers(kind: str) -> None:
    spec = load(model(SINGLE[kind]))
    made = build(spec)
    for block in {id(b): b for b in made.blocks}.values():
        forward = block.forward
        block.forward = lambda *a, f=forward, **k: checkpoint(f, *a, use_reentrant=False, **k)
    said = asked(spec, dtype="float32", checkpoint="block")
    assert said.saved_bytes == measured(spec, made, "float32").total
    whole = asked(spec, dtype="float32")
    assert said.saved_bytes < said.saved_bytes + said.recomputed_bytes < whole.saved_bytes


@pytest.mark.parametrize("op", [Attend, Conv, Elementwise, Experts, Linear, Norm, Rotate, Route, Scan])
def test_a_rule_that_forgets_a_tensor_is_noticed(op: type, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = load(model([{"mixer": ATTENTION, "ffn": MOE}, {"mixer": MAMBA, "ffn": {"kind": "gated_mlp", "d_ff": 8}}]))
    check(spec, dtypes=["float32"])
    rule = op.saved  # type: ignore[attr-defined]
    monkeypatch.setattr(op, "saved", lambda self, run, how: rule(self, run, how)[:-1])
    with pytest.raises(AssertionError):
        check(spec, dtypes=["float32"])


@pytest.mark.parametrize("kind", ["hybrid", "encoder_decoder", "bert"])
def test_the_formula_gives_the_number(kind: str) -> None:
    spec = load(models()[kind])
    for T in (3, 30):
        formula = saved_formula(spec, batch=2, seq=T, dtype="float32")
        assert formula.value({"B": 2, "T": T, "M": T}) == asked(spec, T, dtype="float32").saved_bytes


def test_dropout_makes_an_estimate() -> None:
    block = [{"mixer": PLAIN, "ffn": MLP}]
    assert "saved_bytes" in asked(load(model(block, dropout=0.1))).estimates
    assert "saved_bytes" not in asked(load(model(block))).estimates
    assert "saved_bytes" in asked(load(model(block)), attention="flash").estimates
