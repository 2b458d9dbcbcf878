"""k-mers: each word of k letters is a token, overlapping or side by side."""

from collections.abc import Iterable, Iterator

from archspec.errors import VocabularyError
from archspec.layers.vocabularies.kmers import Kmers
from archspec.vocabulary.letters import folded
from archspec.vocabulary.written import Written


def make(declared: Kmers, folder: str) -> "WordVocabulary":
    """The vocabulary that is declared; it needs no file."""
    return Overlapping(declared) if declared.overlapping else SideBySide(declared)


class WordVocabulary(Written):
    """Words of k letters, whose ids are numbers in the base of the alphabet's size; no table of words is kept."""

    def __init__(self, declared: Kmers) -> None:
        super().__init__(declared)
        self.k, self.alphabet, self.n_words = declared.k, declared.alphabet, declared.n_words
        self.digit = folded(declared.alphabet, 0)
        self.known = ", ".join(declared.alphabet + (declared.extra or ""))

    def id_of(self, digits: Iterable[int]) -> int:
        """The id of a word, from its letters' places in the alphabet."""
        value = 0
        for digit in digits:
            value = value * len(self.alphabet) + digit
        return self.first_id + value

    def word(self, i: int) -> str:
        """The letters of a word, by its id."""
        value, letters = i - self.first_id, ""
        for _ in range(self.k):
            value, digit = divmod(value, len(self.alphabet))
            letters = self.alphabet[digit] + letters
        return letters


class Overlapping(WordVocabulary):
    """A word starts at every letter."""

    def _stretch(self, text: str, start: int) -> Iterator[int]:
        if 0 < len(text) < self.k:
            raise VocabularyError(f"text[{start}:] = {text!r} has fewer than k = {self.k} letters, which make no word")
        value, known, last = 0, 0, -1
        for i, letter in enumerate(text):
            digit = self.digit.get(letter)
            if digit is None:
                value, known, last = 0, 0, i
            else:
                value, known = (value * len(self.alphabet) + digit) % self.n_words, known + 1
            if last >= 0 and self.unk_id is None:
                self.unknown(text[last], start + last, self.known)
            if i >= self.k - 1:
                yield self.first_id + value if known >= self.k else self.unknown(text[last], start + last, self.known)

    def _plain(self, ids: list[int], start: int) -> str:
        text = self.word(ids[0])
        for at, i in enumerate(ids[1:], start + 1):
            word = self.word(i)
            if self.k > 1 and not text.endswith(word[:-1]):
                before = text[-self.k :]
                raise VocabularyError(f"ids[{at}] = {i} ({word}) does not overlap with {before} before it")
            text += word[-1]
        return text


class SideBySide(WordVocabulary):
    """Words stand side by side; what fills none is written in single letters."""

    def __init__(self, declared: Kmers) -> None:
        super().__init__(declared)
        self.single = declared.single
        self.first_single = self.first_id + declared.n_words
        self.index = folded(declared.single, self.first_single)
        self.remainder = declared.remainder

    def _stretch(self, text: str, start: int) -> Iterator[int]:
        digits = [self.digit.get(letter) for letter in text]
        at = 0
        while at < len(text):
            word = digits[at : at + self.k]
            if len(word) == self.k and None not in word:
                yield self.id_of(word)  # type: ignore[arg-type]  # no None is in it
                at += self.k
            else:
                found = self.index.get(text[at])
                yield self._left_over(text, at, start) if found is None else found
                at += 1

    def _left_over(self, text: str, at: int, start: int) -> int:
        """The id of a letter that is no token."""
        if text[at] in self.digit and self.unk_id is None:
            place = f"text[{start + at}] = {text[at]!r}"
            raise VocabularyError(f"{place} fills no word of k = {self.k} letters; with remainder: true it is a token")
        return self.unknown(text[at], start + at, self.known)

    def _plain(self, ids: list[int], start: int) -> str:
        return "".join(self.single[i - self.first_single] if i >= self.first_single else self.word(i) for i in ids)
