"""What `forward` of a layer takes beside x: each said once, for signatures, docstrings, checks and pictures alike.

A caller gives a model its input and, where the model takes them, a mask, positions, documents, a prefix and a state;
the model makes what its layers need of these, and hands it to those that name it in `Component.arguments`.
"""

from typing import Literal, NamedTuple

from archspec.layers.ops import Shape

INPUTS = ("mask", "positions", "documents")  # what a spec says under `inputs`: its model takes them, or has none of it


class Argument(NamedTuple):
    """One argument of a layer.

    Attributes:
        name: the parameter of `forward`, None by default.
        type: its Python type, as it is written in a signature.
        shape: of the tensor that it is; () where it is none.
        meaning: what it is, as the docstring of a model has it; `{}` stands for its name there.
        maker: who makes it: the caller of the model, the model, another member of the stack, or another layer.
        of: the inputs of the model that it is made of: without any of them it is not there. Empty for what always is.
        data: whether it is a tensor that the model computes, and so an edge of the graph.
    """

    name: str
    type: str
    shape: Shape
    meaning: str
    maker: Literal["caller", "model", "stack", "layer"] = "caller"
    of: tuple[str, ...] = ()
    data: bool = False

    def is_among(self, inputs: frozenset[str]) -> bool:
        """Whether it is there in a model that takes these of `INPUTS`."""
        return not self.of or not inputs.isdisjoint(self.of)


_ALL = (
    Argument(
        "state", "State | None", (), "`{}` is read and brought up to date: a dict, empty at the start of a sequence"
    ),
    Argument(
        "mask",
        "Tensor | None",
        ("B", "T"),
        "`{}` (B, T) is True for real tokens",
        of=("mask",),
    ),
    Argument(
        "key_mask",
        "Tensor | None",
        ("B", "S"),
        "`{}` (B, S) is True for the real ones of all tokens so far",
        maker="model",
        of=("mask",),
    ),
    Argument(
        "positions",
        "Tensor | None",
        ("B", "T"),
        "`{}` (B, T) are those of the tokens; without them real tokens count from 0",
        of=INPUTS,
    ),
    Argument(
        "places",
        "Tensor | None",
        ("B", "T"),
        "`{}` (B, T) are positions as the caller gave them, for what looks at their differences alone",
        maker="model",
        of=("positions",),
    ),
    Argument(
        "documents",
        "Tensor | None",
        ("B", "T"),
        "`{}` (B, T) number the sequences that a row packs; nothing crosses from one to another",
        of=("documents",),
    ),
    Argument(
        "document_ids",
        "Tensor | None",
        ("B", "T"),
        "`{}` (B, T) are the numbers of documents as the caller gave them, by which they find their own in a memory",
        maker="model",
        of=("documents",),
    ),
    Argument(
        "memory_documents",
        "Tensor | None",
        ("B", "M"),
        "`{}` (B, M) are the numbers of the documents of the memory",
        maker="model",
        of=("documents",),
    ),
    Argument(
        "rows",
        "Rows | None",
        (),
        "`{}` say where the documents stand, for layers that run each in a row of its own",
        maker="model",
        of=("documents",),
    ),
    Argument("memory", "Tensor | None", ("B", "M", "D"), "`{}` is what another stack gives", maker="stack", data=True),
    Argument(
        "memory_mask", "Tensor | None", ("B", "M"), "`{}` is True for its real tokens", maker="model", of=("mask",)
    ),
    Argument(
        "keys",
        "Tensor | None",
        ("B", "H", "S", "D"),
        "`{}` (B, H, S, D) are those of an earlier layer, of all tokens so far",
        maker="layer",
        data=True,
    ),
    Argument(
        "values",
        "Tensor | None",
        ("B", "H", "S", "D"),
        "`{}` (B, H, S, D) are those of an earlier layer, of all tokens so far",
        maker="layer",
        data=True,
    ),
    Argument("bias", "Tensor | None", ("B", "H", "T", "S"), "`{}` is added to the scores", maker="stack", data=True),
    Argument(
        "prefix_len",
        "int | Tensor | None",
        ("B",),
        "the first `{}` tokens are seen by all; while decoding, the first call must hold them all",
    ),
    Argument(
        "global_mask",
        "Tensor | None",
        ("B", "T"),
        "`{}` (B, T) is True for tokens that see all others and are seen by all, whatever the window",
    ),
    Argument("token_types", "Tensor | None", ("B", "T"), "`{}` (B, T) numbers the segment of each token"),
    Argument(
        "channels",
        "dict[str, Tensor | None] | None",
        (),
        "`{}` are further ids of each token, (B, T) by name",
        maker="model",
    ),
    Argument(
        "aux",
        "Scope | None",
        (),
        "`{}` is a dict, empty, which is filled with losses and counts of this pass by name, for `aux_loss`",
    ),
)
ARGUMENTS: dict[str, Argument] = {a.name: a for a in _ALL}
# in the order in which a model takes what its caller makes, channels behind token_types; the state and aux come last
GIVEN = ("token_types", "mask", "positions", "documents", "global_mask", "prefix_len")
BY_TOKEN = ("token_types", "channels")  # what is given for each token, and so moves with it


def argument(name: str) -> Argument:
    """What an argument is; a name that is none of ours is that of a channel."""
    meaning = "`{}` (B, T) are further ids of the tokens; without them all are 0"
    return ARGUMENTS.get(name) or Argument(name, "Tensor | None", ("B", "T"), meaning)


def in_order(names: set[str]) -> tuple[str, ...]:
    """Names of arguments in the order in which signatures have them, those of channels first."""
    return (*sorted(names - ARGUMENTS.keys()), *(name for name in ARGUMENTS if name in names))
