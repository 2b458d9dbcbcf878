"""What every vocabulary does: encode and decode one text or many, and find special tokens by name."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from operator import index
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from archspec.errors import VocabularyError, listed

if TYPE_CHECKING:
    from torch import Tensor


class Batch(NamedTuple):
    """Texts of different lengths as one tensor.

    Attributes:
        ids: int64 (B, T), padded.
        mask: bool (B, T), True at tokens and False at padding, as models take it.
    """

    ids: "Tensor"
    mask: "Tensor"


class Vocabulary(ABC):
    """The tokens of a model.

    Attributes:
        kind: as the spec spells it.
        n_ids: tokens, special ones included; ids go from 0 to n_ids - 1.
        vocab_size: rows of the model's table, at least n_ids.
    """

    def __init__(self, kind: str, n_ids: int, vocab_size: int) -> None:
        self.kind, self.n_ids, self.vocab_size = kind, n_ids, vocab_size

    def __repr__(self) -> str:
        return f"Vocabulary({self.kind}: {self.n_ids} tokens, vocab_size {self.vocab_size})"

    # Special tokens

    @property
    @abstractmethod
    def specials(self) -> dict[str, int]:
        """The special tokens as they are written, each with its id."""

    @cached_property
    def _named(self) -> dict[str, list[int]]:
        """Ids by the bare names of special tokens: `pad` of [PAD], <pad> and <|pad|>."""
        found: dict[str, list[int]] = {}
        for token, i in self.specials.items():
            found.setdefault(re.sub(r"[^\w]", "", token).lower(), []).append(i)
        return found

    def special(self, name: str) -> int:
        """The id of a special token, by its text ([MASK]) or its bare name (mask).

        Raises:
            VocabularyError: there is none of that name, or more than one.
        """
        if not isinstance(name, str):
            raise TypeError(f"special takes the name of a token, not {type(name).__name__}")
        if name in self.specials:
            return self.specials[name]
        found = self._named.get(name.lower(), [])
        if len(found) != 1:
            many = "several special tokens" if found else "no special token"
            raise VocabularyError(f"{self.kind} has {many} {name!r}{listed(self.specials)}")
        return found[0]

    def _unique(self, name: str) -> int | None:
        found = self._named.get(name, [])
        return found[0] if len(found) == 1 else None

    @cached_property
    def pad_id(self) -> int | None:
        """The id of the padding token, where there is one."""
        return self._unique("pad")

    @cached_property
    def unk_id(self) -> int | None:
        """The id of the token for what is unknown, where there is one."""
        return self._unique("unk")

    # One text

    @abstractmethod
    def token(self, i: int) -> str:
        """The text of the token with an id."""

    @abstractmethod
    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The ids of a text.

        Special tokens that are written in it ("AC[MASK]T") are recognised.

        Args:
            text: any text.
            add_special_tokens: whether the tokens that the vocabulary puts at its ends are added.

        Raises:
            VocabularyError: the text holds what there is no token for; it says what and where.
        """

    @abstractmethod
    def decode(self, ids: "Iterable[int] | Tensor", *, skip_special_tokens: bool = False) -> str:
        """The text of ids, the inverse of `encode`: without padding and the tokens that encode adds at its ends.

        Args:
            ids: of one text, (T,).
            skip_special_tokens: leave all special tokens out, those in the text too.

        Raises:
            VocabularyError: an id is no token, or tokens that do not go together.
        """

    def _ids(self, ids: Any) -> list[int]:
        """Ids as a list, checked to be tokens."""
        found = ids.tolist() if hasattr(ids, "tolist") else ids
        if isinstance(found, str) or not isinstance(found, Iterable):
            raise VocabularyError(f"ids = {found!r} must be a row of ids; decode takes those of one text")
        found = list(found)
        for at, i in enumerate(found):
            if isinstance(i, bool) or not hasattr(i, "__index__"):
                raise VocabularyError(f"ids[{at}] = {i!r} is no whole number; decode takes the ids of one text")
            if not 0 <= i < self.n_ids:
                padded = self.n_ids <= i < self.vocab_size
                why = f" (vocab_size {self.vocab_size} is padded)" if padded else ""
                raise VocabularyError(f"ids[{at}] = {i} is no token: there are {self.n_ids} of them{why}")
        return [index(i) for i in found]

    # Many texts

    def encode_batch(
        self,
        texts: Sequence[str],
        *,
        add_special_tokens: bool = True,
        side: Literal["right", "left"] = "right",
        length: int | None = None,
    ) -> Batch:
        """Many texts as one tensor, padded with the padding token (or with id 0, where there is none).

        Args:
            texts: the texts.
            add_special_tokens: as in `encode`.
            side: where padding stands.
            length: T; that of the longest text where it is not given.

        Raises:
            VocabularyError: a text cannot be encoded (it says which), or is longer than `length`.
            TypeError, ValueError: there are no texts, or no such side or length.
        """
        import torch

        if isinstance(texts, str):
            raise TypeError("encode_batch takes a list of texts; encode takes one")
        if side not in ("right", "left"):
            raise ValueError(f"side = {side!r} is unknown; known: right, left")
        if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < 0):
            raise ValueError(f"length = {length!r} must be a whole number, at least 0")
        rows = [self._row(i, text, add_special_tokens) for i, text in enumerate(texts)]
        longest = max(map(len, rows), default=0) if length is None else length
        ids = torch.full((len(rows), longest), self.pad_id or 0, dtype=torch.int64)
        mask = torch.zeros(len(rows), longest, dtype=torch.bool)
        for i, row in enumerate(rows):
            if len(row) > longest:
                raise VocabularyError(f"texts[{i}] has {len(row)} tokens, more than length = {longest}")
            place = slice(longest - len(row), longest) if side == "left" else slice(len(row))
            ids[i, place] = torch.tensor(row, dtype=torch.int64)
            mask[i, place] = True
        return Batch(ids, mask)

    def _row(self, i: int, text: str, add_special_tokens: bool) -> list[int]:
        if not isinstance(text, str):
            raise TypeError(f"texts[{i}] must be a text, not {type(text).__name__}")
        try:
            return self.encode(text, add_special_tokens=add_special_tokens)
        except VocabularyError as error:
            raise VocabularyError(f"texts[{i}]: {error}") from None

    def decode_batch(
        self,
        ids: "Iterable[Iterable[int]] | Tensor",
        mask: "Tensor | Sequence[Sequence[int]] | None" = None,
        *,
        skip_special_tokens: bool = False,
    ) -> list[str]:
        """The texts of the rows of (B, T) ids; with a mask, of those tokens alone at which it is True, or 1.

        Raises:
            VocabularyError: an id is no token, tokens do not go together, or the mask has another shape than the ids.
        """
        rows = _lists(ids)
        if mask is not None:
            kept = _lists(mask)
            if [*map(len, kept)] != [*map(len, rows)]:
                raise VocabularyError("mask must be of the shape of ids, (B, T): True or 1 at tokens")
            rows = [
                [i for i, real in zip(row, reals, strict=True) if real] for row, reals in zip(rows, kept, strict=True)
            ]
        return [self.decode(row, skip_special_tokens=skip_special_tokens) for row in rows]


def _lists(rows: Any) -> list[list[Any]]:
    """Rows of a tensor, or of anything that can be gone over, as lists."""
    rows = rows.tolist() if hasattr(rows, "tolist") else rows
    return [row.tolist() if hasattr(row, "tolist") else list(row) for row in rows]
