"""Bases: each letter of a sequence is a token."""

from collections.abc import Iterable

from archspec.layers.vocabularies.bases import Bases
from archspec.vocabulary.written import Written


def make(declared: Bases, folder: str) -> "LetterVocabulary":
    """The vocabulary that is declared; it needs no file."""
    return LetterVocabulary(declared)


class LetterVocabulary(Written):
    """Each letter is a token; lower case is folded to upper case."""

    def __init__(self, declared: Bases) -> None:
        super().__init__(declared)
        self.alphabet = declared.alphabet
        self.known = ", ".join(declared.alphabet)
        self.index = folded(declared.alphabet, self.first_id)

    def _stretch(self, text: str, start: int) -> Iterable[int]:
        find = self.index.get
        ids = [find(letter) for letter in text]
        if None not in ids:
            return ids  # type: ignore[return-value]  # no None is in it
        return [self.unknown(text[i], start + i, self.known) if found is None else found for i, found in enumerate(ids)]

    def _plain(self, ids: list[int], start: int) -> str:
        return "".join(self.alphabet[i - self.first_id] for i in ids)


def folded(letters: str, first: int) -> dict[str, int]:
    """Ids of letters from `first` on, by the letter in either case."""
    found = {letter: first + i for i, letter in enumerate(letters)}
    return {**{letter.lower(): i for letter, i in found.items()}, **found}
