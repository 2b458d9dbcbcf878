"""k-mers: a token for each of the A^k words of k letters of an alphabet, and special tokens.

    id(word) = first_id + sum_i index(word[i]) A^(k - 1 - i)

Overlapping words start at every letter (stride 1), T - k + 1 of them. Others stand side by side; what fills no word
(the rest of a text, and what stands before one of the `extra` letters) is written in single letters, whose ids follow
those of the words: first the alphabet, then `extra`. Letters are folded to upper case; an unknown one is the special
token [UNK] where there is one (and so is every word that holds it), and an error where there is none.

Sources: Ji et al. 2021, "DNABERT" (overlapping); Dalla-Torre et al. 2023, "Nucleotide Transformer" (side by side).
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from archspec.layers.fields import field
from archspec.layers.vocabulary import USUAL_SPECIALS, WrittenVocabulary, check_letters

Letters = Annotated[int, Field(ge=1, le=32)]


class Kmers(WrittenVocabulary):
    """Each word of k letters is a token."""

    runs: ClassVar[str] = "words"
    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"k": 3},
        {"k": 2, "overlapping": True, "specials": ["[PAD]", "[UNK]"], "alphabet": "ATCG"},
        {"k": 2, "extra": "N", "specials": ["<cls>", "<eos>"], "prepend": "<cls>", "append": "<eos>"},
        {"k": 2, "remainder": False, "specials_at": "last", "pad_to_multiple_of": 8},
    )

    kind: Literal["kmers"] = "kmers"
    k: Letters = field("letters of a word")
    alphabet: str = field("the letters of words, in the order of their ids", "ACGT")
    overlapping: bool = field("whether a word starts at every letter, not at every k-th", False)
    remainder: bool = field("whether single letters are tokens too", True, when=("overlapping", False))
    extra: str | None = field(
        "letters that are in no word, tokens by themselves (N)", None, when=("overlapping", False)
    )
    specials: tuple[str, ...] = field("special tokens, in the order of their ids", USUAL_SPECIALS, strict=False)

    @property
    def n_words(self) -> int:
        """Words of k letters."""
        return int(len(self.alphabet) ** self.k)

    @property
    def single(self) -> str:
        """The letters that are tokens by themselves, in the order of their ids."""
        return "" if self.overlapping else (self.alphabet if self.remainder else "") + (self.extra or "")

    @property
    def n_ids(self) -> int:
        """Words, single letters and special tokens."""
        return self.n_words + len(self.single) + len(self.specials)

    def check(self) -> None:
        """Refuse an alphabet that is none, and letters that are in it and beside it."""
        check_letters("alphabet", self.alphabet, 2)
        check_letters("extra", self.extra or "", 0)
        both = "".join(c for c in self.extra or "" if c in self.alphabet)
        if both:
            raise ValueError(f"extra = {self.extra!r} holds {both!r}, which the alphabet {self.alphabet!r} has")
        super().check()
