"""A BPE or Unigram vocabulary learned from texts."""

from collections.abc import Iterable, Sequence
from typing import Any

from archspec.errors import VocabularyError, suggest
from archspec.layers.registry import find, kinds
from archspec.layers.vocabulary import FileVocabulary
from archspec.vocabulary.tokenizer import library

BYTES = 256  # pieces that are there before any is learned
MOST = 1 << 24
SPECIALS = ("<pad>", "<eos>", "<mask>")


def learn_vocabulary(texts: Iterable[str], *, size: int, kind: str = "bpe", specials: Sequence[str] = SPECIALS) -> str:
    """The text of a tokenizer file that is learned from texts.

    Pieces are made of bytes, so that any text can be encoded and comes back as it was.

    Args:
        texts: the texts, for example the lines of a file.
        size: tokens in all: 256 bytes, the special tokens, and the rest learned.
        kind: bpe or unigram.
        specials: special tokens, which have the first ids.

    Raises:
        VocabularyError: the size is too small for the bytes, or too large for what the texts hold.
        MissingError: the package tokenizers is not installed.
    """
    cls = _class(kind)
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
        found.train_from_iterator(texts, made)
    except VocabularyError:
        raise
    except Exception as error:  # the library raises no other
        raise VocabularyError(f"the texts give no vocabulary: {error}") from None
    return found
