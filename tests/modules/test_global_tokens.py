"""Tokens that see all and are seen by all, whatever the window, against the dense definition in float64."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import archspec
from archspec.codegen.load import load_text
from archspec.layers.arguments import INPUTS
from archspec.modules.model import eager

T, WINDOW = 21, 4
MIXER: dict[str, Any] = {"kind": "attention", "n_heads": 2, "window": WINDOW, "global_tokens": True}
DOCUMENT: dict[str, Any] = {
    "name": "global_tokens",
    "d_model": 16,
    "vocab_size": 11,
    "max_seq_len": 48,
    "mask": "bidirectional",
    "embedding": {"position": "learned"},
    "blocks": [{"mixer": MIXER}],
    "head": "none",
}


@cache
def spec() -> archspec.Spec:
    return archspec.load(DOCUMENT)


@cache
def model() -> nn.Module:
    return archspec.build(spec(), seed=0).double().eval()


def given() -> tuple[Tensor, Tensor]:
    """Tokens, and which of them are global: a few in one row, none in another."""
    tokens = torch.randint(11, (3, T), generator=torch.Generator().manual_seed(1))
    flags = torch.zeros(3, T, dtype=torch.bool)
    flags[0, [0, 13]] = flags[1, 7] = True
    return tokens, flags


def dense(m: Any, x: Tensor, flags: Tensor, real: Tensor, documents: Tensor) -> Tensor:
    """The attention, pair by pair: near, or either of them global; and both real and of one document."""
    i, j = torch.arange(T).unsqueeze(1), torch.arange(T)
    sees = ((i - j).abs() < WINDOW) | flags.unsqueeze(2) | flags.unsqueeze(1)
    sees &= real.unsqueeze(1) & (documents.unsqueeze(2) == documents.unsqueeze(1))
    q, k, v = (layer(x).unflatten(-1, (2, 8)).transpose(1, 2) for layer in (m.q_proj, m.k_proj, m.v_proj))
    scores = (q @ k.mT / 8**0.5).masked_fill(~sees.unsqueeze(1), -1e30)  # a row of padding sees nothing
    return m.o_proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_is_the_dense_definition_with_its_gradients(padded: bool, packed: bool) -> None:
    mixer, (_, flags) = model().blocks[0].mixer, given()
    x = torch.randn(3, T, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    real = torch.arange(T) < torch.tensor([[T], [15], [T]]) if padded else torch.ones(3, T, dtype=torch.bool)
    documents = (torch.arange(T) >= 10).long().expand(3, -1) if packed else torch.zeros(3, T).long()
    more = ({"mask": real} if padded else {}) | ({"documents": documents} if packed else {})
    found, wanted = mixer(x, global_mask=flags, **more), dense(mixer, x, flags, real, documents)
    torch.testing.assert_close(found[real], wanted[real])
    gradients = [torch.autograd.grad(y[real].square().sum(), x)[0] for y in (found, wanted)]
    torch.testing.assert_close(*gradients)
    assert (mixer(x, **more) - found)[real].abs().max() > 1e-3


@pytest.mark.parametrize("form", ["eager", "plain", "fast"])
@torch.no_grad()
def test_every_form_gives_the_same(form: str) -> None:
    taking = spec().taking(*INPUTS)
    if form == "eager":
        other: Any = eager(taking)
    else:
        text = archspec.generate(taking, standalone=form)  # type: ignore[arg-type]
        other = load_text(text, f"global_{form}").Model()
    other.double().eval().load_state_dict(model().state_dict())
    tokens, flags = given()
    torch.testing.assert_close(other(tokens, global_mask=flags), model()(tokens, global_mask=flags))
    torch.testing.assert_close(other(tokens), model()(tokens))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("moved", [False, True], ids=["as_they_are", "moved"])
@torch.no_grad()
def test_they_stand_where_their_tokens_stand_in_padded_rows(side: str, moved: bool) -> None:
    """A recurrence beside the attention has the rows moved."""
    others = [{"mixer": {"kind": "gru"}}] if moved else []
    built = archspec.build(archspec.load({**DOCUMENT, "blocks": [*DOCUMENT["blocks"], *others]}), seed=0).double()
    (tokens, flags), n = given(), 17
    span = slice(T - n, T) if side == "left" else slice(0, n)
    mask = torch.zeros(3, T, dtype=torch.bool)
    mask[:, span] = True
    alone = built(tokens[:, span], global_mask=flags[:, span])
    torch.testing.assert_close(built(tokens, mask=mask, global_mask=flags)[:, span], alone)


def test_what_is_no_mask_of_tokens_is_refused_by_its_name() -> None:
    tokens, flags = given()
    for wrong, error, said in (
        (flags[:, :-1], ValueError, "global_mask"),
        (flags.float(), TypeError, "global_mask is torch.float32, expected torch.bool with True for global tokens"),
        (flags.long() * 2, ValueError, "global_mask holds other numbers than 0 and 1"),
    ):
        with pytest.raises(error, match=said):
            model()(tokens, global_mask=wrong)
    torch.testing.assert_close(model()(tokens, global_mask=flags.long()), model()(tokens, global_mask=flags))


def test_where_documents_run_in_rows_of_their_own_they_are_not_packed() -> None:
    dynamic = {"kind": "rope", "scaling": {"kind": "dynamic", "factor": 2.0, "original_max_seq_len": 8}}
    blocks = [{"mixer": {**MIXER, "position": dynamic}}]
    with pytest.raises(archspec.SpecError, match="documents cannot be given: global tokens belong to a whole row"):
        archspec.load({**DOCUMENT, "blocks": blocks, "inputs": ["documents"]})
    names = [a.name for a in archspec.load({**DOCUMENT, "blocks": blocks}).taking(*INPUTS).arguments]
    assert "global_mask" in names
    assert "documents" not in names


def test_costs_count_none_of_them_and_say_so() -> None:
    local = archspec.load(DOCUMENT, set=["blocks[0].mixer.global_tokens=null"])
    ours, theirs = (archspec.cost(s, batch=2, seq=T) for s in (spec(), local))
    assert (ours.flops, ours.flops_needed) == (theirs.flops, theirs.flops_needed)
    assert {"flops_needed", "saved_bytes"} <= {*ours.estimates}
    assert "flops_needed" not in theirs.estimates
    assert len({spec().digest, local.digest}) == 2
    assert "global_tokens" not in repr(local.main)
    assert archspec.loads(archspec.show(spec())) == spec()
