"""Recurrent networks over rows of different lengths: PyTorch's packed sequences, which skip padding."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from archspec.kernels.plain.padding import reorder, restore


def over_real(
    run: Callable[..., Any],
    x: Tensor,
    mask: Tensor,
    start: Sequence[Tensor],
    weights: Sequence[Tensor],
    bias: bool,
    depth: int,
    dropout: float,
    bidirectional: bool,
) -> tuple[Tensor, ...]:
    """Outputs (B, T, D), 0 for padding, and what each row carries after its last real token.

    run: torch.lstm, torch.gru, torch.rnn_tanh or torch.rnn_relu; start: what it carries before, each (layers, B, D).
    """
    order = (~mask).byte().argsort(dim=1, stable=True)  # padding last, as packing wants it
    lengths = mask.sum(1)
    some = lengths.nonzero().squeeze(1)  # rows with anything to read
    if not len(some):
        return x.new_zeros(*x.shape[:2], (2 if bidirectional else 1) * start[0].shape[2]), *start
    packed = pack_padded_sequence(reorder(x, order)[some], lengths[some].cpu(), batch_first=True, enforce_sorted=False)
    carried = [tensor[:, some][:, packed.sorted_indices] for tensor in start]
    train = dropout > 0 or torch.is_grad_enabled()
    given = tuple(carried) if len(carried) > 1 else carried[0]
    data, *ends = run(packed.data, packed.batch_sizes, given, list(weights), bias, depth, dropout, train, bidirectional)
    y = pad_packed_sequence(packed._replace(data=data), batch_first=True, total_length=x.shape[1])[0]
    y = y.new_zeros(x.shape[0], *y.shape[1:]).index_copy(0, some, y)
    last = (end[:, packed.unsorted_indices] for end in ends)
    return restore(y, order), *(a.to(b.dtype).index_copy(1, some, b) for a, b in zip(start, last, strict=True))
