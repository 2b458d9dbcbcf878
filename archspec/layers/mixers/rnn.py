"""RNN: the simple recurrent network, whose state is a function of the token and the state before.

    h_t = tanh(W x_t + U h_{t-1} + b)

State while decoding: h, d_hidden numbers in every layer. Cost O(T d_hidden (d_model + d_hidden)), one token after
another while training too; O(d_hidden (d_model + d_hidden)) a decoded token. Bidirectional ones do not decode.
Padding is passed over and changes no state, in either direction.

Sources: Elman 1990; Le et al. 2015 (relu); Schuster and Paliwal 1997 (bidirectional).
"""

from typing import Any, ClassVar, Literal

from archspec.layers.fields import field
from archspec.layers.recurrent import RecurrentMixer


class RNN(RecurrentMixer):
    """Simple (Elman) recurrent network, PyTorch's own."""

    gates: ClassVar[int] = 1
    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        *RecurrentMixer.examples,
        {"bias": False, "d_hidden": 8, "nonlinearity": "relu"},
    )

    kind: Literal["rnn"] = "rnn"
    nonlinearity: Literal["tanh", "relu"] = field("what the state goes through", "tanh")

    @property
    def remark(self) -> str:
        """What tables say of its recurrence."""
        return f"{self.nonlinearity} is element-wise"
