"""Padded batches and packed documents give what each sequence gives by itself: every kind, and models of many kinds."""

from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from contract_models import models
from contract_specs import cases, example, host, name
from padded_batches import (
    LENGTHS,
    Given,
    alone,
    far,
    far_gradients,
    in_calls,
    inputs,
    name_of,
    sequences,
    small,
)
from torch import Tensor, nn

import archspec
from archspec.language.model import Spec
from archspec.layers.arguments import INPUTS
from archspec.modules.model import eager

MODELS = models()
TOLERANCE = 1e-9
MORE = 3  # tokens that follow one by one
Case = tuple[str, str, int] | str
SINGLE = [  # experts that choose among the whole batch have other choices when a sequence is alone
    case
    for case in cases("mixer", "ffn", "position", "rope_scaling", "absolute_position", "embedding", "head")
    if example(*case).get("choice_over") != "batch"
]
CASES: list[Case] = [*SINGLE, *MODELS]


@cache
def spec_of(case: Case) -> Spec:
    """A model around an example of a kind, or one of the whole models, which takes all inputs that it can."""
    document = MODELS[case] if isinstance(case, str) else host(case[0], example(*case))[0]
    return archspec.load(document).taking(*INPUTS)


@cache
def model_of(case: Case) -> nn.Module:
    """It, in float64."""
    torch.manual_seed(0)
    return small(eager(spec_of(case)))


def title(case: Case) -> str:
    return case if isinstance(case, str) else name(case)


@pytest.fixture(params=CASES, ids=title)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param  # type: ignore[no-any-return]


def rows_of(spec: Spec, output: Tensor, at: list[list[int]], T: int) -> list[Tensor]:
    """What a batch gives for the real tokens of each sequence, or for the sequence."""
    if spec.head.pools:
        return [output[i : i + 1] for i in range(len(at))]
    return [output[i : i + 1, columns] for i, columns in enumerate(at)]


def takes_mask(spec: Spec) -> bool:
    return any(stack.embedding.n_tokens == "T" for stack in spec.stacks)


@pytest.mark.parametrize("side", ["left", "right", "both", "holes"])
def test_padding_changes_nothing(case: Case, side: str) -> None:
    spec, model = spec_of(case), model_of(case)
    if not takes_mask(spec):
        pytest.skip("its rows are all of one length")
    given = sequences(spec)
    batch, at = inputs(spec, side, given)
    if side == "holes" and any(not s.aligns and any(p.contiguous for p in s.parts) for s in spec.stacks):
        with pytest.raises(ValueError, match="at the ends of a row"):
            model(**batch)
        return
    together = rows_of(spec, model(**batch), at, max(LENGTHS))
    apart = [model(**alone(spec, given, i)) for i in range(len(LENGTHS))]
    for a, b in zip(together, apart, strict=True):
        assert far(a, b) < TOLERANCE
    assert far_gradients(model, together, apart) < TOLERANCE


def decodes(spec: Spec) -> bool:
    return spec.main.has_state and spec.causal and not spec.head.pools


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_pieces_and_tokens_after_a_padded_prefill(case: Case, side: str) -> None:
    spec, model = spec_of(case), model_of(case)
    if not decodes(spec):
        pytest.skip("it does not decode")
    given, main = sequences(spec, more=MORE), spec.main
    batch, at = inputs(spec, side, given)
    tokens, mask = (name_of(spec, main, of) or of for of in (main.embedding.reads, "mask"))
    others = {k: v for k, v in batch.items() if k not in (tokens, mask)}
    later = {k: v for k, v in others.items() if not k.endswith("_mask")}  # which the state remembers
    for cuts in ((0, 7), (0, 3, 4, 7)):
        spans = list(pairwise(cuts))
        counts = [[sum(a <= c < b for c in columns) for a, b in spans] + [1] * MORE for columns in at]
        apart = [in_calls(spec, model, alone(spec, given, i), tokens, counts[i]) for i in range(len(at))]
        state: dict[str, Any] = {}
        for call, (a, b) in enumerate(spans):
            piece = {tokens: batch[tokens][:, a:b], mask: batch[mask][:, a:b]}
            y = model(**(later if call else others), **piece, state=state)
            for i, columns in enumerate(at):
                assert far(y[i, [c - a for c in columns if a <= c < b]], apart[i][call][0]) < TOLERANCE
        for step in range(MORE):
            new = torch.cat([given[main.name][i][:, len(c) + step : len(c) + step + 1] for i, c in enumerate(at)])
            y = model(**later, **{tokens: new}, state=state)
            for i in range(len(at)):
                assert far(y[i], apart[i][len(spans) + step][0]) < TOLERANCE


