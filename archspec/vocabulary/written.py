"""Vocabularies of the spec alone: special tokens are split off, and what is between them is encoded by itself."""

import re
from abc import abstractmethod
from collections.abc import Iterable
from itertools import groupby
from typing import TYPE_CHECKING, Any

from archspec.errors import VocabularyError
from archspec.vocabulary.base import Vocabulary

if TYPE_CHECKING:
    from torch import Tensor


class Written(Vocabulary):
    """A vocabulary whose tokens follow from the spec."""

    def __init__(self, declared: Any) -> None:
        super().__init__(declared.kind, declared.n_ids, declared.vocab_size)
        self._specials = {token: declared.first_special + i for i, token in enumerate(declared.specials)}
        self._tokens = {i: token for token, i in self._specials.items()}
        self.first_id: int = declared.first_id
        self.before = [self._specials[declared.prepend]] if declared.prepend else []
        self.after = [self._specials[declared.append]] if declared.append else []
        self._split = re.compile("|".join(map(re.escape, self._specials)) or r"(?!)")

    @property
    def specials(self) -> dict[str, int]:
        """The special tokens as they are written, each with its id."""
        return self._specials

    def token(self, i: int) -> str:
        """The text of the token with an id."""
        (i,) = self._ids([i])
        return self._tokens[i] if i in self._tokens else self._plain([i], 0)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The ids of a text."""
        if not isinstance(text, str):
            raise TypeError(f"encode takes one text, not {type(text).__name__}; encode_batch takes a list")
        ids: list[int] = []
        end = 0
        for found in self._split.finditer(text):
            ids += [*self._stretch(text[end : found.start()], end), self._specials[found[0]]]
            end = found.end()
        ids += self._stretch(text[end:], end)
        return [*self.before, *ids, *self.after] if add_special_tokens else ids

    def decode(self, ids: "Iterable[int] | Tensor", *, skip_special_tokens: bool = False) -> str:
        """The text of ids."""
        kept = self._without_edges(self._ids(ids))
        parts: list[str] = []
        at = 0
        for special, run in groupby(kept, self._tokens.__contains__):
            found = list(run)
            if not special:
                parts.append(self._plain(found, at))
            elif not skip_special_tokens:
                parts += [self._tokens[i] for i in found]
            at += len(found)
        return "".join(parts)

    def _without_edges(self, ids: list[int]) -> list[int]:
        """Ids without padding at the ends, and without what encode adds there."""
        start, end = 0, len(ids)
        while end > start and ids[end - 1] == self.pad_id:
            end -= 1
        while start < end and ids[start] == self.pad_id:
            start += 1
        if self.before and ids[start:end][:1] == self.before:
            start += 1
        if self.after and ids[start:end][-1:] == self.after:
            end -= 1
        return ids[start:end]

    def unknown(self, text: str, at: int, known: str) -> int:
        """The id of the token for what is unknown; raises VocabularyError where there is none."""
        if self.unk_id is None:
            raise VocabularyError(f"text[{at}] = {text!r} is none of {known}, and {self.kind} has no [UNK] for others")
        return self.unk_id

    @abstractmethod
    def _stretch(self, text: str, start: int) -> Iterable[int]:
        """The ids of a text without special tokens, which begins at `start` of the whole."""

    @abstractmethod
    def _plain(self, ids: list[int], start: int) -> str:
        """The text of ids without special tokens, which begin at `start` of the whole."""
