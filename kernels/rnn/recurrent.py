"""Recurrent networks: LSTM, GRU and Elman's RNN.

    LSTM   i, f, g, o = W x[t] + b + U h[t-1] + d;  c = sig(f) c[t-1] + sig(i) tanh(g);  h[t] = sig(o) tanh(c)
    GRU    r, z, n = W x[t] + b,  r', z', n' = U h[t-1] + d;  h[t] = (1 - Z) tanh(n + sig(r + r') n') + Z h[t-1]
           with Z = sig(z + z')
    RNN    h[t] = tanh or relu(W x[t] + b + U h[t-1] + d)

Shapes: x (B, T, D_in), W (G D, D_in), U (G D, D), b, d (G D,), h and c (B, D), with G = 4, 3, 1 gates stacked in the
order above. LSTM, GRU and RNN are PyTorch's own operations (torch.lstm, gru, rnn_tanh, rnn_relu: what nn.LSTM calls),
of any depth and in one or both directions; their weights come in the order of nn.LSTM.parameters(). They save what
their own backward passes need. The state holds "h" and, for an LSTM, "c", each (depth, B, D).

Sources: Elman 1990; Hochreiter and Schmidhuber 1997; Gers et al. 2000 (forget gate); Cho et al. 2014; Schuster and
Paliwal 1997 (both directions).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.contract import require
from archspec.kernels.inputs import is_mapped
from archspec.kernels.plain.packed import over_real
from archspec.kernels.precision import autocast_type
from archspec.kernels.state import State, recall

EXAMPLES = (
    {"B": 2, "T": 9, "D_in": 5, "D": 4},
    {"B": 1, "T": 1, "D_in": 1, "D": 1},
    {"B": 2, "T": 63, "D_in": 3, "D": 7},
    {"B": 0, "T": 3, "D_in": 2, "D": 4},
)


def example(B: int = 2, T: int = 9, D_in: int = 5, D: int = 4) -> dict[str, Any]:
    """Example arguments of `lstm`, one layer in one direction."""
    shapes = ((4 * D, D_in), (4 * D, D), (4 * D,), (4 * D,))
    weights = [torch.randn(*shape, dtype=torch.float64) / D**0.5 for shape in shapes]
    return {"x": torch.randn(B, T, D_in, dtype=torch.float64), "weights": weights}


def reference(kind: str, x: Tensor, weights: Sequence[Tensor], h: Tensor, c: Tensor | None = None) -> list[Tensor]:
    """One layer in one direction, token by token in float64: outputs (B, T, D), then the last h and, of an LSTM, c.

    kind: "lstm", "gru", "rnn_tanh" or "rnn_relu"; weights W, U and, where there are biases, b and d.
    """
    x, h, *weights = (tensor.double() for tensor in (x, h, *weights))
    w, u, b, d = weights if len(weights) == 4 else (*weights, *(0 * weight.sum(1) for weight in weights))
    c = c if c is None else c.double()
    outputs = []
    for t in range(x.shape[1]):
        ours, past = x[:, t] @ w.T + b, h @ u.T + d
        if kind == "lstm":
            i, f, g, o = (ours + past).chunk(4, -1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        elif kind == "gru":
            (r, z, n), (r_past, z_past, n_past) = ours.chunk(3, -1), past.chunk(3, -1)
            keep = (z + z_past).sigmoid()
            h = (1 - keep) * (n + (r + r_past).sigmoid() * n_past).tanh() + keep * h
        else:
            h = (ours + past).tanh() if kind == "rnn_tanh" else (ours + past).relu()
        outputs.append(h)
    return [torch.stack(outputs, 1), h] if c is None else [torch.stack(outputs, 1), h, c]


def lstm(
    x: Tensor,
    weights: Sequence[Tensor],
    state: State | None = None,
    *,
    depth: int = 1,
    dropout: float = 0.0,
    bidirectional: bool = False,
    mask: Tensor | None = None,
) -> Tensor:
    """PyTorch's LSTM: x (B, T, D_in) -> (B, T, D), or (B, T, 2 D) in both directions.

    weights: W, U and, where there are biases, b and d, of each layer and direction. dropout acts between layers,
    whenever it is not 0. mask (B, T) is True for real tokens: others change no state, in either direction, and give 0;
    while compiling it ends the graph, since the lengths of rows are data. Raises ValueError for wrong numbers or shapes
    of weights, and for a state in both directions.
    """
    bias = _check("lstm", 4, x, weights, state, depth, bidirectional)
    start = _start("lstm", x, weights, state, depth, bidirectional, "h", "c")
    y, h, c = _over(torch.lstm, x, mask, start, weights, bias, depth, dropout, bidirectional)
    if state is not None:
        state["h"], state["c"] = h, c
    return y


def gru(
    x: Tensor,
    weights: Sequence[Tensor],
    state: State | None = None,
    *,
    depth: int = 1,
    dropout: float = 0.0,
    bidirectional: bool = False,
    mask: Tensor | None = None,
) -> Tensor:
    """PyTorch's GRU; arguments are those of `lstm`."""
    bias = _check("gru", 3, x, weights, state, depth, bidirectional)
    start = _start("gru", x, weights, state, depth, bidirectional, "h")
    y, h = _over(torch.gru, x, mask, start, weights, bias, depth, dropout, bidirectional)
    if state is not None:
        state["h"] = h
    return y


