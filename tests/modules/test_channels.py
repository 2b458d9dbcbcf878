"""Further ids of each token by name: what they add, wherever tokens go, in every form of a model."""

import ast
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import archspec
from archspec.codegen.load import load_text
from archspec.language.names import bad_argument
from archspec.layers.arguments import INPUTS
from archspec.modules.model import eager

MIXER = {"kind": "attention", "n_heads": 2}
CHANNELS = {"languages": 5, "speakers": "2 * 3"}
DOCUMENT: dict[str, Any] = {
    "name": "channels",
    "d_model": 16,
    "vocab_size": 11,
    "max_seq_len": 32,
    "embedding": {"position": "learned", "token_types": 2, "channels": CHANNELS},
    "blocks": [{"mixer": MIXER}, {"mixer": {"kind": "mamba", "d_state": 4}}],
    "head": "lm",
}
T = 9


@cache
def spec() -> archspec.Spec:
    return archspec.load(DOCUMENT)


@cache
def model() -> nn.Module:
    return archspec.build(spec(), seed=0).double().eval()


def given(seed: int = 1) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    sizes = {"tokens": 11, "token_types": 2, "languages": 5, "speakers": 6}
    return {name: torch.randint(n, (2, T), generator=g) for name, n in sizes.items()}


def test_forward_takes_each_by_name_and_tables_have_their_rows() -> None:
    assert [a.name for a in spec().arguments] == ["tokens", "token_types", "languages", "speakers", "state"]
    shapes = {t.name: t.shape for t in archspec.count(spec()).tensors if "channels" in t.name}
    assert shapes == {
        "embedding.channels.languages.weight": (5, 16),
        "embedding.channels.speakers.weight": (6, 16),
    }
    assert archspec.loads(archspec.show(spec())) == spec()


@torch.no_grad()
def test_the_rows_are_added_and_are_the_first_ones_without_a_word() -> None:
    ids, embedding = given(), model().embedding
    x = embedding.token(ids["tokens"]) + embedding.token_type(ids["token_types"]) + embedding.position.table.weight[:T]
    for name in ("languages", "speakers"):
        x = x + embedding.channels[name](ids[name])
    own = {name: ids[name] for name in ("languages", "speakers")}
    found = embedding(ids["tokens"], token_types=ids["token_types"], channels=own)
    torch.testing.assert_close(found, x)
    zeros = torch.zeros_like(ids["tokens"])
    alone = {"tokens": ids["tokens"], "token_types": zeros}
    torch.testing.assert_close(model()(ids["tokens"]), model()(**alone, languages=zeros, speakers=zeros))
    assert (model()(**ids) - model()(ids["tokens"])).abs().max() > 1e-3


@pytest.mark.parametrize("form", ["eager", "plain", "fast"])
@torch.no_grad()
def test_every_form_gives_the_same(form: str) -> None:
    if form == "eager":
        other: Any = eager(spec().taking(*INPUTS))
    else:
        text = archspec.generate(spec().taking(*INPUTS), standalone=form)  # type: ignore[arg-type]
        other = load_text(text, f"channels_{form}").Model()
    other.double().eval().load_state_dict(model().state_dict())
    mask = torch.arange(T) < torch.tensor([[T], [5]])
    torch.testing.assert_close(other(**given(), mask=mask)[mask], model()(**given(), mask=mask)[mask])


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_they_move_with_their_tokens_when_rows_are_padded(side: str) -> None:
    ids, n = given(), 5
    span = slice(T - n, T) if side == "left" else slice(0, n)
    mask = torch.zeros(2, T, dtype=torch.bool)
    mask[:, span] = True
    alone = model()(**{name: x[:, span] for name, x in ids.items()})
    torch.testing.assert_close(model()(**ids, mask=mask)[:, span], alone)


@torch.no_grad()
def test_each_piece_of_a_decoded_text_has_its_own() -> None:
    ids, state = given(), archspec.new_state(model(), batch=2)
    pieces = [model()(**{name: x[:, a:b] for name, x in ids.items()}, state=state) for a, b in ((0, 4), (4, 5), (5, T))]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model()(**ids))


