"""What a model may be given beside its input: positions, prefixes, documents, masks; and what it refuses."""

from functools import cache
from typing import Any

import pytest
import torch
from contract_models import models
from contract_specs import Document, one_block
from padded_batches import far, inputs, sequences, small
from torch import Tensor, nn

import archspec
from archspec.codegen.load import load_text
from archspec.language.model import Spec
from archspec.layers.arguments import INPUTS
from archspec.modules.model import eager

ROPE = {"kind": "attention", "n_heads": 2, "position": "rope"}
LEARNED = {"kind": "token", "position": "learned"}
RELATIVE = {
    "alibi": {"kind": "attention", "n_heads": 2, "position": "alibi"},
    "alibi_both": {"kind": "attention", "n_heads": 2, "position": "alibi", "mask": "bidirectional"},
    "alibi_local": {"kind": "attention", "n_heads": 2, "position": "alibi", "window": 3},
    "t5": {"kind": "attention", "n_heads": 2, "position": {"kind": "t5", "n_buckets": 8, "max_distance": 16}},
    "t5_own": {"kind": "attention", "n_heads": 2,
               "position": {"kind": "t5", "n_buckets": 8, "max_distance": 16, "shared": False}},
}  # fmt: skip
KNOWING: dict[str, Document] = {
    "rope": one_block({"mixer": ROPE}),
    "learned": one_block({"mixer": {"kind": "lstm"}}, embedding=LEARNED),
    "sinusoidal": one_block({"mixer": {"kind": "attention", "n_heads": 2}},
                            embedding={"kind": "token", "position": {"kind": "sinusoidal", "offset": 2}}),
    "mla": one_block({"mixer": {"kind": "mla", "n_heads": 2, "kv_lora_rank": 8, "qk_nope_head_dim": 6,
                                "qk_rope_head_dim": 4, "position": "rope"}}),
    **{name: one_block({"repeat": 2, "mixer": mixer}) for name, mixer in RELATIVE.items()},
}  # fmt: skip


@cache
def made(name: str) -> tuple[Spec, nn.Module]:
    """A model that takes all inputs that it can, from its generated text, in float64."""
    document = KNOWING[name] if name in KNOWING else models()[name]
    torch.manual_seed(0)
    spec = archspec.load(document)
    return spec, small(archspec.build(spec))


def tokens(T: int = 7, B: int = 2) -> Tensor:
    return torch.randint(11, (B, T), generator=torch.Generator().manual_seed(3))


# Positions


@pytest.mark.parametrize("name", KNOWING)
def test_positions_from_zero_are_those_that_are_counted(name: str) -> None:
    model, x = made(name)[1], tokens()
    assert far(model(x, positions=torch.arange(7).expand(2, 7)), model(x)) < 1e-9


@pytest.mark.parametrize("name", [n for n in KNOWING if n not in ("learned", "sinusoidal")])
def test_an_offset_changes_nothing_where_distances_matter(name: str) -> None:
    model, x = made(name)[1], tokens()
    offset = torch.arange(7) + torch.tensor([[5], [0]])
    assert far(model(x, positions=offset), model(x)) < (1e-5 if name in ("rope", "mla") else 1e-9)


@pytest.mark.parametrize("name", KNOWING)
def test_positions_apart_are_felt(name: str) -> None:
    model, x = made(name)[1], tokens()
    assert far(model(x, positions=2 * torch.arange(7).expand(2, 7)), model(x)) > 1e-6


@pytest.mark.parametrize("name", [n for n in KNOWING if n not in ("learned", "t5", "t5_own")])
def test_fractions_are_positions(name: str) -> None:
    model, x = made(name)[1], tokens(T=6)
    assert far(model(x, positions=torch.arange(6.0).expand(2, 6)), model(x)) < 1e-9
    assert far(model(x, positions=torch.arange(6).expand(2, 6) / 2), model(x)) > 1e-6


