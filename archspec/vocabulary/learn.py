"""A BPE or Unigram vocabulary learned from texts."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from archspec.errors import VocabularyError, suggest
from archspec.layers.registry import find, kinds
from archspec.layers.vocabulary import FileVocabulary
from archspec.vocabulary.tokenizer import library

BYTES = 256  # pieces that are there before any is learned
MOST = 1 << 24
LONGEST = 1000  # letters of a word that learning looks at as one: its time grows as their square
SPECIALS = ("<pad>", "<eos>", "<mask>")
_LONG = re.compile(rf"\S{{{LONGEST}}}")


def learn_vocabulary(texts: Iterable[str], *, size: int, kind: str = "bpe", specials: Sequence[str] = SPECIALS) -> str:
    """The text of a tokenizer file that is learned from texts.

    Pieces are made of bytes, so that any text can be encoded and comes back as it was. What has no spaces for longer
    than LONGEST letters (a chromosome) is learned from in stretches of that length.

    Args:
        texts: the texts, for example the lines of a file.
        size: tokens in all: 256 bytes, the special tokens, and the rest learned.
        kind: bpe or unigram.
        specials: special tokens, which have the first ids.

    Raises:
        VocabularyError: the size is too small for the bytes, or too large for what the texts hold.
        TypeError: the texts are one text, or a size or special token is of another type.
        MissingError: the package tokenizers is not installed.
    """
    cls = _class(kind)
    _must_fit(texts, size, specials)
    least = BYTES + len(specials) + 1
    if not least <= size <= MOST:
        raise VocabularyError(
            f"size = {size} must be from {least} (the bytes, {len(specials)} special tokens and one more) to {MOST}"
        )
    if len(set(specials)) < len(specials) or not all(specials):
        raise VocabularyError("special tokens must be different from one another, and not empty")
    found = _trained(cls, texts, size, list(specials))
    learned = found.get_vocab_size(with_added_tokens=True)
    if learned < size:
        raise VocabularyError(f"the texts give {learned} tokens, not {size}; give more text, or a smaller size")
    return str(found.to_str(pretty=True)) + "\n"


def _must_fit(texts: object, size: object, specials: object) -> None:
    """Raise TypeError, or VocabularyError for a special token that no file can hold."""
    if isinstance(texts, str | bytes):
        raise TypeError("learn_vocabulary takes several texts, such as [text]")
    if isinstance(size, bool) or not isinstance(size, int):
        raise TypeError(f"size = {size!r} must be a whole number")
    if isinstance(specials, str) or not isinstance(specials, Sequence) or not all(isinstance(s, str) for s in specials):
        raise TypeError(f"specials = {specials!r} must be a list of texts, such as ['<pad>', '<mask>']")
    for token in specials:
        if not token.isprintable():
            raise VocabularyError(f"special token {token!r} must be printable text")


def _stretches(texts: Iterable[str]) -> Iterator[str]:
    """The texts, long words of them cut."""
    for text in texts:
        yield from _LONG.sub(r"\g<0>\n", text).split("\n") if _LONG.search(text) else (text,)


def _class(kind: str) -> type[FileVocabulary]:
    known = {k: cls for k in kinds("vocabulary") if issubclass(cls := find("vocabulary", k), FileVocabulary)}
    if kind not in known:
        raise VocabularyError(f"no vocabulary {kind!r} can be learned{suggest(kind, known)}")
    return known[kind]


def _trained(cls: type[FileVocabulary], texts: Iterable[str], size: int, specials: list[str]) -> Any:
    tokenizers = library()
    level = tokenizers.pre_tokenizers.ByteLevel
    found = tokenizers.Tokenizer(getattr(tokenizers.models, cls.model)())
    found.pre_tokenizer = level(add_prefix_space=False)
    found.decoder = tokenizers.decoders.ByteLevel()
    trainer = getattr(tokenizers.trainers, cls.trainer)
    made = trainer(
        vocab_size=size, special_tokens=specials, initial_alphabet=sorted(level.alphabet()), show_progress=False
    )
    try:
        found.train_from_iterator(_stretches(texts), made)
    except VocabularyError:
        raise
    except Exception as error:  # the library raises no other
        raise VocabularyError(f"the texts give no vocabulary: {error}") from None
    return found
