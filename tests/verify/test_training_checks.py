"""What is proved of training does not depend on how far a loss gets."""

import pytest
import torch
from torch import Tensor, nn
from verify_models import Given, spec_of, spoiled

from archspec.verify import Verdict, training
from archspec.verify.sample import Sample


@pytest.mark.parametrize(
    "head",
    [
        "{kind: lm, tied: true, scale: 0.1}",
        "{kind: lm, tied: true, scale: 0.0001}",
        "{kind: lm, softcap: 0.01}",
        "{kind: regression, pool: none}",
    ],
)
def test_a_model_that_learns_slowly_passes(head: str) -> None:
    for check in (training.gradients, training.learns):
        verdict, detail = check(Sample(spec_of(head=head)))
        assert verdict is Verdict.HOLDS, detail


def test_dropout_and_jitter_are_drawn_alike() -> None:
    ffn = "{kind: moe, n_experts: 4, top_k: 2, d_ff: 8, jitter: 0.1, balance_loss: 0.01, expert_dropout: 0.1}"
    for check in (training.gradients, training.learns):
        verdict, detail = check(Sample(spec_of(ffn=ffn)))
        assert verdict is Verdict.HOLDS, detail


class _Scaled(torch.autograd.Function):
    """Nothing forward; backward, the gradient times a number."""

    @staticmethod
    def forward(ctx: object, y: Tensor, by: float) -> Tensor:
        ctx.by = by  # type: ignore[attr-defined]
        return y.clone()

    @staticmethod
    def backward(ctx: object, g: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return g * ctx.by, None  # type: ignore[attr-defined]


def test_a_gradient_of_the_wrong_size_is_found() -> None:
    def slightly(model: nn.Module, x: Tensor, given: Given) -> Tensor:
        y: Tensor = _Scaled.apply(model(x, **given), 1.001)
        return y

    assert training.gradients(spoiled(Sample(spec_of()), slightly)).verdict is Verdict.FAILS


def test_a_gradient_that_leads_uphill_is_found() -> None:
    class Uphill(nn.Module):
        def __init__(self, model: nn.Module):
            super().__init__()
            self.inner = model

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = _Scaled.apply(self.inner(x), -1.0)
            return y

    sample = Sample(spec_of())
    fresh = sample.fresh
    vars(sample)["fresh"] = lambda: Uphill(fresh())
    verdict, detail = training.learns(sample)
    assert verdict is Verdict.FAILS
    assert "no step along the gradient lowers it" in detail