@pytest.mark.parametrize("name", KNOWING)
@torch.no_grad()
def test_positions_go_on_from_call_to_call(name: str) -> None:
    spec, model = made(name)
    if not spec.main.has_state:
        pytest.skip("it does not decode")
    x, where = tokens(), torch.tensor([[0, 2, 3, 7, 8, 9, 12], [1, 2, 3, 4, 5, 6, 7]])
    whole = model(x, positions=where)
    state: dict[str, Any] = {}
    parts = [model(x[:, a:b], positions=where[:, a:b], state=state) for a, b in ((0, 3), (3, 4), (4, 7))]
    assert far(torch.cat(parts, dim=1), whole) < 1e-9
    with pytest.raises(ValueError, match="given positions; give these theirs too"):
        model(x[:, :1], state=state)
    state = {}
    model(x, state=state)
    with pytest.raises(ValueError, match="given no positions; give these none either"):
        model(x[:, :1], positions=where[:, :1], state=state)


@pytest.mark.parametrize("name", KNOWING)
@torch.no_grad()
def test_positions_of_padded_rows(name: str) -> None:
    spec, model = made(name)
    x, where = tokens(T=5), torch.tensor([[3, 5, 6, 7, 10], [0, 1, 2, 4, 5]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]], dtype=torch.bool)
    y = model(x, positions=where, mask=mask)
    assert far(y[0, 2:], model(x[:1, 2:], positions=where[:1, 2:])[0]) < 1e-9
    if spec.main.has_state:
        state: dict[str, Any] = {}
        first = {"positions": where[:, :3], "mask": mask[:, :3]}
        model(x[:, :3], **first, state=state)
        later = torch.cat([model(x[:, t : t + 1], positions=where[:, t : t + 1], state=state) for t in (3, 4)], dim=1)
        assert far(later, y[:, 3:]) < 1e-9


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"positions": torch.arange(7)}, ValueError, "positions has shape (7,), expected (2, 7)"),
        ({"mask": torch.ones(2, 6, dtype=torch.bool)}, ValueError, "mask has shape (2, 6), expected (2, 7)"),
        ({"mask": torch.zeros(2, 7)}, TypeError, "mask is torch.float32, expected torch.bool"),
        ({"mask": torch.full((2, 7), -10000)}, ValueError, "mask holds other numbers than 0 and 1"),
        ({"positions": torch.zeros(2, 7).bool()}, TypeError, "positions are torch.bool, expected numbers"),
        ({"documents": torch.zeros(2, 7)}, TypeError, "documents are torch.float32, expected whole numbers"),
        ({"documents": torch.zeros(2, 6, dtype=torch.long)}, ValueError, "documents has shape (2, 6), expected (2, 7)"),
        ({"documents": torch.tensor([0, 3, 7])}, ValueError, "in a batch of one row"),
        ({"documents": torch.zeros(2, 7, dtype=torch.long), "state": {}}, ValueError, "a state goes on with one"),
        (
            {"positions": torch.full((2, 7), 40)},
            IndexError,
            "positions 40 to 40, but there are learned positions for 0 to 31",
        ),
        ({"positions": torch.zeros(2, 7)}, TypeError, "learned positions are whole numbers"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], error: type[Exception], said: str) -> None:
    import re

    model = made("learned")[1]
    with pytest.raises(error, match=re.escape(said)):
        model(tokens(), **given)
    if "state" in given:
        assert given["state"] == {}


LONG = {"kind": "longrope", "short_factor": [1.0] * 4, "long_factor": [1.5, 2.0, 3.0, 4.0], "original_max_seq_len": 4}
FOLLOWING = {
    name: one_block({"mixer": {**ROPE, "position": {"kind": "rope", "scaling": scaling}}})
    for name, scaling in {
        "dynamic": {"kind": "dynamic", "factor": 2.0, "original_max_seq_len": 4},
        "longrope": LONG,
    }.items()
}


@pytest.mark.parametrize("name", FOLLOWING)
def test_frequencies_follow_the_length_of_each_row_and_document(name: str) -> None:
    model = small(archspec.build(archspec.load(FOLLOWING[name])))
    x, where = tokens(T=6, B=1), torch.tensor([[0, 1, 2, 3, 7, 9]])
    packed = model(x, documents=torch.tensor([[0, 0, 0, 1, 1, 1]]), positions=where)
    assert far(packed[:, :3], model(x[:, :3], positions=where[:, :3])) < 1e-9
    assert far(packed[:, 3:], model(x[:, 3:], positions=where[:, 3:])) < 1e-9
    beyond = torch.tensor([[0, 1, 2, 100, 100, 100]])
    mask = torch.tensor([[1, 1, 1, 0, 0, 0]], dtype=torch.bool)
    assert far(model(x, positions=beyond, mask=mask)[:, :3], model(x[:, :3])) < 1e-9


