"""Bases: a token for each letter of a sequence, and special tokens.

    ids = index(letter) + first_id

Letters are folded to upper case. A letter that is none of the alphabet is the special token [UNK] where there is one,
and an error where there is none. The alphabet may as well be that of RNA or of proteins.

Source: Nguyen et al. 2023, "HyenaDNA" (arXiv 2306.15794).
"""

from typing import Any, ClassVar, Literal

from archspec.layers.fields import field
from archspec.layers.vocabulary import USUAL_SPECIALS, WrittenVocabulary, check_letters


class Bases(WrittenVocabulary):
    """Each letter of a sequence (A, C, G, T, N) is a token."""

    runs: ClassVar[str] = "letters"
    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {},
        {"alphabet": "ACGT", "specials": ["[MASK]"], "specials_at": "last"},
        {"specials": ["[CLS]", "[SEP]", "[UNK]"], "prepend": "[CLS]", "append": "[SEP]", "pad_to_multiple_of": 8},
    )

    kind: Literal["bases"] = "bases"
    alphabet: str = field("the letters, in the order of their ids", "ACGTN")
    specials: tuple[str, ...] = field("special tokens, in the order of their ids", USUAL_SPECIALS, strict=False)

    @property
    def n_ids(self) -> int:
        """Letters and special tokens."""
        return len(self.alphabet) + len(self.specials)

    def check(self) -> None:
        """Refuse an alphabet that is none."""
        check_letters("alphabet", self.alphabet, 1)
        super().check()
