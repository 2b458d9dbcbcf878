"""What `forward` of a layer takes beside x: each said once, for signatures, docstrings, checks and pictures alike."""

from typing import NamedTuple


class Argument(NamedTuple):
    """One argument of a layer.

    Attributes:
        name: the parameter of `forward`, None by default.
        type: its Python type, as it is written in a signature.
        data: whether it is a tensor that the model computes, and so an edge of the graph.
        meaning: what it is, in the docstring of a model that takes it from its caller; `{}` stands for its name there.
    """

    name: str
    type: str
    data: bool = False
    meaning: str = ""


ARGUMENTS: dict[str, Argument] = {
    a.name: a
    for a in (
        Argument(
            "state",
            "State | None",
            meaning="`{}` is read and brought up to date: a dict, empty at the start of a sequence",
        ),
        Argument("mask", "Tensor | None", meaning="`{}` (B, T) is True for real tokens"),
        Argument("memory", "Tensor | None", data=True),
        Argument("memory_mask", "Tensor | None"),
        Argument("bias", "Tensor | None", data=True),
        Argument(
            "prefix_len",
            "int | Tensor | None",
            meaning="the first `{}` tokens are seen by all; while decoding, the first call must hold them all",
        ),
        Argument("token_types", "Tensor | None", meaning="`{}` (B, T) numbers the segment of each token"),
    )
}


def in_order(names: set[str]) -> tuple[str, ...]:
    """Names of arguments in the order in which signatures have them."""
    return tuple(name for name in ARGUMENTS if name in names)