@pytest.mark.parametrize("name", ["rope", "alibi_both", "learned"])
def test_padding_neither_joins_nor_splits_documents(name: str) -> None:
    model, x = made(name)[1], tokens(T=6, B=1)
    if name == "alibi_both":
        model = small(archspec.build(archspec.load(one_block({"mixer": {**ROPE, "mask": "bidirectional"}}))))
    apart = torch.tensor([[1, 1, 0, 0, 1, 1]], dtype=torch.bool)
    y = model(x, mask=apart, documents=torch.tensor([[5, 5, 6, 6, 5, 5]]))
    assert far(y[:, 4:], model(x[:, 4:])) < 1e-9
    hole = torch.tensor([[1, 1, 0, 1, 1, 1]], dtype=torch.bool)
    y = model(x, mask=hole, documents=torch.tensor([[5] * 6]))
    assert far(y[:, hole[0]], model(x[:, hole[0]])) < 1e-9


def test_documents_of_padding_alone() -> None:
    for name in ("rope", "hybrid"):
        y = made(name)[1](tokens(), documents=torch.zeros(2, 7, dtype=torch.long), mask=torch.zeros(2, 7).bool())
        assert y.isfinite().all()


def test_a_mask_of_zeros_and_ones_is_a_mask() -> None:
    model, x = made("rope")[1], tokens()
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0]])
    assert torch.equal(model(x, mask=mask), model(x, mask=mask.bool()))


# Documents


def test_cumulative_lengths_are_documents() -> None:
    model, x = made("rope")[1], tokens(B=1)
    numbers = torch.tensor([[4, 4, 4, 9, 9, 9, 9]])
    assert torch.equal(model(x, documents=torch.tensor([0, 3, 7])), model(x, documents=numbers))
    assert torch.equal(model(x, documents=torch.tensor([0, 3, 7], dtype=torch.int32)), model(x, documents=numbers))
    with pytest.raises(ValueError, match="must rise from 0 to T = 7"):
        model(x, documents=torch.tensor([0, 3, 6]))


def test_one_number_twice_is_two_documents_where_another_stands_between() -> None:
    model, x = made("rope")[1], tokens(B=1)
    assert torch.equal(
        model(x, documents=torch.tensor([[1, 1, 2, 2, 1, 1, 1]])),
        model(x, documents=torch.tensor([[1, 1, 2, 2, 3, 3, 3]])),
    )


# Prefixes


def prefixed() -> nn.Module:
    return made("prefix")[1]


@pytest.mark.parametrize("given", [2.5, True, torch.tensor([1.0, 2.0])])
def test_a_prefix_is_a_whole_number(given: object) -> None:
    with pytest.raises(TypeError, match="expected a whole number of tokens"):
        prefixed()(tokens(), prefix_len=given)


def test_a_prefix_is_not_negative() -> None:
    with pytest.raises(ValueError, match="prefix_len is -1, expected 0 or more"):
        prefixed()(tokens(), prefix_len=-1)


@torch.no_grad()
def test_the_first_call_holds_the_whole_prefix() -> None:
    model, x = prefixed(), tokens()
    state: dict[str, Any] = {}
    with pytest.raises(ValueError, match="prefix_len is 5, but the first call of this state held 3"):
        model(x[:, :3], prefix_len=5, state=state)
    assert state == {}
    whole = model(x, prefix_len=5)
    pieces = [model(x[:, :5], prefix_len=5, state=state), model(x[:, 5:], prefix_len=5, state=state)]
    assert far(torch.cat(pieces, dim=1), whole) < 1e-9
    with pytest.raises(ValueError, match="prefix_len is 6, but the first call"):
        model(x[:, :1], prefix_len=6, state=state)


@torch.no_grad()
def test_a_prefix_of_padded_rows_begins_at_their_first_token() -> None:
    model, x = prefixed(), tokens()
    for mask in ([[0, 0, 1, 1, 1, 1, 1], [1] * 7], [[1, 1, 1, 1, 1, 0, 0], [1] * 7]):
        real = torch.tensor(mask, dtype=torch.bool)
        y = model(x, prefix_len=torch.tensor([3, 2]), mask=real)
        assert far(y[0, real[0]], model(x[:1, real[0]], prefix_len=3)[0]) < 1e-9
        assert far(y[1:], model(x[1:], prefix_len=2)) < 1e-9


