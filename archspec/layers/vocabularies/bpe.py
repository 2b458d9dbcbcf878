"""Byte-pair encoding: pieces of text that were merged, the most frequent pair first; they stand in a tokenizer file.

The file is that of the `tokenizers` library (tokenizer.json), which `archspec vocabulary learn` writes. It is read when
a text is first encoded, and must then hold as many tokens as `size` says; counting reads nothing.

Sources: Sennrich et al. 2016 (arXiv 1508.07909); Radford et al. 2019, "GPT-2" (over bytes).
"""

from typing import Any, ClassVar, Literal

from archspec.layers.vocabulary import FileVocabulary


class BPE(FileVocabulary):
    """Pieces of text from a file of merges."""

    model: ClassVar[str] = "BPE"
    trainer: ClassVar[str] = "BpeTrainer"
    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"file": "tok.json", "size": 300},
        {"file": "tok.json", "size": 300, "specials": ["<pad>"], "pad_to_multiple_of": 64},
    )

    kind: Literal["bpe"] = "bpe"
