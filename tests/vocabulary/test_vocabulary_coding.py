"""Text to ids and back: against the published tokenizers as their own code defines them, and as inverses."""

import re
from functools import cache
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing

import archspec
from archspec.errors import VocabularyError
from archspec.language.rules import settable
from archspec.layers.registry import find
from archspec.vocabulary import vocabulary as of

SPEC = {"name": "v", "d_model": 8, "blocks": [{"mixer": {"kind": "attention", "n_heads": 2}}], "head": "lm"}
DNA = st.text("ACGTacgt", max_size=40)
SOFT = st.text("ACGTNacgtn", max_size=40)


@cache
def published(name: str) -> archspec.Vocabulary:
    return of(archspec.load(f"specs/{name}.yaml"))


def made(vocabulary: Any) -> archspec.Vocabulary:
    return of(archspec.load({**SPEC, "vocabulary": vocabulary}))


KMERS = {
    "overlapping": made({"kind": "kmers", "k": 3, "overlapping": True}),
    "side by side": made({"kind": "kmers", "k": 3, "extra": "N", "specials_at": "last"}),
}


# The published tokenizers, from their own definitions


def hyenadna(text: str) -> list[int]:
    """CharacterTokenizer: seven special tokens, then the characters; [SEP] at the end; others are [UNK], 6."""
    ids = {letter: i + 7 for i, letter in enumerate("ACGTN")}
    return [*(ids.get(letter, 6) for letter in text), 1]