# Every form of a model


@pytest.mark.parametrize("name", ["hybrid", "encoder_decoder", "bert", "t5_layers", "prefix", *RELATIVE, "learned"])
@pytest.mark.parametrize("form", [False, "plain", "fast"])
def test_generated_files_take_what_the_interpreted_model_takes(name: str, form: Any) -> None:
    spec, _ = made(name)
    spec = spec.taking(*INPUTS)
    torch.manual_seed(0)
    model = small(eager(spec))
    text = archspec.generate(spec, standalone=form)
    ours = load_text(text, f"{name}_{form}").Model().double().eval()
    ours.load_state_dict(model.state_dict())
    batch, at = inputs(spec, "left", sequences(spec))
    for given in _ways(spec, batch):
        a, b = ours(**given), model(**given)
        for i, columns in enumerate(at):
            assert far(a[i, columns], b[i, columns]) < 1e-9


def _ways(spec: Spec, batch: dict[str, Any]) -> list[dict[str, Any]]:
    """Arguments with a mask, and where they are taken with positions and documents."""
    found = [batch]
    names = {a.name for a in spec.arguments}
    if "positions" in names:
        T = batch["tokens"].shape[1]
        found.append({**batch, "positions": 2 * torch.arange(T).expand(len(batch["tokens"]), T)})
    if "documents" in names:
        found.append({**batch, "documents": torch.tensor([[0, 0, 0, 0, 1, 1, 1]] * 3)})
    return found


@pytest.mark.parametrize("name", ["hybrid", "rope"])
def test_a_file_has_no_word_of_what_its_model_is_not_given(name: str) -> None:
    spec, _ = made(name)
    for form in (False, "plain"):
        text = archspec.generate(spec, standalone=form)
        for word in ("mask: Tensor | None", "positions: Tensor | None", "documents", "padding", "reorder", "hide("):
            assert word not in text, f"{word} in {form}"


# What is no input

WRONG: list[tuple[str, Any, type[Exception], str]] = [
    *(("tokens", x, TypeError, "the input: expected a tensor (B, T, ...), found a")
      for x in (None, 2.5, "ab", [[1]], {})),
    ("tokens", torch.tensor(1), ValueError, "the input: expected the shape (B, T, ...), found ()"),
    ("tokens", torch.ones(7), ValueError, "the input: expected the shape (B, T, ...), found (7,)"),
    ("tokens", torch.ones(2, 7, 2).long(), ValueError, "tokens: expected the shape (B, T), found (2, 7, 2)"),
    ("tokens", torch.ones(2, 7).long().to_sparse(), TypeError, "found one of torch.sparse_coo"),
    *(("tokens", torch.ones(2, 7, dtype=t), TypeError, f"whole numbers of torch.int64 or torch.int32, found {t}")
      for t in (torch.float32, torch.bool, torch.complex64, torch.uint8, torch.int16)),
    ("tokens", torch.full((2, 7), -1), IndexError, "tokens: expected ids from 0 to 10, found -1"),
    ("tokens", torch.full((2, 7), 11), IndexError, "tokens: expected ids from 0 to 10, found 11"),
    *((name, x, TypeError, f"{name}: expected a tensor (B, T)") for name in ("mask", "positions", "documents")
      for x in (2, True, "ab", [[1]], {})),
    *((name, torch.ones(2, 7, device="meta").long(), ValueError, f"{name} is on meta, expected cpu, where the tokens")
      for name in ("mask", "positions", "documents")),
    ("mask", torch.ones(2, 7).long().to_sparse(), TypeError, "mask: expected a dense tensor"),
    ("documents", torch.ones(2, 7, dtype=torch.complex64), TypeError, "documents are torch.complex64, expected whole"),
    ("documents", torch.tensor([], dtype=torch.long), ValueError, "in a batch of one row"),
    *(("state", x, TypeError, "state: expected a dict, empty at the start of a sequence") for x in ([], 3, "ab", ())),
]  # fmt: skip


