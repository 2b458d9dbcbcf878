"""RNN: the simple recurrent network, whose state is a function of the token and the state before.

    h_t = tanh(W x_t + U h_{t-1} + b)

State while decoding: h, d_hidden numbers in every layer. Cost O(T d_hidden (d_model + d_hidden)), one token after
another while training too; O(d_hidden (d_model + d_hidden)) a decoded token. Bidirectional ones do not decode.
They take no mask: padding at the end is read like tokens and reaches the direction that starts there.

Sources: Elman 1990; Le et al. 2015 (relu); Schuster and Paliwal 1997 (bidirectional).
"""

from typing import Any, ClassVar, Literal

from archspec.layers.base import Component, Probability, Size, derived, field, inherited
from archspec.layers.ops import Cache, Op, Param, Recurrent, elementwise, linear


class RNN(Component):
    """Simple (Elman) recurrent network, PyTorch's own."""

    role: ClassVar[str] = "mixer"
    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {},
        {"d_hidden": 12, "depth": 2, "dropout": 0.25},
        {"bias": False, "d_hidden": 8, "nonlinearity": "relu"},
        {"bidirectional": True, "depth": 2, "d_hidden": 8},
        {"bidirectional": True},
    )

    kind: Literal["rnn"] = "rnn"
    d_model: Size = inherited("width of the residual stream")
    d_hidden: Size = derived("width of the hidden state", "d_model")
    nonlinearity: Literal["tanh", "relu"] = field("what the state goes through", "tanh")
    depth: Size = field("layers, one above the other", 1, le=1024)
    bias: bool = field("biases of the cell and of the output projection", True)
    bidirectional: bool = field("whether a second network reads from the end; the outputs stand side by side", False)
    dropout: Probability = field("dropout between layers, where depth is more than 1", 0.0)

    def check(self) -> None:
        """Refuse dropout that has no place."""
        if self.dropout and self.depth == 1:
            raise ValueError(f"dropout = {self.dropout} acts between layers; set depth to 2 or more, or dropout to 0")

    @property
    def arguments(self) -> tuple[str, ...]:
        """The decoding state, unless it also reads from the end."""
        return () if self.bidirectional else ("state",)

    @property
    def causal(self) -> bool:
        """Whether the output at a token depends on no later one."""
        return not self.bidirectional

    @property
    def d_out(self) -> int:
        """Width of what the last layer gives."""
        return 2 * self.d_hidden if self.bidirectional else self.d_hidden

    @property
    def n_states(self) -> int:
        """States that one sequence has: one for each layer and direction."""
        return 2 * self.depth if self.bidirectional else self.depth

    @property
    def projects(self) -> bool:
        """Whether an output projection leads back to d_model: where the widths differ."""
        return self.d_out != self.d_model

    def ops(self) -> tuple[Op, ...]:
        """One recurrence for each layer and direction, then the output projection where the widths differ."""
        found: list[Op] = []
        below: tuple[str, ...] = ("x",)
        for layer in range(self.depth):
            suffixes = (f"l{layer}", f"l{layer}_reverse") if self.bidirectional else (f"l{layer}",)
            found += [self._cell(suffix, self.d_out if layer else self.d_model, below) for suffix in suffixes]
            if self.bidirectional:
                found.append(elementwise("concat", ("B", "T", self.d_out), suffixes, f"l{layer}_both"))
            below = (found[-1].name,)
        if self.projects:
            found.append(linear("out_proj", self.d_out, self.d_model, self.bias, inputs=below))
        return tuple(found)

    def _cell(self, suffix: str, d_in: int, inputs: tuple[str, ...]) -> Op:
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (self.d_hidden, d_in),
            "weight_hh": (self.d_hidden, self.d_hidden),
        }
        shapes |= {"bias_ih": (self.d_hidden,), "bias_hh": (self.d_hidden,)} if self.bias else {}
        return Recurrent(
            name=suffix,
            shape=("B", "T", self.d_hidden),
            inputs=inputs,
            params=tuple(Param(f"rnn.{name}_{suffix}", shape) for name, shape in shapes.items()),
            note=f"{self.nonlinearity} is element-wise",
            cache=Cache(fixed=0 if self.bidirectional else self.d_hidden),
            d_in=d_in,
            width=self.d_hidden,
            gates=1,
        )