@torch.no_grad()
def test_packed_documents_have_theirs() -> None:
    ids = given()
    documents = (torch.arange(T) >= 4).long().expand(2, -1)
    alone = [model()(**{name: x[:, a:b] for name, x in ids.items()}) for a, b in ((0, 4), (4, T))]
    torch.testing.assert_close(model()(**ids, documents=documents), torch.cat(alone, dim=1))


def test_ids_without_a_row_or_of_another_shape_are_told_by_their_name() -> None:
    ids = given()
    for name, wrong, error, said in (
        ("languages", torch.full((2, T), 5), IndexError, "languages: expected ids from 0 to 4, found 5"),
        ("speakers", torch.zeros(1, T).long(), ValueError, r"speakers: expected the shape \(2, 9\)"),
        ("speakers", torch.zeros(2, T), TypeError, "speakers: expected whole numbers"),
    ):
        with pytest.raises(error, match=said):
            model()(**{**ids, name: wrong})


@torch.no_grad()
def test_each_of_several_stacks_has_its_own() -> None:
    encoder = {"mask": "bidirectional", "embedding": {"position": "learned", "channels": {"languages": 3}}}
    decoder = {"memory": "encoder", "embedding": {"channels": {"languages": 4, "styles": 2}}}
    stacks = {
        "encoder": {**encoder, "blocks": [{"mixer": MIXER}]},
        "decoder": {**decoder, "blocks": [{"mixer": {**MIXER, "position": "rope"}, "cross": MIXER}]},
    }
    sizes = {k: v for k, v in DOCUMENT.items() if k not in ("embedding", "blocks")}
    two = archspec.load({**sizes, "stacks": stacks})
    names = [a.name for a in two.arguments if a.of in ("languages", "styles")]
    assert names == ["encoder_languages", "decoder_languages", "decoder_styles"]
    ours = archspec.build(two, seed=0).double().eval()
    tokens = torch.randint(11, (2, T))
    g = torch.Generator().manual_seed(3)
    ids = dict(zip(names, (torch.randint(n, (2, T), generator=g) for n in (3, 4, 2)), strict=True))
    whole = ours(encoder_tokens=tokens, decoder_tokens=tokens, **ids)
    for name in names:
        others = {k: v for k, v in ids.items() if k != name}
        assert (ours(encoder_tokens=tokens, decoder_tokens=tokens, **others) - whole).abs().max() > 1e-3
    twin = eager(two.taking(*INPUTS)).double().eval()
    twin.load_state_dict(ours.state_dict())
    assert torch.equal(twin(encoder_tokens=tokens, decoder_tokens=tokens, **ids), whole)


def test_nothing_that_a_forward_calls_by_name_can_be_a_channel() -> None:
    attention = {**MIXER, "mask": "bidirectional", "window": 4}
    prefix = {**MIXER, "mask": "prefix", "position": "alibi"}
    gru = {"mixer": {"kind": "gru"}}
    for other, inputs in ((prefix, []), (prefix, ["mask", "positions"]), (MIXER, ["mask", "documents"])):
        blocks = [{"mixer": attention}, {"mixer": other}, gru]
        tree = ast.parse(archspec.generate(archspec.load({**DOCUMENT, "blocks": blocks, "inputs": inputs})))
        (model,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Model"]
        (forward,) = [n for n in model.body if isinstance(n, ast.FunctionDef) and n.name == "forward"]
        names = {n.id for n in ast.walk(forward) if isinstance(n, ast.Name)} - {"Tensor", "State", *CHANNELS}
        assert {"tokens", "block", "x"} < names
        assert not {name for name in names if not bad_argument(name)}


def test_a_digest_is_what_it_was_where_there_are_none() -> None:
    plain = archspec.load({**DOCUMENT, "embedding": {"position": "learned", "channels": None}})
    assert "channels" not in repr(plain.main.embedding)
    other = archspec.load(DOCUMENT, set=["embedding.channels.languages=6"])
    assert len({plain.digest, spec().digest, other.digest}) == 3