def packed(rows: list[Tensor], pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """All rows in one, and a second row with the first and the last, with padding behind and between."""
    filler = rows[0][:, :1].expand(1, pad, *rows[0].shape[2:])
    first = torch.cat(rows, dim=1)
    second = torch.cat([rows[-1], filler, rows[0]], dim=1)
    rest = first.shape[1] - second.shape[1]
    second = torch.cat([second, rows[0][:, :1].expand(1, rest, *rows[0].shape[2:])], dim=1)
    numbers = [[i for i, r in enumerate(rows) for _ in range(r.shape[1])]]
    numbers.append([9] * rows[-1].shape[1] + [0] * pad + [4] * rows[0].shape[1] + [4] * rest)
    mask = torch.ones(2, first.shape[1], dtype=torch.bool)
    a, b = rows[-1].shape[1], rows[0].shape[1]
    mask[1, a : a + pad] = mask[1, a + pad + b :] = False
    return torch.cat([first, second]), torch.tensor(numbers), mask


def test_documents_of_several_stacks_find_their_own(case: Case) -> None:
    spec, model = spec_of(case), model_of(case)
    if len(spec.stacks) == 1 or name_of(spec, spec.main, "documents") is None:
        pytest.skip("it is one stack, or takes no documents")
    given, arguments = sequences(spec), Given()
    for stack in spec.stacks:
        rows = given[stack.name]
        arguments[name_of(spec, stack, stack.embedding.reads) or ""] = torch.cat(rows, dim=1)
        numbers = [[7 - i for i, row in enumerate(rows) for _ in range(row.shape[1])]]
        arguments[name_of(spec, stack, "documents") or ""] = torch.tensor(numbers)
    apart = [model(**alone(spec, given, i)) for i in range(len(LENGTHS))]
    together = model(**arguments)
    assert far(together, torch.cat(apart, dim=1)) < TOLERANCE
    assert far_gradients(model, [together], apart) < TOLERANCE
    del arguments[name_of(spec, spec.main, "documents") or ""]
    with pytest.raises(ValueError, match="documents are given for one of two stacks"):
        model(**arguments)


def test_packed_documents_do_not_see_one_another(case: Case) -> None:
    spec, model = spec_of(case), model_of(case)
    if len(spec.stacks) > 1 or name_of(spec, spec.main, "documents") is None:
        pytest.skip("it is several stacks, or takes no documents")
    given = sequences(spec)[spec.main.name]
    batch, documents, mask = packed(given, 1)
    arguments: Given = {spec.main.embedding.reads: batch, "documents": documents, "mask": mask}
    if not spec.main.aligns and any(p.contiguous for p in spec.main.parts):
        del arguments["mask"]
        arguments = {k: v[:1] for k, v in arguments.items()}
    output = model(**arguments)
    apart = [model(row) for row in given]
    ends = torch.tensor([row.shape[1] for row in given]).cumsum(0).tolist()
    together = [output[:1, end - row.shape[1] : end] for row, end in zip(given, ends, strict=True)]
    for a, b in zip(together, apart, strict=True):
        assert far(a, b) < TOLERANCE
    if len(output) > 1:
        n, m = given[-1].shape[1], given[0].shape[1]
        assert far(output[1:, :n], apart[-1]) < TOLERANCE
        assert far(output[1:, n + 1 : n + 1 + m], apart[0]) < TOLERANCE
    assert far_gradients(model, together, apart) < TOLERANCE


def takes_rows(spec: Spec) -> bool:
    """Whether its documents are laid out as rows of their own, which are of different lengths."""
    takes = len(spec.stacks) == 1 and name_of(spec, spec.main, "documents") is not None
    return takes and any(map(spec.main.by_rows, spec.main.parts))


@pytest.mark.parametrize("form", ["eager", "generated"])
@torch.no_grad()
def test_documents_in_a_model_that_takes_no_mask(case: Case, form: str) -> None:
    spec = spec_of(case).taking("documents")
    if not takes_rows(spec):
        pytest.skip("it takes no documents, or its layers are told where they end")
    torch.manual_seed(0)
    model = small(eager(spec) if form == "eager" else archspec.build(spec))
    given = sequences(spec)[spec.main.name]
    documents = torch.cat([torch.full(row.shape[:2], i) for i, row in enumerate(given)], dim=1)
    together = model(torch.cat(given, dim=1), documents=documents)
    assert far(together, torch.cat([model(row) for row in given], dim=1)) < TOLERANCE
