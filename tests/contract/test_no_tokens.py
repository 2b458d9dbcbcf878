"""No tokens at all (T = 0): every model gives an output of none, or says that its head wants one.

A server asks for it between requests, a filter that lets nothing pass in training: gradients and losses are then zero,
and a state goes on as if the call had not been.
"""

from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from contract_models import models
from contract_specs import Document, cases, double, example, host, inputs, name, redraw, run
from torch import Tensor, nn

from archspec.codegen import generate
from archspec.codegen.load import build, load_text
from archspec.language.load import load
from archspec.language.model import Spec
from archspec.layers.arguments import INPUTS
from archspec.modules.model import eager

ROLES = ("mixer", "ffn", "position", "absolute_position", "rope_scaling", "embedding", "head")
WHOLE = ("hybrid", "encoder_decoder", "three_stacks", "shared", "prefix", "t5_layers", "signal", "wirings")
RECURRENT = {"lstm", "gru", "rnn"}


@cache
def documents() -> dict[str, Document]:
    found = {name(case): host(case[0], example(*case))[0] for case in cases(*ROLES)}
    found |= {key: models()[key] for key in WHOLE}
    return {key: document for key, document in found.items() if load(document).main.embedding.n_tokens == "T"}


def chosen() -> list[tuple[str, str]]:
    """Eager models of all, generated and plain ones of the first example of each kind.

    Plain files check nothing: the first of no tokens is PyTorch's error, and their mean its NaN.
    """
    first = [key for key in documents() if key.startswith(("mixer", "ffn")) and key.endswith("-0")]
    others = [*first, "ffn-moe-6", "rope_scaling-dynamic-0", "rope_scaling-longrope-0", "position-t5-0"]
    texts = [(key, form) for key in others for form in ("generated", "plain")]
    return [*((key, "eager") for key in documents()), *texts, ("head-regression-0", "generated")]


@cache
def made(document: str, form: str) -> tuple[Spec, nn.Module]:
    """The spec and a model of it in float64; a plain one takes a mask at most."""
    spec = load(documents()[document]).taking(*(INPUTS if form != "plain" else ("mask",)))
    if form == "eager":
        model: nn.Module = eager(spec)
    elif form == "generated":
        model = build(spec)
    else:
        model = load_text(generate(spec, standalone="plain"), f"no_tokens_{spec.digest}").Model()
    return spec, redraw(model).double().train()


class Case:
    """One model, and what no tokens give."""

    def __init__(self, document: str, form: str):
        self.form = form
        self.spec, self.model = made(document, form)
        kinds = {part.kind for stack in self.spec.stacks for part in stack.parts}
        self.refused: tuple[type[Exception], str] | None = None
        if self.pools:
            self.refused = ValueError, r"there are no tokens \(T = 0\)"
        elif form == "plain" and kinds & RECURRENT:  # plain files check nothing; PyTorch says so itself
            self.refused = RuntimeError, "Expected sequence length to be larger than 0 in RNN"

    @property
    def pools(self) -> bool:
        """Whether the head makes one vector of all tokens."""
        return getattr(self.spec.head, "pool", "none") != "none"

    def none(self, optional: bool = False) -> dict[str, Any]:
        given = double(inputs(self.spec, optional, T=0))
        lengths = {a.name for a in self.spec.arguments if a.of == "prefix_len"}
        return {k: 0 if k in lengths else v for k, v in given.items()}

    def tokens(self, T: int) -> dict[str, Any]:
        return double(inputs(self.spec, T=T))

    def part(self, given: dict[str, Any], start: int, end: int) -> dict[str, Any]:
        """Tokens of the decoding stack, and all of the others."""
        own = {a.name for a in self.spec.arguments if a.stack == self.spec.main.name}
        return {k: v[:, start:end] if k in own else v for k, v in given.items()}


@pytest.fixture(params=chosen(), ids="-".join, scope="module")
def case(request: pytest.FixtureRequest) -> Case:
    return Case(*request.param)


