"""Bytes: a token for each byte of the text's UTF-8, and special tokens.

    ids = bytes(text) + first_id

With `specials_at: control` the special tokens are the first bytes themselves (0, 1, ...), which no written text holds.
Any text can be encoded; ids that are no UTF-8 decode to replacement characters.

Sources: Xue et al. 2022, "ByT5" (specials first); Nguyen et al. 2024, "Evo" (control bytes).
"""

from typing import Any, ClassVar, Literal

from archspec.layers.fields import field
from archspec.layers.vocabulary import WrittenVocabulary

BYTES = 256
CONTROLS = 32  # bytes below the space


class Bytes(WrittenVocabulary):
    """Each byte of a text is a token."""

    runs: ClassVar[str] = "utf8"
    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {},
        {"specials": ["<pad>", "</s>", "<unk>"], "specials_at": "first", "append": "</s>", "pad_to_multiple_of": 128},
        {"specials": ["<eos>", "<pad>"], "specials_at": "control", "pad_to_multiple_of": 512},
    )

    kind: Literal["bytes"] = "bytes"
    specials_at: Literal["first", "last", "control"] = field(  # type: ignore[assignment]  # one choice more
        "whether the ids of special tokens come first, last, or are those of the first control bytes", "last"
    )

    @property
    def n_ids(self) -> int:
        """The bytes, and special tokens that are none."""
        return BYTES + (0 if self.specials_at == "control" else len(self.specials))

    def check(self) -> None:
        """Refuse more special tokens than there are control bytes."""
        super().check()
        if self.specials_at == "control" and len(self.specials) > CONTROLS:
            raise ValueError(f"there are {CONTROLS} control bytes, too few for {len(self.specials)} special tokens")
