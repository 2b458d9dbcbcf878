"""How the weights of a model start: the role, and what it is told of the names of a model's tensors."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

from pydantic import PrivateAttr

from archspec.layers.base import Component
from archspec.layers.ops import Op

Ends = str | tuple[str, ...]  # what `str.endswith` takes
Numbers = tuple[tuple[str, int], ...]  # (start of a name, number)


@dataclass(frozen=True, slots=True)
class InitNames:
    """What an init is told of its model: ends of the names of what starts in a way of its own.

    Attributes:
        residual: projections that write to the residual stream.
        branches: residual branches of each stack, where stacks differ.
        widths: d_model of each stack, where stacks differ.
        queries: projections that give the queries of an attention.
        head_dims: channels of a head of queries: of all, of those of each stack, or of each projection.
        output: the output layer, where it has weights of its own and is the only one.
        outputs: the output layers that have weights of their own, where there are several.
        biases: tables of biases of scores.
        stacked: matrices of all experts in one tensor (n_experts, out, in).
        stacked_residual: those of them that write to the residual stream.
        cells: dictionaries with the weights of recurrent cells.
        linear_biases: whether some linear layer or convolution of patches has a bias.
        convolutions: whether there are convolutions of patches.
        tables: whether there are embedding tables.
    """

    residual: Ends = ()
    branches: Numbers = ()
    widths: Numbers = ()
    queries: Ends = ()
    head_dims: Numbers = ()
    output: str = ""
    outputs: tuple[str, ...] = ()
    biases: Ends = ()
    stacked: Ends = ()
    stacked_residual: Ends = ()
    cells: Ends = ()
    linear_biases: bool = True
    convolutions: bool = True
    tables: bool = True


class InitComponent(Component):
    """How the weights of a model start; `names` says of which model."""

    role: ClassVar[str] = "init"
    _names: InitNames = PrivateAttr(default=InitNames())

    @property
    def names(self) -> InitNames:
        """What it is told of the model."""
        return self._names

    def of_model(self, names: InitNames) -> Self:
        """The same init for a model of these names."""
        found = self.model_copy()
        found._names = names
        return found

    def idle(self) -> Iterator[str]:
        """What it sets of tensors that the model of `names` does not have: accepted with a warning."""
        yield from ()

    def ops(self) -> tuple[Op, ...]:
        """None: an init changes values, not tensors."""
        return ()