@pytest.mark.parametrize(("name", "given", "error", "said"), WRONG)
@pytest.mark.parametrize("model", ["rope", "learned"])
def test_what_is_no_input_is_one_clear_error(
    model: str, name: str, given: Any, error: type[Exception], said: str
) -> None:
    import re

    with pytest.raises(error, match=re.escape(said)):
        made(model)[1](**{"tokens": tokens(), name: given})


@pytest.mark.parametrize("form", ["interpreted", "generated"])
def test_aux_is_an_empty_dict(form: str) -> None:
    spec = archspec.load(models()["encoder_decoder"])
    model = eager(spec) if form == "interpreted" else archspec.build(spec)
    given = {"encoder_tokens": tokens(), "decoder_tokens": tokens()}
    for wrong in ([], (), 3, "ab", torch.zeros(2)):
        with pytest.raises(TypeError, match="aux: expected an empty dict, found a "):
            model(**given, aux=wrong)
        with pytest.raises(TypeError, match="aux: expected the dict that the model was given, found a "):
            model.aux_loss(wrong)


def test_segments_number_their_table() -> None:
    model, x = made("bert")[1], tokens()
    assert far(model(x, token_types=torch.zeros_like(x)), model(x)) < 1e-12
    with pytest.raises(IndexError, match="token_types: expected ids from 0 to 1, found 2"):
        model(x, token_types=torch.full((2, 7), 2))
    with pytest.raises(ValueError, match=r"token_types: expected the shape \(2, 7\) like the tokens, found \(1, 7\)"):
        model(x, token_types=torch.zeros(1, 7, dtype=torch.long))
    with pytest.raises(TypeError, match=r"token_types: expected whole numbers of .*, found torch.float32"):
        model(x, token_types=torch.zeros(2, 7))


def test_features_are_those_of_the_model() -> None:
    model, x = made("signal")[1], torch.randn(2, 7, 3, dtype=torch.float64)
    assert model(x).shape == (2, 2)
    for wrong, error, said in (
        (x.float(), TypeError, "expected torch.float64 like the model, found torch.float32"),
        (x.long(), TypeError, "expected torch.float64 like the model, found torch.int64"),
        (x[..., :2], ValueError, r"expected the shape \(B, T, 3\), found \(2, 7, 2\)"),
        (x[0], ValueError, r"expected the shape \(B, T, 3\), found \(7, 3\)"),
    ):
        with pytest.raises(error, match=said):
            model(wrong)


def test_images_are_tensors() -> None:
    for wrong in (None, 3, [[1.0]]):
        with pytest.raises(TypeError, match="images: expected a tensor"):
            made("vit")[1](wrong)


@pytest.mark.parametrize("name", ["t5", "t5_own"])
def test_buckets_are_of_whole_distances(name: str) -> None:
    with pytest.raises(TypeError, match=r"positions are torch.float32; the buckets of T5 are those of whole numbers"):
        made(name)[1](tokens(), positions=torch.arange(7.0).expand(2, 7) / 2)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
@pytest.mark.parametrize("name", ["rope", "alibi_both", "t5", "learned"])
def test_positions_are_of_any_whole_type(name: str, dtype: torch.dtype) -> None:
    model, x, where = made(name)[1], tokens(), torch.tensor([[0, 2, 3, 7, 8, 9, 12], [6, 5, 4, 3, 2, 1, 0]])
    assert torch.equal(model(x, positions=where.to(dtype)), model(x, positions=where))


def test_cumulative_lengths_of_small_types_must_rise_too() -> None:
    with pytest.raises(ValueError, match="must rise from 0 to T = 7"):
        made("rope")[1](tokens(B=1), documents=torch.tensor([0, 5, 3, 7], dtype=torch.uint8))


def test_the_mask_of_a_memory_may_be_of_zeros_and_ones() -> None:
    model, x = made("encoder_decoder")[1], tokens()
    mask = torch.tensor([[1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1]])
    whole = [model(encoder_tokens=x, decoder_tokens=x, encoder_mask=m) for m in (mask, mask.bool())]
    assert torch.equal(*whole)


@pytest.mark.parametrize("given", ["ab", {}, [1, 2], torch.tensor([1j, 0])], ids=str)
def test_a_prefix_of_other_types_is_refused(given: Any) -> None:
    with pytest.raises(TypeError, match="expected a whole number of tokens"):
        prefixed()(tokens(), prefix_len=given)
