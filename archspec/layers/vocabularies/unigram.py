"""Unigram: pieces of text with a probability each, of which a text takes the likeliest; they stand in a tokenizer file.

The file is that of the `tokenizers` library (tokenizer.json), which `archspec vocabulary learn --kind unigram` writes.
It is read when a text is first encoded, and must then hold as many tokens as `size` says; counting reads nothing.

Source: Kudo 2018 (arXiv 1804.10959).
"""

from typing import Any, ClassVar, Literal

from archspec.layers.vocabulary import FileVocabulary


class Unigram(FileVocabulary):
    """Pieces of text from a file of probabilities."""

    model: ClassVar[str] = "Unigram"
    trainer: ClassVar[str] = "UnigramTrainer"
    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"file": "tok.json", "size": 300},
        {"file": "tok.json", "size": 300, "specials": ["<pad>"], "pad_to_multiple_of": 64},
    )

    kind: Literal["unigram"] = "unigram"
