"""GRU: a recurrent network whose reset and update gates choose between its state and a new one.

    r, z = sigmoid(W x_t + U h_{t-1} + b);  n = tanh(W' x_t + b' + r (U' h_{t-1} + b''));  h_t = (1 - z) n + z h_{t-1}

State while decoding: h, d_hidden numbers in every layer. Cost O(T d_hidden (d_model + d_hidden)), one token after
another while training too; O(d_hidden (d_model + d_hidden)) a decoded token. Bidirectional ones do not decode.
Padding is passed over and changes no state, in either direction.

Sources: Cho et al. 2014 (the reset gate on U_n h as in cuDNN); Schuster and Paliwal 1997 (bidirectional).
"""

from typing import ClassVar, Literal

from archspec.layers.recurrent import RecurrentMixer


class GRU(RecurrentMixer):
    """Gated recurrent unit, PyTorch's own."""

    gates: ClassVar[int] = 3  # reset, update, new: the order of PyTorch's stacked weights

    kind: Literal["gru"] = "gru"
