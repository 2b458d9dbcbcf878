"""Tokenizer files: BPE and Unigram as the `tokenizers` library reads them, when a text is first encoded."""

import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archspec.errors import MissingError, VocabularyError, listed
from archspec.language.source import no_plain_file
from archspec.layers.vocabulary import FileVocabulary
from archspec.vocabulary.base import Vocabulary

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_FILE = 1 << 28  # bytes; the largest published ones have some 2**25


def make(declared: FileVocabulary, folder: str) -> "TokenizerVocabulary":
    """The vocabulary that is declared, whose file is looked for in a folder."""
    return TokenizerVocabulary(declared, folder)


def library() -> Any:
    """The `tokenizers` library."""
    try:
        import tokenizers
    except ModuleNotFoundError:
        install = "pip install 'archspec-compiler[text]'"
        raise MissingError(f"tokenizer files need the package tokenizers: {install}", name="tokenizers") from None
    return tokenizers


class TokenizerVocabulary(Vocabulary):
    """Pieces of text that stand in a file."""

    def __init__(self, declared: FileVocabulary, folder: str) -> None:
        super().__init__(declared.kind, declared.n_ids, declared.vocab_size)
        self.declared, self.folder = declared, Path(folder or ".")
        self.name = str(Path(folder) / declared.file)

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer of the file.

        Raises:
            VocabularyError: the file is missing, is none, or is another than the spec says.
            MissingError: the library is not installed.
        """
        text = self._read()
        kind, wanted = _model(text, self.name), self.declared.model
        if kind != wanted:
            raise VocabularyError(
                f"{self.name}: holds a {kind or 'file without a'} model, and the spec says {self.kind}"
            )
        tokenizers = library()
        try:
            found = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises no other
            raise VocabularyError(f"{self.name}: is no tokenizer file: {error}") from None
        self._check(found)
        found.no_padding()
        found.no_truncation()
        return found

    def _read(self) -> str:
        path = self.folder / self.declared.file
        wrong = no_plain_file(path)
        if wrong:
            raise VocabularyError(f"{self.name}: {wrong}; the spec's {self.kind} vocabulary is read from it")
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise VocabularyError(f"{self.name}: leads out of the folder of the spec")
        try:
            if path.stat().st_size > LARGEST_FILE:
                raise VocabularyError(f"{self.name}: is larger than {LARGEST_FILE} bytes")
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise VocabularyError(f"{self.name}: cannot be read: {getattr(error, 'strerror', None) or error}") from None

    def _check(self, found: Any) -> None:
        """Hold the file to the spec."""
        ids = found.get_vocab(with_added_tokens=True)
        if len(ids) != self.declared.size:
            raise VocabularyError(f"{self.name}: has {len(ids)} tokens, and the spec says size: {self.declared.size}")
        if max(ids.values(), default=-1) != len(ids) - 1:
            raise VocabularyError(f"{self.name}: leaves ids out: the largest of its {len(ids)} is {max(ids.values())}")
        special = {token.content: i for i, token in found.get_added_tokens_decoder().items() if token.special}
        for token in self.declared.specials:
            if token not in special:
                raise VocabularyError(f"{self.name}: has no special token {token!r}{listed(special)}")
        said = [special[token] for token in self.declared.specials]
        if said != sorted(said):
            right = sorted(self.declared.specials, key=special.__getitem__)
            raise VocabularyError(f"{self.name}: has its special tokens in another order: {', '.join(right)}")

    @cached_property
    def specials(self) -> dict[str, int]:
        """The special tokens that the spec names, or where it names none, those of the file; each with its id."""
        added = self.tokenizer.get_added_tokens_decoder()
        marked = [token.content for token in added.values() if token.special]
        return {token: self.tokenizer.token_to_id(token) for token in self.declared.specials or marked}

    def token(self, i: int) -> str:
        """The piece of an id, as the file spells it."""
        (i,) = self._ids([i])
        return str(self.tokenizer.id_to_token(i))

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The ids of a text; at its ends stand the special tokens that the file's own template adds."""
        if not isinstance(text, str):
            raise TypeError(f"encode takes one text, not {type(text).__name__}; encode_batch takes a list")
        tokenizer = self.tokenizer
        try:
            text.encode()
            found = tokenizer.encode(text, add_special_tokens=add_special_tokens)
        except UnicodeEncodeError as error:
            raise VocabularyError(f"text[{error.start}] = {text[error.start]!r} is no Unicode letter") from None
        except Exception as error:  # the library raises no other
            raise VocabularyError(f"{self.name}: cannot encode the text: {error}") from None
        self._check_whole(text, found.offsets)
        return list(found.ids)

    def _check_whole(self, text: str, offsets: Iterable[tuple[int, int]]) -> None:
        """Refuse letters that the library leaves out, as it does where a model has no token for the unknown.

        Its offsets then tell that something is missing, but not what; that is asked letter by letter.
        """
        covered = bytearray(len(text))
        for start, end in offsets:
            covered[start:end] = b"\1" * (end - start)
        if all(covered):
            return
        lost = {c for c in set(text) if not c.isspace() and not self.tokenizer.encode(c, add_special_tokens=False).ids}
        if lost:
            at = next(i for i, letter in enumerate(text) if letter in lost)
            raise VocabularyError(f"text[{at}] = {text[at]!r} is in no token of {self.name}, which has none for others")

    def decode(self, ids: "Iterable[int] | Tensor", *, skip_special_tokens: bool = False) -> str:
        """The text of ids."""
        found = self._without_edges(self._ids(ids))
        return str(self.tokenizer.decode(found, skip_special_tokens=skip_special_tokens))

    @cached_property
    def _edges(self) -> frozenset[int | None]:
        """The padding, and what the file's template adds to an empty text."""
        return frozenset([self.pad_id, *self.tokenizer.encode("").ids])

    def _without_edges(self, ids: list[int]) -> list[int]:
        start, end = 0, len(ids)
        while end > start and ids[end - 1] in self._edges:
            end -= 1
        while start < end and ids[start] in self._edges:
            start += 1
        return ids[start:end]


def _model(text: str, name: str) -> str:
    """The kind of model that a tokenizer file holds."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise VocabularyError(f"{name}: is no tokenizer file: {error}") from None
    model = data.get("model") if isinstance(data, dict) else None
    kind = model.get("type") if isinstance(model, dict) else None
    return kind if isinstance(kind, str) else ""
