"""What is wrong only beyond some tokens, edges or limits is found."""

from typing import Any

import pytest
import torch
import verify_models as wrong
from torch import Tensor
from verify_models import N, rewritten, spec_of, spoiled

import archspec.modules.mixers.attention as attention_module
import archspec.modules.mixers.mamba2 as mamba2_module
from archspec.verify import Verdict, batches, built, order, parts, stepwise, training
from archspec.verify.sample import Sample

ROPE = "{kind: attention, n_heads: 4, position: rope}"
PREFIX = "{kind: attention, n_heads: 4, mask: prefix, position: rope}"
WINDOW = "{kind: attention, n_heads: 4, position: rope, window: 32}"
SSD = "{kind: mamba2, d_state: 4, head_dim: 8, chunk: 48}"
T5 = "{kind: attention, n_heads: 4, position: {kind: t5, n_buckets: 8, max_distance: 64}}"
DYNAMIC = "{kind: attention, n_heads: 4, position: {kind: rope, scaling: {kind: dynamic, factor: 4.0, \
original_max_seq_len: 60}}}"
CHOICE = "{kind: moe, n_experts: 4, top_k: 2, d_ff: 8, assignment: expert}"

FOUND = [
    (order.causal, wrong.peek, ROPE),
    (order.causal, wrong.peek_once, ROPE),
    (order.causal, wrong.peek_once, WINDOW),
    (order.causal, wrong.peek, PREFIX),
    (order.causal, wrong.peek, DYNAMIC),
    (order.lengths, wrong.peek, ROPE),
    (order.lengths, wrong.stretch, ROPE),
    (order.lengths, wrong.stretch, PREFIX),
    (order.lengths, wrong.stretch, DYNAMIC),
    (stepwise.decoding, wrong.forget, ROPE),
    (stepwise.decoding, wrong.forget, PREFIX),
    (stepwise.decoding, wrong.forget, DYNAMIC),
    (batches.padding, wrong.pad_wrong, ROPE),
    (batches.padding, wrong.pad_wrong, SSD),
    (batches.padding, wrong.pad_prompts_wrong, ROPE),
    (batches.packing, wrong.pack_wrong, ROPE),
    (training.gradients, wrong.cut_gradients, ROPE),
]


@pytest.mark.parametrize(("check", "fault", "mixer"), FOUND)
def test_a_fault_behind_some_tokens_is_found(check: Any, fault: Any, mixer: str) -> None:
    right = check(Sample(spec_of(mixer)))
    assert right.verdict in (Verdict.HOLDS, Verdict.BY_DESIGN), right
    found = check(spoiled(Sample(spec_of(mixer)), fault))
    assert found.verdict is Verdict.FAILS, found


@pytest.mark.parametrize(
    ("mixer", "old", "new"),
    [
        (WINDOW, "WINDOW = 32", "WINDOW = 33"),
        (T5, "MAX_DISTANCE = 64", "MAX_DISTANCE = 70"),
    ],
)
def test_a_generated_file_that_is_wrong_at_an_edge_is_found(mixer: str, old: str, new: str) -> None:
    spec = spec_of(mixer)
    assert built.generated_equals_eager(Sample(spec)).verdict is Verdict.HOLDS
    assert built.generated_equals_eager(rewritten(spec, old, new)).verdict is Verdict.FAILS


def test_a_kernel_whose_window_is_one_too_wide_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = attention_module.attention

    def wider(*args: Any, **kwargs: Any) -> Tensor:
        return kernel(*args, **{**kwargs, "window": kwargs["window"] + 1})

    sample = Sample(spec_of(WINDOW))
    assert parts.windows(sample).verdict is Verdict.HOLDS
    monkeypatch.setattr(attention_module, "attention", wider)
    verdict, detail = parts.windows(sample)
    assert verdict is Verdict.FAILS
    assert "with a window of 32, token 32 sees token 0" in detail


def test_a_window_of_both_sides_ends_on_both(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = attention_module.attention

    def behind(*args: Any, **kwargs: Any) -> Tensor:
        return kernel(*args, **{**kwargs, "causal": True})

    sample = Sample(spec_of("{kind: attention, n_heads: 4, mask: bidirectional, window: 32}"))
    assert parts.windows(sample).verdict is Verdict.HOLDS
    monkeypatch.setattr(attention_module, "attention", behind)
    assert parts.windows(sample).verdict is Verdict.FAILS


def test_a_scan_that_is_wrong_behind_its_first_chunk_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = mamba2_module.ssd

    def lost(x: Tensor, *args: Any, chunk: int, **kwargs: Any) -> Tensor:
        y = kernel(x, *args, chunk=chunk, **kwargs)
        return torch.cat((y[:, :chunk], 0.9 * y[:, chunk:]), dim=1)

    sample = Sample(spec_of(SSD))
    assert parts.each_part(sample).verdict is Verdict.HOLDS
    monkeypatch.setattr(mamba2_module, "ssd", lost)
    verdict, detail = parts.each_part(sample)
    assert verdict is Verdict.FAILS
    assert "in pieces differ" in detail


def test_a_leak_beside_an_expert_that_chooses_tokens_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the model as a whole is not causal by design, its attention must still be."""
    kernel = attention_module.attention

    def leaking(*args: Any, **kwargs: Any) -> Tensor:
        y = kernel(*args, **kwargs)
        return torch.cat((y[..., :N, :], y[..., N:, :] + 0.1 * y[..., -1:, :]), dim=-2)

    sample = Sample(spec_of(ffn=CHOICE))
    assert order.causal(sample).verdict is Verdict.BY_DESIGN
    assert parts.each_part(sample).verdict is Verdict.HOLDS
    monkeypatch.setattr(attention_module, "attention", leaking)
    verdict, detail = parts.each_part(sample)
    assert verdict is Verdict.FAILS
    assert "attention (blocks.0.mixer)" in detail


def test_decoding_that_differs_from_the_interpreted_one_where_neither_is_exact_is_found() -> None:
    sample = Sample(spec_of(DYNAMIC))
    assert stepwise.decoding(sample).verdict is Verdict.BY_DESIGN
    twin = sample.twin
    vars(sample)["twin"] = lambda model: wrong.Wrong(twin(model), wrong.forget)
    vars(sample)["built"] = sample.built
    finding = built.generated_equals_eager(sample)
    assert finding == (Verdict.FAILS, "they differ in decoding")
