"""Tokenizer files: learned, read when a text is encoded, and the same as the `tokenizers` library gives itself."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

import archspec
from archspec.errors import MissingError, VocabularyError
from archspec.vocabulary import vocabulary as of

SPEC = {"name": "v", "d_model": 8, "blocks": [{"mixer": {"kind": "attention", "n_heads": 2}}], "head": "lm"}
SIZE = 300
TEXTS = Path("archspec/errors.py").read_text().splitlines(keepends=True)
SPECIALS = ["<pad>", "<eos>", "<mask>"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tok.json (BPE), uni.json (Unigram) and files that are none."""
    found = tmp_path_factory.mktemp("tokenizers")
    (found / "tok.json").write_text(archspec.learn_vocabulary(TEXTS, size=SIZE), encoding="utf-8")
    (found / "uni.json").write_text(archspec.learn_vocabulary(TEXTS, size=SIZE, kind="unigram"), encoding="utf-8")
    (found / "words.txt").write_text("no JSON")
    (found / "other.json").write_text('{"model": {"type": "BPE"}}')
    holes = tokenizers.models.BPE(vocab={"a": 0, "b": 1, "c": 7}, merges=[])
    tokenizers.Tokenizer(holes).save(str(found / "holes.json"))
    (found / "list.json").write_text("[1]")
    (found / "latin.json").write_bytes(b"\xff")
    (found / "sub").mkdir()
    return found


def made(folder: Path, **fields: Any) -> archspec.Vocabulary:
    """The vocabulary of a spec in that folder."""
    path = folder / "v.yaml"
    path.write_text(json.dumps({**SPEC, "vocabulary": {"kind": "bpe", "file": "tok.json", "size": SIZE, **fields}}))
    return of(archspec.load(path))


@pytest.fixture(params=["bpe", "unigram"])
def both(request: pytest.FixtureRequest, folder: Path) -> tuple[archspec.Vocabulary, Any]:
    """A vocabulary, and the library's own tokenizer of the same file."""
    file = {"bpe": "tok.json", "unigram": "uni.json"}[request.param]
    return made(folder, kind=request.param, file=file), tokenizers.Tokenizer.from_file(str(folder / file))


def test_ids_are_those_of_the_library(both: tuple[archspec.Vocabulary, Any]) -> None:
    ours, theirs = both
    for text in ("", "def mark(self):\n", "größer 😀", "a<mask>b", *TEXTS[:40]):
        assert ours.encode(text) == theirs.encode(text).ids
        assert ours.decode(ours.encode(text)) == text
    assert ours.vocab_size == theirs.get_vocab_size() == SIZE
    assert ours.specials == {token: i for i, token in enumerate(SPECIALS)}
    assert [ours.token(i) for i in range(SIZE)] == [theirs.id_to_token(i) for i in range(SIZE)]


def test_learning_is_the_same_each_time(folder: Path) -> None:
    assert archspec.learn_vocabulary(TEXTS, size=SIZE) == (folder / "tok.json").read_text(encoding="utf-8")


def test_frequent_pieces_are_learned(folder: Path) -> None:
    text = "".join(TEXTS)
    assert len(made(folder).encode(text)) < 0.8 * len(text.encode())


@given(st.text(max_size=30))
def test_any_text_comes_back(text: str) -> None:
    vocabulary = LEARNED.setdefault("bpe", learned())
    assert vocabulary.decode(vocabulary.encode(text)) == text


LEARNED: dict[str, Any] = {}


def learned() -> archspec.Vocabulary:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "tok.json").write_text(archspec.learn_vocabulary(TEXTS, size=SIZE), encoding="utf-8")
        found = made(Path(name))
        found.encode("")  # the file is read once
        return found


def test_batches_are_padded_with_the_padding_token(folder: Path) -> None:
    vocabulary = made(folder)
    ids, mask = vocabulary.encode_batch(["def", "a longer text<eos>"])
    assert ids[0, -1] == vocabulary.special("pad") == 0
    assert vocabulary.decode_batch(ids) == vocabulary.decode_batch(ids, mask) == ["def", "a longer text<eos>"]
    assert vocabulary.decode(ids[1], skip_special_tokens=True) == "a longer text"


def test_a_template_of_the_file_is_added_and_taken_off(folder: Path) -> None:
    found = tokenizers.Tokenizer.from_file(str(folder / "tok.json"))
    found.post_processor = tokenizers.processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    found.save(str(folder / "ends.json"))
    vocabulary = made(folder, file="ends.json")
    assert vocabulary.encode("def")[-1] == 1
    assert vocabulary.encode("def", add_special_tokens=False)[-1] != 1
    assert vocabulary.decode(vocabulary.encode("def")) == "def"


def test_a_file_that_cuts_or_pads_does_neither(folder: Path) -> None:
    found = tokenizers.Tokenizer.from_file(str(folder / "tok.json"))
    found.enable_truncation(2)
    found.enable_padding(length=50)
    found.save(str(folder / "cuts.json"))
    assert made(folder, file="cuts.json").encode(TEXTS[0]) == made(folder).encode(TEXTS[0])


