"""What LSTM, GRU and RNN declare alike: layers of one cell above each other, in one direction or both.

State while decoding: what the cell carries from token to token, in every layer. Cost O(T d_hidden (d_model +
d_hidden)), one token after another while training too. Bidirectional ones do not decode.
"""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from pydantic import Field

from archspec.layers.base import MixerComponent
from archspec.layers.fields import Probability, Width, derived, field, inherited
from archspec.layers.ops import CONCAT, Kept, Op, Param, Recurrent, elementwise, linear

Depth = Annotated[int, Field(gt=0, le=1024)]


class RecurrentMixer(MixerComponent):
    """A mixer made of PyTorch's own cells; a kind says how many gates its cell has and what it carries.

    The weights are those of the `torch.nn` module of the kind, in a dictionary called `kind`.
    """

    gates: ClassVar[int]  # matrices that PyTorch stacks in one weight
    carries: ClassVar[tuple[str, ...]] = ("h",)  # names of what is kept, d_hidden numbers each
    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {},
        {"d_hidden": 12, "depth": 2, "dropout": 0.25},
        {"bias": False, "d_hidden": 8},
        {"bidirectional": True, "depth": 2, "d_hidden": 8},
        {"bidirectional": True},
    )

    d_model: Width = inherited("width of the residual stream")
    d_hidden: Width = derived("width of the hidden state", "d_model")
    depth: Depth = field("layers, one above the other", 1)
    bias: bool = field("biases of the cells and of the output projection", True)
    bidirectional: bool = field("whether a second network reads from the end; the outputs stand side by side", False)
    dropout: Probability = field("dropout between layers, where depth is more than 1", 0.0)

    def doubts(self, length: int | None) -> Iterator[str]:
        """Dropout that has no place."""
        if self.dropout and self.depth == 1:
            yield f"dropout = {self.dropout:g} acts between layers, and depth is 1"

    @property
    def arguments(self) -> tuple[str, ...]:
        """The mask, and the decoding state unless it also reads from the end."""
        return ("mask",) if self.bidirectional else ("state", "mask")

    @property
    def causal(self) -> bool:
        """Whether the output at a token depends on no later one."""
        return not self.bidirectional

    @property
    def d_out(self) -> int:
        """Width of what the last layer gives."""
        return 2 * self.d_hidden if self.bidirectional else self.d_hidden

    @property
    def projects(self) -> bool:
        """Whether an output projection leads back to d_model: where the widths differ."""
        return self.d_out != self.d_model

    def ops(self) -> tuple[Op, ...]:
        """One recurrence for each layer and direction, then the output projection where the widths differ."""
        found: list[Op] = []
        below: tuple[str, ...] = ("x",)
        for layer in range(self.depth):
            top = layer == self.depth - 1
            suffixes = (f"l{layer}", f"l{layer}_reverse") if self.bidirectional else (f"l{layer}",)
            found += [self._cell(suffix, self.d_out if layer else self.d_model, below, top) for suffix in suffixes]
            if self.bidirectional:
                shape = ("B", "T", self.d_out)
                found.append(elementwise(CONCAT, shape, suffixes, f"l{layer}_both", within=self._call))
            below = (found[-1].name,)
        if self.projects:
            found.append(linear("out_proj", self.d_out, self.d_model, self.bias, inputs=below, residual=True))
        return tuple(found)

    @property
    def _call(self) -> str:
        """The op that stands for the one call that computes all layers."""
        return f"l{self.depth - 1}_reverse" if self.bidirectional else f"l{self.depth - 1}"

    def _cell(self, suffix: str, d_in: int, inputs: tuple[str, ...], top: bool) -> Op:
        rows = self.gates * self.d_hidden
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, d_in), "weight_hh": (rows, self.d_hidden)}
        shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)} if self.bias else {}
        last, ends = suffix == self._call, top and not self.projects
        kept = tuple(Kept(name, (self.depth, "B", self.d_hidden)) for name in self.carries)
        return Recurrent(
            name=suffix,
            shape=("B", "T", self.d_hidden),
            inputs=inputs,
            params=tuple(Param(f"{self.kind}.{name}_{suffix}", s, residual=ends) for name, s in shapes.items()),
            label=self._label(suffix),
            note=self.remark,
            kernel=self.kind if last else "",
            within="" if last else self._call,
            kept=kept if last and not self.bidirectional else (),
            d_in=d_in,
            width=self.d_hidden,
            gates=self.gates,
        )

    def _label(self, suffix: str) -> str:
        """Which layer it is, where there are several, and whether it reads from the end."""
        layer, _, end = suffix.partition("_")
        return " ".join([self.title, *([layer] if self.depth > 1 else []), *([end] if end else [])])

    @property
    def remark(self) -> str:
        """What tables say of its recurrence."""
        return f"{self.title}; the gates' sigmoids and products are element-wise"
