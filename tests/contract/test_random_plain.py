"""Plain standalone files of random specs, and of all that kinds allow, against the package's models."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from contract_models import model
from contract_specs import Document, cut, double, inputs, name, redraw, run
from hypothesis import given
from test_random_specs import LONGEST, VARIED, at_most, specs, try_load, variants
from torch import Tensor, nn

from archspec.codegen import generate
from archspec.codegen.load import build, load_text
from archspec.language.load import load
from archspec.language.model import Spec

TOLERANCE = 1e-10  # in float64, in units of the largest number
DRAWS = ("nn.Dropout", "dropout_p=", "uniform_(1", "torch.lstm(", "torch.gru(", "torch.rnn_")  # in training


def same(found: Tensor, wanted: Tensor) -> None:
    largest = max(1.0, float(wanted.detach().abs().max())) if wanted.numel() else 1.0
    torch.testing.assert_close(found, wanted, rtol=0, atol=TOLERANCE * largest)


def step(made: nn.Module, spec: Spec, given: dict[str, Any]) -> tuple[Tensor, list[Tensor | None]]:
    """The output and the gradients."""
    y, losses, _ = run(made, spec, given)
    loss = y.square().mean() + losses
    return y, list(torch.autograd.grad(loss, list(made.parameters()), allow_unused=True))


def check_plain(spec: Spec) -> None:
    """Outputs, gradients in training and decoding of the plain file are those of the package's model."""
    with torch.no_grad():
        package = redraw(build(spec)).double()
    text = generate(spec, standalone="plain")
    draws = any(word in text for word in DRAWS)
    plain = load_text(text, f"plain_{spec.digest}").Model().double()
    plain.load_state_dict(package.state_dict())
    for optional in (False, True):
        arguments = double(inputs(spec, optional, T=20))
        for training in (False,) if draws else (False, True):
            (wanted, wants), (found, gradients) = (step(m.train(training), spec, arguments) for m in (package, plain))
            same(found, wanted)
            for gradient, want in zip(gradients, wants, strict=True):
                assert (gradient is None) == (want is None)
                if gradient is not None and want is not None:
                    same(gradient, want)
    if any(a.of == "state" for a in spec.arguments):
        check_decoding(spec, package.eval(), plain.eval())


@torch.no_grad()
def check_decoding(spec: Spec, package: nn.Module, plain: nn.Module) -> None:
    arguments = double(inputs(spec, T=20))
    states: list[dict[str, Any]] = [{}, {}]
    for start, end in ((0, 9), (9, 10), (10, 20)):
        piece = cut(spec, arguments, start, end)
        wanted, found = (m(**piece, state=state) for m, state in zip((package, plain), states, strict=True))
        same(found, wanted)


@pytest.fixture(autouse=True, scope="module")
def _nothing_is_dropped() -> Any:
    """Experts of a plain file see their tokens in another order: they would draw other numbers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "dropout", lambda x, *_, **__: x)
        yield


@at_most(10)
@given(spec=specs())
def test_random_spec(spec: Spec) -> None:
    check_plain(spec)


@pytest.mark.parametrize(("role", "kind"), VARIED, ids=map(name, VARIED))
def test_variants_of_one_kind_share_a_file(role: str, kind: str) -> None:
    define: Document = {}
    for block in variants(role, kind):
        wider = define | {f"{'variant_' * 8}"[: LONGEST - 2] + f"{len(define):02}": block}
        if len(define) < 5 and try_load(model(list(wider), define=wider)) is not None:
            define = wider
    check_plain(load(model(list(define), define=define)))