def rnn(
    x: Tensor,
    weights: Sequence[Tensor],
    state: State | None = None,
    *,
    depth: int = 1,
    dropout: float = 0.0,
    bidirectional: bool = False,
    relu: bool = False,
    mask: Tensor | None = None,
) -> Tensor:
    """PyTorch's RNN with tanh, or with relu; other arguments are those of `lstm`."""
    bias = _check("rnn", 1, x, weights, state, depth, bidirectional)
    start = _start("rnn", x, weights, state, depth, bidirectional, "h")
    run = torch.rnn_relu if relu else torch.rnn_tanh
    y, h = _over(run, x, mask, start, weights, bias, depth, dropout, bidirectional)
    if state is not None:
        state["h"] = h
    return y


def _check(
    op: str, gates: int, x: Tensor, weights: Sequence[Tensor], state: State | None, depth: int, bidirectional: bool
) -> bool:
    """Check number, shapes and types of the weights; returns whether there are biases."""
    ways = 2 if bidirectional else 1
    if len(weights) not in (2 * ways * depth, 4 * ways * depth):
        right = f"{2 * ways * depth} or, with biases, {4 * ways * depth}"
        raise ValueError(f"{op}: weights holds {len(weights)} tensors, expected {right}")
    if bidirectional and state is not None:
        raise ValueError(f"{op}: a state cannot go on in both directions")
    each, width = len(weights) // (ways * depth), weights[1].shape[-1]
    for cell in range(ways * depth):
        w, u, *biases = weights[each * cell : each * (cell + 1)]
        below = "D_in" if cell < ways else ways * width
        b, d = biases or (None, None)
        rows = f"{gates * width}"
        require(op, x=(x, "B T D_in"), W=(w, f"{rows} {below}"), U=(u, f"{rows} {width}"), b=(b, rows), d=(d, rows))
    for weight in weights:
        if weight.dtype != x.dtype and autocast_type(x) is None:
            raise TypeError(f"{op}: weights holds a tensor of {weight.dtype}, expected {x.dtype} like x")
    return each == 4


def _over(
    run: Callable[..., Any],
    x: Tensor,
    mask: Tensor | None,
    start: Sequence[Tensor],
    weights: Sequence[Tensor],
    bias: bool,
    depth: int,
    dropout: float,
    bidirectional: bool,
) -> tuple[Tensor, ...]:
    """Outputs of one of PyTorch's operations over all tokens, or over the real ones, and what it ends in."""
    if mask is not None and (torch.compiler.is_exporting() or is_mapped(mask)):
        raise NotImplementedError(
            "a recurrent network over padded rows takes no torch.export and no torch.vmap: how long they are"
            " is data. Give it rows of one length, and no mask"
        )
    if mask is not None:
        return over_real(run, x, mask, start, weights, bias, depth, dropout, bidirectional)
    if not x.shape[1]:  # PyTorch wants a token: one is thrown away, so that gradients are zeros and not absent
        y, *_ = _over(run, F.pad(x, (0, 0, 0, 1)), None, start, weights, bias, depth, dropout, bidirectional)
        return y[:, :0], *start
    if run is torch.lstm and torch.compiler.is_compiling():  # the fused kernel of a CPU does not go through a compiler
        return _lstm_by_steps(x, *start, weights, bias, depth, dropout, bidirectional)
    given = tuple(start) if len(start) > 1 else start[0]
    train = dropout > 0 or torch.is_grad_enabled()  # cuDNN keeps what a backward pass needs only when it is told
    found: tuple[Tensor, ...] = run(x, given, list(weights), bias, depth, dropout, train, bidirectional, True)
    return found


def _start(
    op: str, x: Tensor, weights: Sequence[Tensor], state: State | None, depth: int, bidirectional: bool, *names: str
) -> list[Tensor]:
    """The tensors of the state of these names, or zeros (layers and directions, B, D) where it holds none."""
    width = weights[1].shape[-1]
    past = {name: recall(state, name) for name in names}
    for name, start in past.items():
        require(op, x=(x, "B T D_in"), **{name: (start, f"{depth} B {width}")})
    zeros = x.new_zeros(2 * depth if bidirectional else depth, x.shape[0], width)
    return [zeros if start is None else start for start in past.values()]


def _lstm_by_steps(
    x: Tensor,
    h: Tensor,
    cell: Tensor,
    weights: Sequence[Tensor],
    bias: bool,
    depth: int,
    dropout: float,
    bidirectional: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """What torch.lstm computes, batch first, in separate operations."""
    ways, each = 2 if bidirectional else 1, 4 if bias else 2
    ends = []
    for layer in range(depth):
        outputs = []
        for way in range(ways):
            i = layer * ways + way
            y, *end = _lstm_cell(x.flip(1) if way else x, h[i], cell[i], *weights[each * i : each * (i + 1)])
            outputs.append(y.flip(1) if way else y)
            ends.append(end)
        x = torch.cat(outputs, dim=-1)
        if layer < depth - 1 and dropout:
            x = F.dropout(x, dropout)
    return x, torch.stack([end[0] for end in ends]), torch.stack([end[1] for end in ends])


def _lstm_cell(
    x: Tensor, h: Tensor, cell: Tensor, w_x: Tensor, w_h: Tensor, b_x: Tensor | None = None, b_h: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """One layer in one direction: x (B, T, .), h and cell (B, D) -> outputs (B, T, D), last h and cell."""
    outputs = []
    for ours in F.linear(x, w_x, b_x).unbind(1):
        i, f, g, o = (ours + F.linear(h, w_h, b_h)).chunk(4, dim=-1)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(cell)
        outputs.append(h)
    return torch.stack(outputs, dim=1), h, cell
