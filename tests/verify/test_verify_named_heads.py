"""`verify` looks at every head of a model with several, at their losses too."""

from typing import Any

import pytest
import torch
from torch import Tensor

import archspec
from archspec.modules import model as eager_model
from archspec.verify.batches import padding
from archspec.verify.built import generated_equals_eager
from archspec.verify.order import causal
from archspec.verify.report import Verdict
from archspec.verify.sample import Sample
from archspec.verify.stepwise import decoding
from archspec.verify.training import gradients, learns

DOCUMENT: dict[str, Any] = {
    "name": "named",
    "d_model": 16,
    "vocab_size": 11,
    "max_seq_len": 24,
    "blocks": [{"mixer": {"kind": "attention", "n_heads": 2, "position": "rope"}}],
    "heads": {
        "near": {"kind": "lm", "tied": True},
        "far": {"kind": "lm", "ahead": 3, "loss_weight": 0.25},
        "label": {"kind": "classification", "n_classes": 3, "pool": "last"},
        "value": {"kind": "regression", "pool": "none"},
    },
}


def sample(**more: Any) -> Sample:
    return Sample(archspec.load({**DOCUMENT, **more}))


@pytest.mark.parametrize("check", [generated_equals_eager, gradients, learns, causal, decoding, padding])
def test_what_holds(check: Any) -> None:
    verdict, detail = check(sample())
    assert verdict is Verdict.HOLDS, detail


def test_an_answer_to_a_whole_sequence_alone_has_no_order() -> None:
    verdict, detail = causal(sample(heads={"label": DOCUMENT["heads"]["label"]}))
    assert verdict is not Verdict.HOLDS
    assert detail == "classification (label_head) gives one answer for a whole sequence"


def test_a_loss_that_is_computed_otherwise_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = eager_model.number_loss
    monkeypatch.setattr(eager_model, "number_loss", lambda y, t: 2 * right(y, t))
    verdict, detail = generated_equals_eager(sample())
    assert (verdict, "the loss" in detail) == (Verdict.FAILS, True)


def test_a_head_that_looks_at_padding_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from archspec.verify import sample as samples

    class Leaking(torch.nn.Module):
        """A model whose second answer knows the first column of its rows."""

        def __init__(self, model: torch.nn.Module):
            super().__init__()
            self.model = model

        def forward(self, tokens: Tensor, **given: Any) -> dict[str, Tensor]:
            answers: dict[str, Tensor] = self.model(tokens=tokens, **given)
            return {**answers, "far": answers["far"] + tokens[:, :1, None]}

    whole = samples.Sample.model
    monkeypatch.setattr(samples.Sample, "model", lambda self: Leaking(whole(self)))
    verdict, detail = padding(sample())
    assert verdict is Verdict.FAILS, detail
