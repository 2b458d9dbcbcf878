"""LSTM: a recurrent network with a memory cell behind an input, a forget and an output gate.

    i, f, g, o = W x_t + U h_{t-1} + b;  c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g);  h_t = sigmoid(o) tanh(c_t)

State while decoding: h and c, d_hidden numbers each in every layer. Cost O(T d_hidden (d_model + d_hidden)), one token
after another while training too; O(d_hidden (d_model + d_hidden)) a decoded token. Bidirectional ones do not decode.
Padding is passed over and changes no state, in either direction.

Sources: Hochreiter and Schmidhuber 1997; Gers et al. 2000 (forget gate); Schuster and Paliwal 1997 (bidirectional).
"""

from typing import ClassVar, Literal

from archspec.layers.fields import Width, derived
from archspec.layers.recurrent import RecurrentMixer


class LSTM(RecurrentMixer):
    """Long short-term memory, PyTorch's own."""

    gates: ClassVar[int] = 4  # input, forget, cell, output: the order of PyTorch's stacked weights
    carries: ClassVar[tuple[str, ...]] = ("h", "c")

    kind: Literal["lstm"] = "lstm"
    d_hidden: Width = derived("width of the hidden state and of the memory cell", "d_model")
