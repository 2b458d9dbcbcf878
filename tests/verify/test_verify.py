"""Verification passes what is right and finds what is not."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from archspec import load, loads
from archspec.passes.count import count
from archspec.verify import Verdict, built, order, shrink, stepwise, training, verify
from archspec.verify.sample import Sample

HYBRID = """
name: hybrid
d_model: 16
vocab_size: 11
max_seq_len: 32
define:
  ssm: {mixer: {kind: mamba, d_state: 4}, ffn: none}
  attn: {mixer: {kind: attention, n_heads: 4, n_kv_heads: 2, position: rope}, ffn: {kind: gated_mlp, d_ff: 24}}
blocks: (ssm attn)x2
head: {kind: lm, tied: true}
"""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_a_right_model_passes_every_check() -> None:
    seen: list[str] = []
    report = verify(loads(HYBRID), progress=seen.append)
    assert report.passed, str(report)
    assert [c.name for c in report.checks] == seen
    assert {"tensors", "causal", "decoding", "loss falls"} <= set(seen)
    assert {c.verdict for c in report.checks if c.name != "windows"} == {Verdict.HOLDS}


@pytest.mark.parametrize("name", ["bert_tiny", "mixtral_8x7b", "t5_small", "vit_base", "jamba_v0_1"])
def test_published_models_pass_on_a_small_copy(name: str) -> None:
    report = verify(load(f"specs/{name}.yaml"))
    assert report.passed, str(report)
    assert bool(report.scaled) == (name != "bert_tiny")


class Wrong(nn.Module):
    """A model with one fault."""

    def __init__(self, model: nn.Module, fault: Callable[[nn.Module, Tensor, Any], Tensor]):
        super().__init__()
        self.inner, self.fault = model, fault

    def forward(self, x: Tensor, state: Any = None) -> Tensor:
        return self.fault(self.inner, x, state)


def leak(model: nn.Module, x: Tensor, state: Any) -> Tensor:
    """Every output sees the mean of all."""
    y = model(x, state=state)
    return y + y.mean(1, keepdim=True)


def linspace(model: nn.Module, x: Tensor, state: Any) -> Tensor:
    """Outputs depend on the length of the input, as filters over linspace(0, 1, T) do; causal all the same."""
    return model(x, state=state) * (1 + 0.1 / x.shape[1])


def forget(model: nn.Module, x: Tensor, state: Any) -> Tensor:
    """The decoding state is lost at every call."""
    return model(x, state={} if state is not None else None)


@pytest.mark.parametrize(
    ("check", "fault"),
    [
        (order.causal, leak),
        (order.lengths, linspace),
        (order.lengths, leak),
        (stepwise.decoding, forget),
        (stepwise.decoding, leak),
    ],
)
def test_a_fault_is_found(check: Any, fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = Sample(loads(HYBRID))
    right = sample.model()
    assert check(sample).verdict is Verdict.HOLDS
    monkeypatch.setattr(sample, "model", lambda: Wrong(right, fault))
    assert check(sample).verdict is Verdict.FAILS


def test_a_parameter_that_nothing_reads_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = Sample(loads(HYBRID))
    model = sample.model()
    model.register_parameter("idle", nn.Parameter(torch.zeros(3, dtype=torch.float64)))
    monkeypatch.setattr(sample, "model", lambda: model)
    verdict, detail = training.gradients(sample)
    assert verdict is Verdict.FAILS
    assert "idle" in detail


def test_a_parameter_that_is_multiplied_by_zero_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = Sample(loads(HYBRID))
    model = Wrong(sample.model(), lambda model, x, state: model(x) * (1 + 0 * idle))
    idle = model.idle = nn.Parameter(torch.ones((), dtype=torch.float64))
    monkeypatch.setattr(sample, "model", lambda: model)
    assert training.gradients(sample) == (Verdict.FAILS, "no gradient: ['idle']")


def test_shrinking_keeps_the_length_of_training() -> None:
    scaling = "{kind: dynamic, factor: 4.0, original_max_seq_len: 128}"
    text = HYBRID.replace("position: rope", f"position: {{kind: rope, scaling: {scaling}}}")
    spec = loads(text.replace("d_model: 16", "d_model: 1024").replace("max_seq_len: 32", "max_seq_len: 512"))
    mixer: Any = shrink(spec).main.layers[1].block.part("mixer")
    assert mixer.position.scaling.original_max_seq_len == 128


def test_a_generated_model_that_differs_from_the_spec_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = Sample(loads(HYBRID))
    other = loads(HYBRID.replace("position: rope", "position: {kind: rope, theta: 500}"))
    model = Sample(other).model()
    monkeypatch.setattr(sample, "model", lambda: model)
    assert built.generated_equals_eager(sample).verdict is Verdict.FAILS


def test_tensors_that_the_module_does_not_have_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = loads(HYBRID)
    monkeypatch.setattr(built, "count", lambda _: count(loads(HYBRID.replace("d_ff: 24", "d_ff: 25"))))
    assert built.tensors(spec).verdict is Verdict.FAILS


def test_shrinking_keeps_kinds_wiring_and_options() -> None:
    spec = load("specs/gemma2_2b.yaml")
    small = shrink(spec)
    assert count(small).total < 200_000
    old, new = spec.main.layers[0].block, small.main.layers[0].block
    assert [name for name, _ in old.parts] == [name for name, _ in new.parts]
    assert old.wiring == new.wiring
    mixer, copy = old.part("mixer"), new.part("mixer")
    assert (mixer.softcap, mixer.n_heads // mixer.n_kv_heads) == (copy.softcap, copy.n_heads // copy.n_kv_heads)


def test_a_small_spec_is_not_shrunk() -> None:
    spec = loads(HYBRID)
    assert shrink(spec) is spec
