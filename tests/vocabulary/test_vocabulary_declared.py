"""What a spec says of its vocabulary: vocab_size follows from it, exactly, and no text or file is read."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import archspec
from archspec.errors import SpecError
from archspec.language.resolve import make
from archspec.language.schema import schema
from archspec.language.show import document, show
from archspec.language.starter import template
from archspec.layers.registry import find, kinds

KINDS = kinds("vocabulary")
EXAMPLES = [
    pytest.param({"kind": kind, **example}, id=f"{kind}-{i}")
    for kind in KINDS
    for i, example in enumerate(find("vocabulary", kind).examples)
]
VALIDATOR = Draft202012Validator(schema())


def written(vocabulary: Any, **top: Any) -> dict[str, Any]:
    """A small spec with a vocabulary."""
    blocks = [{"mixer": {"kind": "attention", "n_heads": 2}}]
    return {
        "name": "v",
        "d_model": 8,
        "vocabulary": vocabulary,
        "max_seq_len": 8,
        "blocks": blocks,
        "head": "lm",
        **top,
    }


def refused(vocabulary: Any, **top: Any) -> str:
    with pytest.raises(SpecError) as caught:
        archspec.load(written(vocabulary, **top))
    (problem,) = caught.value.problems
    return f"{problem.path}: {problem.message}"


SIZES = [
    ("bytes", 256),
    ("bases", 9),  # A, C, G, T, N, [PAD], [CLS], [SEP], [MASK]
    ({"kind": "bases", "alphabet": "ACGT", "specials": ["[MASK]"]}, 5),
    ({"kind": "bases", "pad_to_multiple_of": 8}, 16),
    ({"kind": "bases", "alphabet": "ACGU", "specials": []}, 4),
    ({"kind": "bytes", "specials": ["<pad>", "<eos>"]}, 258),
    ({"kind": "bytes", "specials": ["<pad>", "<eos>"], "specials_at": "control"}, 256),
    ({"kind": "kmers", "k": 3}, 64 + 4 + 4),
    ({"kind": "kmers", "k": 3, "remainder": False}, 64 + 4),
    ({"kind": "kmers", "k": 3, "overlapping": True}, 64 + 4),
    ({"kind": "kmers", "k": 3, "extra": "N", "specials": []}, 64 + 5),
    ({"kind": "bpe", "file": "no_such.json", "size": 4096}, 4096),
    ({"kind": "unigram", "file": "a/no_such.json", "size": 4000, "pad_to_multiple_of": 64}, 4032),
]


@pytest.mark.parametrize(("vocabulary", "size"), SIZES, ids=lambda v: str(v).replace(" ", ""))
def test_vocab_size_follows(vocabulary: Any, size: int) -> None:
    spec = archspec.load(written(vocabulary))
    assert spec.vocab_size == size
    assert archspec.count(spec).tensors[0].shape == (size, 8)
    assert archspec.load(written(vocabulary, vocab_size=size)) == spec


@pytest.mark.parametrize("vocabulary", EXAMPLES)
def test_every_example_comes_back_equal_and_fits_the_schema(vocabulary: dict[str, Any]) -> None:
    data = written(vocabulary)
    spec = archspec.load(data)
    assert archspec.loads(show(spec)) == spec
    VALIDATOR.validate(data)
    VALIDATOR.validate(document(spec))


def test_the_schema_refuses_what_the_loader_refuses() -> None:
    for vocabulary in (
        {"kind": "kmers", "k": 0},
        {"kind": "bases", "k": 3},
        "letters",
        {"kind": "bases", "specials": 3},
    ):
        assert not VALIDATOR.is_valid(written(vocabulary))
        refused(vocabulary)


def test_sizes_may_name_the_vocab_size() -> None:
    spec = archspec.load(
        written("bases", sizes={"d_v": "2 * vocab_size"}, embedding={"kind": "token", "d_factor": "d_v"})
    )
    assert archspec.count(spec).tensors[0].shape == (9, 18)


def test_settings_change_it() -> None:
    path = Path("specs/dnabert_6mer.yaml")
    spec = archspec.load(path, set=["vocabulary.k=4", "expect=null"])
    assert spec.vocab_size == 4**4 + 5
    spec = archspec.load(path, set=["vocabulary=bytes", "expect=null"])
    assert spec.vocab_size == 256


def test_a_vocab_size_that_is_set_takes_the_place_of_the_vocabulary() -> None:
    with pytest.warns(
        archspec.SpecWarning, match="vocab_size = 6 is not that of the vocabulary, which has 5 tokens and"
    ):
        spec = archspec.load("specs/bert_tiny.yaml", set=["vocab_size=6", "expect=null"])
    assert (spec.vocab_size, spec.vocabulary) == (6, None)
    spec = archspec.load("specs/bert_tiny.yaml", set=["vocab_size=5"])
    assert spec.vocabulary is not None
    with pytest.raises(SpecError, match="remove one of the two"):
        archspec.load("specs/bert_tiny.yaml", set=["vocabulary=bytes", "vocab_size=6"])


def test_a_spec_that_extends_another_may_change_one_field(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        show(archspec.load(written({"kind": "kmers", "k": 3}))).replace("vocab_size: 72\n", "")
    )
    (tmp_path / "longer.yaml").write_text("extends: base.yaml\nvocabulary: {k: 4}\n")
    assert archspec.load(tmp_path / "longer.yaml").vocab_size == 4**4 + 8


def test_a_token_that_is_left_out_may_be_none() -> None:
    spec = archspec.load("specs/dnabert_6mer.yaml", set=["vocabulary.append=none"])
    assert archspec.vocabulary(spec).encode("AAAAAA") == [2, 5]


def test_none_is_as_if_it_were_not_there() -> None:
    assert archspec.load(written("none", vocab_size=7)) == archspec.load(written(None, vocab_size=7))


REFUSED = [
    (("bases",), {"vocab_size": 12}, "vocab_size: vocab_size = 12 is not that of the vocabulary, which has 9 tokens; "
     "remove one of the two, or write pad_to_multiple_of: 12 into the vocabulary"),
    (("bases",), {"vocab_size": 5}, "vocab_size: vocab_size = 5 is not that of the vocabulary, which has 9 tokens; "
     "remove one of the two"),
    (({"kind": "bases", "pad_to_multiple_of": 8},), {"vocab_size": 9}, "vocab_size: vocab_size = 9 is not that of the "
     "vocabulary, which has 9 tokens, padded to 16; remove one of the two, or write pad_to_multiple_of: 9 into the "
     "vocabulary"),
    (({"kind": "bases", "specials": ["MASK"]},), {}, "vocabulary: special token 'MASK' must be one word in "
     "brackets, such as [MASK] or <pad>"),
    (({"kind": "bases", "specials": ["[A]", "[A]"]},), {}, "vocabulary: specials name '[A]' twice; keep one"),
    (({"kind": "bases", "append": "[UNK]"},), {}, "vocabulary: append = '[UNK]' must be one of the special tokens: "
     "[PAD], [CLS], [SEP], [MASK]"),
    (({"kind": "kmers", "k": 3, "overlapping": True, "extra": "N"},), {}, "vocabulary.extra: extra has no effect when "
     "overlapping is true; remove it, or set overlapping to false"),
    (({"kind": "kmers", "k": 3, "extra": "A"},), {}, "vocabulary: extra = 'A' holds 'A', which the alphabet "
     "'ACGT' has"),
    (({"kind": "kmers", "k": 30},), {}, "vocabulary: there would be 1152921504606846984 tokens; no table can hold more "
     "than 1099511627776"),
    (({"kind": "bpe", "file": "/etc/passwd", "size": 9},), {}, "vocabulary: file = '/etc/passwd' leaves the folder of "
     "the spec; name a file in it or below it"),
    (({"kind": "bpe", "file": "a/../../b", "size": 9},), {}, "vocabulary: file = 'a/../../b' leaves the folder of the "
     "spec; name a file in it or below it"),
    (({"kind": "bpe", "file": "tok.json"},), {}, "vocabulary.size: bpe needs size (tokens in the file, special and "
     "added ones included)"),
    (("attention",), {}, "vocabulary.kind: no vocabulary 'attention'; that is a mixer"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "top", "message"), REFUSED, ids=[m[:60] for _, _, m in REFUSED])
def test_mistakes_are_one_clear_message(given: tuple[Any], top: dict[str, Any], message: str) -> None:
    assert refused(*given, **top) == message


def test_a_vocabulary_that_nothing_takes_has_no_effect() -> None:
    features = {"kind": "features", "d_input": 4}
    data = {**written("bases"), "embedding": features, "head": "none"}
    with pytest.raises(SpecError, match="vocabulary: nothing takes it, so it has no effect; remove it"):
        archspec.load(data)


def test_the_template_is_a_spec() -> None:
    spec = archspec.loads(template("dna"))
    assert (spec.vocab_size, spec.warnings) == (16, ())
    assert archspec.count(spec).total < 1_000_000


def test_kinds_are_made_by_hand_too() -> None:
    assert make("vocabulary", {"kind": "kmers", "k": 6}).n_ids == 4096 + 4 + 4  # type: ignore[attr-defined]


def test_counting_a_learned_vocabulary_imports_no_library(tmp_path: Path) -> None:
    path = tmp_path / "v.yaml"
    path.write_text(show(archspec.load(written({"kind": "bpe", "file": "no_such.json", "size": 300}))))
    code = f"import sys, archspec\nprint(archspec.count(archspec.load({str(path)!r})).total)\n"
    code += "print(*(m for m in ('tokenizers', 'torch', 'archspec.vocabulary') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1:] == [""]