@cache
def dnabert() -> Tokenizer:
    """DNATokenizer: a list of words, of which a sequence's are separated by spaces, between [CLS] and [SEP]."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*specials, *map("".join, product("ATCG", repeat=6))]
    found = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    found.pre_tokenizer = WhitespaceSplit()
    found.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return found


@cache
def nucleotide_transformer() -> tuple[re.Pattern[str], dict[str, int]]:
    """StandardTokenizer: the first token of the list that fits, from left to right."""
    standard = [*map("".join, product("ATCG", repeat=6)), "A", "T", "C", "G", "N"]
    tokens = ["<unk>", "<pad>", "<mask>", "<cls>", "<eos>", "<bos>", *standard]
    return re.compile("|".join([*standard, *tokens[:6], r"\S"])), {token: i for i, token in enumerate(tokens)}


@given(st.text("ACGTNRX", max_size=30))
def test_bases_are_those_of_hyenadna(text: str) -> None:
    assert published("hyenadna_tiny").encode(text) == hyenadna(text)


@given(st.text("ACGT", min_size=6, max_size=40) | st.text("ACGTN", min_size=6, max_size=40))
def test_overlapping_words_are_those_of_dnabert(text: str) -> None:
    words = " ".join(text[i : i + 6] for i in range(len(text) - 5))
    assert published("dnabert_6mer").encode(text) == dnabert().encode(words).ids


@given(st.lists(st.sampled_from(["ACGTAC", "GGGTTT", "A", "T", "N", "CG", "<mask>", "X"]), max_size=8).map("".join))
def test_words_side_by_side_are_those_of_the_nucleotide_transformer(text: str) -> None:
    pattern, ids = nucleotide_transformer()
    wanted = [ids["<cls>"], *(ids.get(token, ids["<unk>"]) for token in pattern.findall(text))]
    assert published("nucleotide_transformer_50m").encode(text) == wanted


def test_bytes_are_those_of_evo() -> None:
    assert published("evo_1").encode("ACGT\n") == list(b"ACGT\n")
    assert (published("evo_1").special("eod"), published("evo_1").pad_id) == (0, 1)


def test_special_ids_of_byt5() -> None:
    """Three special tokens, then the bytes; </s> at the end."""
    byt5 = made({"kind": "bytes", "specials": ["<pad>", "</s>", "<unk>"], "specials_at": "first", "append": "</s>"})
    assert byt5.encode("hé") == [ord("h") + 3, 0xC3 + 3, 0xA9 + 3, 1]


def test_the_teaching_bert() -> None:
    assert published("bert_tiny").encode("acgt[MASK]") == [0, 1, 2, 3, 4]
    assert published("bert_tiny").special("mask") == 4


# Inverses


@given(st.text().filter(lambda text: text.isprintable()))
def test_any_text_comes_back_from_bytes(text: str) -> None:
    assert made_bytes().decode(made_bytes().encode(text)) == text


@cache
def made_bytes() -> archspec.Vocabulary:
    return made({"kind": "bytes", "specials": ["<pad>", "<eos>"], "append": "<eos>"})


@given(SOFT)
def test_letters_come_back_folded(text: str) -> None:
    bases = published("hyenadna_tiny")
    assert bases.decode(bases.encode(text)) == text.upper()


@pytest.mark.parametrize("name", KMERS)
@given(text=DNA, other=SOFT)
def test_words_come_back_folded(name: str, text: str, other: str) -> None:
    vocabulary = KMERS[name]
    text = text if name == "overlapping" else text + other
    if name == "overlapping" and 0 < len(text) < 3:
        text = ""
    assert vocabulary.decode(vocabulary.encode(text)) == text.upper()


@given(DNA, DNA)
def test_written_special_tokens_stay_between(left: str, right: str) -> None:
    vocabulary = KMERS["side by side"]
    text = f"{left}[MASK]{right}"
    ids = vocabulary.encode(text)
    assert ids.count(vocabulary.special("[MASK]")) == 1
    assert vocabulary.decode(ids) == text.upper()
    assert vocabulary.decode(ids, skip_special_tokens=True) == (left + right).upper()


@pytest.mark.parametrize("name", ["hyenadna_tiny", "dnabert_6mer", "nucleotide_transformer_50m", "bert_tiny"])
def test_every_id_has_a_token_and_every_token_its_id(name: str) -> None:
    vocabulary = published(name)
    tokens = [vocabulary.token(i) for i in range(vocabulary.n_ids)]
    assert len(set(tokens)) == vocabulary.n_ids
    for i in range(0, vocabulary.n_ids, 7):
        assert vocabulary.encode(tokens[i], add_special_tokens=False) == [i]


def test_what_encode_adds_is_taken_off_and_what_is_written_stays() -> None:
    vocabulary = published("dnabert_6mer")
    assert vocabulary.decode([0, 2, 5, 6, 3, 0, 0]) == "AAAAAAT"
    assert vocabulary.decode([5, 6]) == "AAAAAAT"
    assert vocabulary.decode([2, 5, 3, 4, 3]) == "AAAAAA[SEP][MASK]"
    assert vocabulary.decode(torch.tensor([2, 5, 6, 3])) == "AAAAAAT"


def test_an_unknown_letter_makes_each_word_unknown_that_holds_it() -> None:
    assert published("dnabert_6mer").encode("AAAAAAANAAAAAA", add_special_tokens=False) == [5, 5, *[1] * 6, 5]


# No setting is without effect

TEXT = "ACGTACGTAN"
BASE: dict[str, dict[str, Any]] = {
    "bytes": {"specials": ["[A]", "[B]"]},
    "bases": {"specials": ["[A]", "[B]"]},
    "kmers": {"specials": ["[A]", "[B]", "[UNK]"], "k": 3, "extra": "N"},
}
CHANGED: dict[str, list[dict[str, Any]]] = {
    "bytes": [{"specials_at": "first"}, {"specials_at": "control"}],
    "bases": [{"specials_at": "last"}, {"alphabet": "TGCAN"}],
    "kmers": [{"specials_at": "last"}, {"alphabet": "TGCA"}, {"k": 2}, {"extra": None}, {"remainder": False},
              {"overlapping": True, "extra": None}],
}  # fmt: skip
ALWAYS: list[dict[str, Any]] = [
    {"specials": ["[UNK]"]}, {"pad_to_multiple_of": 77}, {"prepend": "[A]"}, {"append": "[B]"},
]  # fmt: skip


def behaviour(kind: str, **fields: Any) -> tuple[Any, ...]:
    vocabulary = made({"kind": kind, **BASE[kind], **fields})
    return vocabulary.vocab_size, vocabulary.encode(TEXT), vocabulary.specials


@pytest.mark.parametrize("kind", BASE)
def test_every_setting_changes_something(kind: str) -> None:
    changes = [*CHANGED[kind], *ALWAYS]
    assert {name for change in changes for name in change} == set(settable(find("vocabulary", kind))) - {"kind"}
    assert [change for change in changes if behaviour(kind, **change) == behaviour(kind)] == []


# Batches


def test_a_batch_is_padded_and_masked() -> None:
    vocabulary = published("hyenadna_tiny")
    right = vocabulary.encode_batch(["ACG", "A", ""])
    assert right.ids.tolist() == [[7, 8, 9, 1], [7, 1, 4, 4], [1, 4, 4, 4]]
    assert right.mask.tolist() == [[True] * 4, [True, True, False, False], [True, False, False, False]]
    left = vocabulary.encode_batch(["ACG", "A", ""], side="left", length=5)
    assert left.ids.tolist() == [[4, 7, 8, 9, 1], [4, 4, 4, 7, 1], [4, 4, 4, 4, 1]]
    assert (left.ids.dtype, left.mask.dtype) == (torch.int64, torch.bool)
    for found in (left, right):
        assert vocabulary.decode_batch(found.ids) == vocabulary.decode_batch(*found) == ["ACG", "A", ""]


def test_a_batch_without_a_padding_token_is_known_by_its_mask() -> None:
    found = published("bert_tiny").encode_batch(["ACGT", "T"])
    assert found.ids[1].tolist() == [3, 0, 0, 0]
    assert published("bert_tiny").decode_batch(*found) == ["ACGT", "T"]


def test_a_model_gives_padded_texts_what_it_gives_them_alone() -> None:
    spec = archspec.load("specs/bert_tiny.yaml")
    model = archspec.build(spec, seed=0).eval()
    ids, mask = published("bert_tiny").encode_batch(["AC[MASK]T", "GT"])
    with torch.inference_mode():
        alone = model(ids[1:, :2])
        assert torch.allclose(model(ids, mask=mask)[1, :2], alone[0], atol=1e-6)
        assert not torch.allclose(model(ids)[1, :2], alone[0], atol=1e-6)


# Mistakes

WRONG = [
    (lambda: made("bases").encode("ACGR"), "text[3] = 'R' is none of A, C, G, T, N, and bases has no [UNK] for others"),
    (lambda: made("bases").encode("A[MASK]é"),
     "text[7] = 'é' is none of A, C, G, T, N, and bases has no [UNK] for others"),
    (lambda: made("bases").encode_batch(["A", "C?"]),
     "texts[1]: text[1] = '?' is none of A, C, G, T, N, and bases has no [UNK] for others"),
    (lambda: KMERS["overlapping"].encode("ACNGT"),
     "text[2] = 'N' is none of A, C, G, T, and kmers has no [UNK] for others"),
    (lambda: KMERS["overlapping"].encode("ACG[MASK]AC"),
     "text[9:] = 'AC' has fewer than k = 3 letters, which make no word"),
    (lambda: KMERS["overlapping"].decode([4, 30]), "ids[1] = 30 (CGG) does not overlap with AAA before it"),
    (lambda: KMERS["side by side"].encode("ACGR"),
     "text[3] = 'R' is none of A, C, G, T, N, and kmers has no [UNK] for others"),
    (lambda: made({"kind": "kmers", "k": 3, "remainder": False}).encode("ACGT"),
     "text[3] = 'T' fills no word of k = 3 letters; with remainder: true it is a token"),
    (lambda: published("evo_1").encode("A\x01"), "text[1] = '\\x01' is the byte that stands for <pad>"),
    (lambda: made("bytes").encode("A\ud800"), "text[1] = '\\ud800' is half of a surrogate pair, which is no UTF-8"),
    (lambda: made("bases").decode([0, 9]), "ids[1] = 9 is no token: there are 9 of them"),
    (lambda: made("bases").decode([-1]), "ids[0] = -1 is no token: there are 9 of them"),
    (lambda: published("hyenadna_tiny").decode([12]),
     "ids[0] = 12 is no token: there are 12 of them (vocab_size 16 is padded)"),
    (lambda: made("bases").decode([[1]]), "ids[0] = [1] is no whole number; decode takes the ids of one text"),
    (lambda: made("bases").decode(3), "ids = 3 must be a row of ids; decode takes those of one text"),
    (lambda: made("bases").decode("12"), "ids = '12' must be a row of ids; decode takes those of one text"),
    (lambda: made("bases").special("unk"), "bases has no special token 'unk'; known: [CLS], [MASK], [PAD], [SEP]"),
    (lambda: made({"kind": "bases", "specials": ["[S]", "</s>"]}).special("s"),
     "bases has several special tokens 's'; known: </s>, [S]"),
    (lambda: made("bases").encode_batch(["ACG"], length=2), "texts[0] has 3 tokens, more than length = 2"),
    (lambda: of(archspec.load({**SPEC, "vocab_size": 4})),
     "v names no vocabulary; write one into the spec, such as `vocabulary: bytes`"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), WRONG, ids=[str(i) for i in range(len(WRONG))])
def test_mistakes_say_what_and_where(call: Any, message: str) -> None:
    with pytest.raises(VocabularyError) as caught:
        call()
    assert str(caught.value) == message


def test_one_text_is_no_list_and_a_list_no_text() -> None:
    with pytest.raises(TypeError, match="encode_batch takes a list of texts; encode takes one"):
        made("bases").encode_batch("ACG")
    with pytest.raises(TypeError, match="encode takes one text, not list; encode_batch takes a list"):
        made("bases").encode(["ACG"])  # type: ignore[arg-type]


def test_a_mask_may_be_of_numbers_or_lists() -> None:
    vocabulary = made("bases")
    ids, mask = vocabulary.encode_batch(["ACG", "T"])
    for form in (mask, mask.int(), mask.tolist(), mask.int().tolist(), mask.numpy()):
        assert vocabulary.decode_batch(ids, form) == ["ACG", "T"]
    assert vocabulary.decode([*ids[0]]) == vocabulary.decode(ids[0].numpy()) == "ACG"
    for form in (mask[:1], mask[:, :1]):
        with pytest.raises(VocabularyError, match=re.escape("mask must be of the shape of ids, (B, T)")):
            vocabulary.decode_batch(ids, form)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda v: v.encode_batch(["A"], side="middle"), "side = 'middle' is unknown; known: right, left"),
        (lambda v: v.encode_batch(["A"], length=-1), "length = -1 must be a whole number, at least 0"),
        (lambda v: v.encode_batch(["A", 3]), "texts[1] must be a text, not int"),
        (lambda v: v.special(None), "special takes the name of a token, not NoneType"),
    ],
)
def test_wrong_arguments_are_told(call: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        call(made("bases"))
