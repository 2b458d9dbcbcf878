"""What every vocabulary declares: its special tokens, which ids they have, and how many rows the model's table has.

A vocabulary turns text into ids and back (`archspec.vocabulary`); a spec that names one need not say `vocab_size`.
Nothing here reads a text or a file: a size follows from the fields alone.
"""

import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import ClassVar, Literal

from archspec.layers.base import Component
from archspec.layers.fields import LARGEST, Size, field
from archspec.layers.ops import Op

BRACKETED = re.compile(r"\[[^\s\[\]]+\]|<[^\s<>]+>")
MOST_SPECIALS = 1000
USUAL_SPECIALS = ("[PAD]", "[CLS]", "[SEP]", "[MASK]")


class VocabularyComponent(Component):
    """The tokens of a model, each with its id."""

    role: ClassVar[str] = "vocabulary"
    runs: ClassVar[str]  # the file of archspec/vocabulary/ that encodes and decodes

    specials: tuple[str, ...] = field("special tokens, in the order of their ids", (), strict=False)
    pad_to_multiple_of: Size = field("vocab_size is the number of tokens rounded up to a multiple of this", 1)

    @property
    def n_ids(self) -> int:
        """How many tokens there are, special ones included."""
        raise NotImplementedError(f"{type(self).__name__} does not say how many tokens it has")

    @property
    def vocab_size(self) -> int:
        """Rows of the model's table: the tokens, padded."""
        return -(-self.n_ids // self.pad_to_multiple_of) * self.pad_to_multiple_of

    def check(self) -> None:
        """Refuse special tokens that cannot be told apart, and sizes that no table can have."""
        if len(set(self.specials)) < len(self.specials):
            twice = next(s for s in self.specials if self.specials.count(s) > 1)
            raise ValueError(f"specials name {twice!r} twice; keep one")
        if len(self.specials) > MOST_SPECIALS:
            raise ValueError(f"specials name {len(self.specials)} tokens; at most {MOST_SPECIALS} are allowed")
        if self.vocab_size > LARGEST:
            raise ValueError(f"there would be {self.vocab_size} tokens; no table can hold more than {LARGEST}")

    def ops(self) -> tuple[Op, ...]:
        """None: it stands before the model."""
        return ()


class WrittenVocabulary(VocabularyComponent):
    """A vocabulary whose tokens follow from the spec alone; special tokens stand in brackets, as in [MASK] or <pad>."""

    specials_at: Literal["first", "last"] = field("whether the ids of special tokens come first or last", "first")
    prepend: str | None = field("special token that encode puts before a text", None)
    append: str | None = field("special token that encode puts after a text", None)

    @property
    def first_id(self) -> int:
        """The id of the first token that is not special."""
        return len(self.specials) if self.specials_at == "first" else 0

    @property
    def first_special(self) -> int:
        """The id of the first special token."""
        return self.n_ids - len(self.specials) if self.specials_at == "last" else 0

    def check(self) -> None:
        """Refuse special tokens that could be text, and edges that are none of them."""
        super().check()
        for special in self.specials:
            if not BRACKETED.fullmatch(special) or not special.isprintable():
                raise ValueError(f"special token {special!r} must be one word in brackets, such as [MASK] or <pad>")
        for name, token in (("prepend", self.prepend), ("append", self.append)):
            if token is not None and token not in self.specials:
                known = ", ".join(self.specials) or "none"
                raise ValueError(f"{name} = {token!r} must be one of the special tokens: {known}")


class FileVocabulary(VocabularyComponent):
    """A vocabulary that stands in a file beside the spec, which is read when a text is first encoded."""

    runs: ClassVar[str] = "tokenizer"
    model: ClassVar[str]  # the class of `tokenizers.models` that the file must hold
    trainer: ClassVar[str]  # the class of `tokenizers.trainers` that learns one

    file: str = field("path of the tokenizer file (tokenizer.json), from the folder of the spec")
    size: Size = field("tokens in the file, special and added ones included")

    @property
    def n_ids(self) -> int:
        """What the spec says, to which the file is held."""
        return self.size

    def check(self) -> None:
        """Refuse paths that leave the folder of the spec, and fewer tokens than are named."""
        super().check()
        path = PurePosixPath(self.file)
        if not self.file.strip() or not self.file.isprintable():
            raise ValueError("file must be the path of a tokenizer file, such as tok.json")
        if path.is_absolute() or PureWindowsPath(self.file).anchor or ".." in path.parts:
            raise ValueError(f"file = {self.file!r} leaves the folder of the spec; name a file in it or below it")
        if self.size < len(self.specials):
            raise ValueError(f"size = {self.size} is below the {len(self.specials)} special tokens")


def check_letters(name: str, letters: str, least: int) -> None:
    """Raise ValueError unless `letters` are different printable ASCII characters, upper case and no brackets."""
    wrong = next((c for c in letters if not "!" <= c <= "~" or c in "[]<>"), "")
    if wrong:
        raise ValueError(
            f"{name} = {letters!r} holds {wrong!r}; letters are printable ASCII without spaces and brackets"
        )
    if letters != letters.upper():
        right = "".join(dict.fromkeys(letters.upper()))
        raise ValueError(f"{name} = {letters!r} must be {right!r}: texts are folded to upper case")
    twice = next((c for i, c in enumerate(letters) if c in letters[:i]), "")
    if twice:
        raise ValueError(f"{name} = {letters!r} holds {twice!r} twice")
    if len(letters) < least:
        raise ValueError(f"{name} = {letters!r} must be at least {least} letters")