def check_nothing(case: Case, given: dict[str, Any]) -> None:
    """The output has no tokens; the losses (but of a plain file, a mean of nothing) and all gradients are zero."""
    if case.refused is not None:
        with pytest.raises(case.refused[0], match=case.refused[1]):
            run(case.model, case.spec, given)
        return
    y, loss, _ = run(case.model, case.spec, given)
    one = run(case.model, case.spec, case.tokens(1))[0]
    assert y.shape == (one.shape[0], 0, *one.shape[2:])
    case.model.zero_grad()
    (y.sum() if case.form == "plain" else y.sum() + loss).backward()
    assert case.form == "plain" or loss == 0
    assert all(p.grad is None or not p.grad.any() for p in case.model.parameters())


def test_no_tokens_give_none(case: Case) -> None:
    check_nothing(case, case.none())


def test_no_tokens_with_all_that_goes_with_them_give_none(case: Case) -> None:
    if any(stack.embedding.n_tokens != "T" for stack in case.spec.stacks):
        pytest.skip("an image is whole")
    if case.refused is not None and case.refused[0] is RuntimeError:
        pytest.skip("over no real tokens nothing of PyTorch's runs")
    check_nothing(case, case.none(optional=True))


def decodes(case: Case) -> bool:
    return any(a.of == "state" for a in case.spec.arguments)


def outputs(case: Case, *cuts: int) -> tuple[Tensor, dict[str, Any]]:
    """What the tokens between the cuts give in calls of their own, and the state after them."""
    given, state = case.tokens(7), {}
    with torch.no_grad():
        found = [case.model(**case.part(given, a, b), state=state) for a, b in pairwise(cuts)]
    return torch.cat(found, dim=1), state


def test_a_call_without_tokens_leaves_the_state_as_it_was(case: Case) -> None:
    if not decodes(case):
        pytest.skip("it does not decode")
    case.model.eval()
    if case.refused is not None:
        with pytest.raises(case.refused[0], match=case.refused[1]):
            outputs(case, 0, 0)
        return
    plainly, with_nothing = (outputs(case, *cuts) for cuts in ((0, 4, 5, 7), (0, 0, 4, 4, 5, 5, 5, 7)))
    assert torch.allclose(plainly[0], with_nothing[0], rtol=0, atol=1e-11)
    assert same(plainly[1], with_nothing[1])


def same(a: Any, b: Any) -> bool:
    """Whether two states hold the same; room that no token has taken is not compared."""
    if isinstance(a, dict):
        spans = {key.removesuffix("_span"): span for key, span in a.items() if key.endswith("_span")}
        filled = {k: (a[k][:, :, slice(*spans[k])], b[k][:, :, slice(*b[f"{k}_span"])]) for k in spans}
        return a.keys() == b.keys() and all(same(*filled.get(k, (a[k], b[k]))) for k in a if not k.endswith("_span"))
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.allclose(a, b, rtol=0, atol=1e-11) if isinstance(a, Tensor) else bool(a == b)


@pytest.mark.parametrize("document", [key for key in documents() if key.startswith("ffn-moe")])
@pytest.mark.parametrize("packed", [False, True])
def test_padding_alone_has_no_losses(document: str, packed: bool) -> None:
    spec, model = made(document, "eager")
    x = torch.randint(11, (2, 6), generator=torch.Generator().manual_seed(0))
    given: dict[str, Any] = {"tokens": x, "mask": torch.zeros(2, 6, dtype=torch.bool)}
    if packed:
        given["documents"] = torch.tensor([[0, 0, 0, 1, 1, 1], [2] * 6])
    y, loss, aux = run(model.train(), spec, given)
    assert loss == 0
    assert y.isfinite().all()
    assert all(value.isfinite().all() for value in aux.values())
    model.zero_grad()
    (y.sum() + loss).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
