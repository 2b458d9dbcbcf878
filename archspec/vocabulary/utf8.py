"""Bytes: the UTF-8 of a text, and of ids."""

from collections.abc import Iterable

from archspec.errors import VocabularyError
from archspec.layers.vocabularies.bytes import Bytes
from archspec.vocabulary.written import Written


def make(declared: Bytes, folder: str) -> "ByteVocabulary":
    """The vocabulary that is declared; it needs no file."""
    return ByteVocabulary(declared)


class ByteVocabulary(Written):
    """Each byte is a token."""

    def __init__(self, declared: Bytes) -> None:
        super().__init__(declared)
        self.taken = self._tokens if declared.specials_at == "control" else {}

    def _stretch(self, text: str, start: int) -> Iterable[int]:
        for byte, token in self.taken.items():
            if chr(byte) in text:
                at = start + text.index(chr(byte))
                raise VocabularyError(f"text[{at}] = {chr(byte)!r} is the byte that stands for {token}")
        try:
            data = text.encode("utf-8")
        except UnicodeEncodeError as error:
            found = f"text[{start + error.start}] = {text[error.start]!r}"
            raise VocabularyError(f"{found} is half of a surrogate pair, which is no UTF-8") from None
        return [byte + self.first_id for byte in data] if self.first_id else data

    def _plain(self, ids: list[int], start: int) -> str:
        return bytes(i - self.first_id for i in ids).decode("utf-8", errors="replace")

    def token(self, i: int) -> str:
        """The character of an ASCII byte, and others as \\x80."""
        (i,) = self._ids([i])
        if i in self._tokens:
            return self._tokens[i]
        byte = i - self.first_id
        return chr(byte) if 0x20 < byte < 0x7F else f"\\x{byte:02x}"