def test_letters_that_the_library_would_leave_out_are_an_error(folder: Path) -> None:
    plain = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    plain.save(str(folder / "ab.json"))
    vocabulary = made(folder, file="ab.json", size=3)
    assert vocabulary.encode("abba") == [2, 1, 0]
    with pytest.raises(VocabularyError, match=re.escape("text[1] = 'c' is in no token of ")):
        vocabulary.encode("acb")


def test_the_library_of_unigram_says_what_is_unknown(folder: Path) -> None:
    plain = tokenizers.Tokenizer(tokenizers.models.Unigram([("a", -1.0), ("b", -1.0)], None, False))
    plain.save(str(folder / "uab.json"))
    with pytest.raises(VocabularyError, match="cannot encode the text"):
        made(folder, kind="unigram", file="uab.json", size=2).encode("ac")


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"file": "no.json"}, "no.json: no such file; the spec's bpe vocabulary is read from it"),
    "a folder": ({"file": "sub"}, "sub: is a directory"),
    "no JSON": ({"file": "words.txt"}, "words.txt: is no tokenizer file: "),
    "a list": ({"file": "list.json"}, "list.json: holds a file without a model, and the spec says bpe"),
    "no UTF-8": ({"file": "latin.json"}, "latin.json: cannot be read: 'utf-8' codec"),
    "no tokenizer": ({"file": "other.json"}, "other.json: is no tokenizer file: "),
    "another kind": ({"file": "uni.json"}, "uni.json: holds a Unigram model, and the spec says bpe"),
    "another size": ({"size": 301}, "tok.json: has 300 tokens, and the spec says size: 301"),
    "a special that is none": (
        {"specials": ["<unk>"]},
        "tok.json: has no special token '<unk>'; known: <eos>, <mask>, <pad>",
    ),
    "a word that is not special": ({"specials": ["def"]}, "tok.json: has no special token 'def'; known: "),
    "specials in another order": (
        {"specials": ["<eos>", "<pad>"]},
        "tok.json: has its special tokens in another order: <pad>, <eos>",
    ),
    "ids with holes": ({"file": "holes.json", "size": 3}, "holes.json: leaves ids out: the largest of its 3 is 7"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_does_not_fit_is_one_error(folder: Path, name: str) -> None:
    fields, message = WRONG[name]
    vocabulary = made(folder, **fields)  # which reads nothing
    with pytest.raises(VocabularyError) as caught:
        vocabulary.encode("a")
    assert str(caught.value).startswith(f"{folder}/{message}")


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "tok.json").symlink_to(folder / "tok.json")
    with pytest.raises(VocabularyError, match=r"leads out of the folder of the spec"):
        made(tmp_path / "inner").encode("a")


def test_the_file_is_beside_the_spec_that_names_it(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "tok.json").write_bytes((folder / "tok.json").read_bytes())
    made(base)
    (tmp_path / "child.yaml").write_text("extends: base/v.yaml\nd_model: 16\n")
    assert of(archspec.load(tmp_path / "child.yaml")).encode("def") == made(folder).encode("def")
    monkeypatch.chdir(tmp_path)
    assert of(archspec.load("base/v.yaml")).encode("def") == made(folder).encode("def")
    assert of(archspec.load("base/v.yaml", set=["vocabulary.file=tok.json"])).encode("def") == made(folder).encode(
        "def"
    )


TOO: list[tuple[dict[str, Any], str]] = [
    ({"size": 10}, "size = 10 must be from 260 (the bytes, 3 special tokens and one more) to 16777216"),
    ({"size": 5000}, "the texts give "),
    ({"size": 400, "kind": "bytes"}, "no vocabulary 'bytes' can be learned; known: bpe, unigram"),
    ({"size": 400, "specials": ["<a>", "<a>"]}, "special tokens must be different from one another, and not empty"),
]


@pytest.mark.parametrize(("asked", "message"), TOO, ids=["few", "many", "kind", "twice"])
def test_what_cannot_be_learned_says_why(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(VocabularyError) as caught:
        archspec.learn_vocabulary(TEXTS[:50], **asked)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("texts", "asked", "message"),
    [
        ("one text", {"size": 300}, "takes several texts, such as [text]"),
        (["a"], {"size": "300"}, "size = '300' must be a whole number"),
        (["a"], {"size": 300, "specials": "<pad>"}, "specials = '<pad>' must be a list of texts"),
    ],
)
def test_wrong_types_are_told(texts: Any, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=re.escape(message)):
        archspec.learn_vocabulary(texts, **asked)


def test_a_chromosome_is_learned_from_in_stretches() -> None:
    """A word of 200,000 letters took minutes; its time grows with the square of a word's length."""
    letters = "ACGTTGCA" * 25_000
    assert '"AC"' in archspec.learn_vocabulary([letters], size=260)


@pytest.mark.parametrize("call", [lambda v: archspec.learn_vocabulary(TEXTS, size=300), lambda v: v.encode("a")],
                         ids=["learn", "encode"])  # fmt: skip
def test_without_the_library_the_extra_is_named(folder: Path, monkeypatch: Any, call: Callable[[Any], Any]) -> None:
    vocabulary = made(folder)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingError, match=re.escape("pip install 'archspec-compiler[text]'")):
        call(vocabulary)
