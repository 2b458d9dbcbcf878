"""The experts of a mixture of experts: slots sorted by expert, their networks, and the weighted sum of slots.

    y[n] = sum_j weights[n, j] expert_{experts[n, j]}(x[n])

A token is a row of x (N, d_model). Each token has k slots: experts (N, k), integers below E or -1 for nobody, and
weights (N, k). The N k slots are sorted by expert, nobody's last, so that an expert owns neighbouring rows: there are
always N k of them, whatever the data. Expert weights are stacked Linear weights (E, d_out, d_in). Slots of nobody are
not computed and add 0.

Backward: of the gathered rows a sum over the k slots of a token, of the weighted sum a gather. Both go through the
inverse permutation, so no addition depends on the order of threads; the gathered rows are made again, not kept.

Where what runs. CPU: index_select and embedding_bag with PyTorch's own gradients, the latter in less than half the
time of the operator below; 16-bit types take the operators, to add up in float32. GPU: Triton, in
kernels/gpu/experts.py, compiled for sm_90 and checked in Triton's interpreter, not measured on a GPU. With 512 and 2048
tokens, 8 and 64 experts, 2 and 6 a token and widths 512 and 1024, float32 on one CPU core, forward and backward of
`experts_gated` took 0.04 to 0.8 times the time of transformers' Mixtral experts, and 0.93 to 1.13 times that of the
same with torch's grouped_mm.

Source: Shazeer et al. 2017.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.backend import gpu, on_gpu
from archspec.kernels.contract import require, require_integers
from archspec.kernels.library import operator
from archspec.kernels.moe.grouped_linear import grouped_linear
from archspec.kernels.precision import wide_type

EXAMPLES = (
    {"N": 37, "E": 8, "k": 2, "d_model": 24, "d_ff": 20},
    {"N": 1, "E": 2, "k": 1, "d_model": 16, "d_ff": 16},
    {"N": 63, "E": 7, "k": 3, "d_model": 33, "d_ff": 17},
    {"N": 100, "E": 16, "k": 4, "d_model": 16, "d_ff": 40},
    {"N": 257, "E": 5, "k": 2, "d_model": 8, "d_ff": 129},
    {"N": 0, "E": 3, "k": 2, "d_model": 8, "d_ff": 8},
)


def example(N: int = 37, E: int = 8, k: int = 2, d_model: int = 24, d_ff: int = 20) -> dict[str, Any]:
    """Example arguments of `experts_gated`: every fifth slot or so is nobody's."""
    widths = ((E, d_ff, d_model), (E, d_ff, d_model), (E, d_model, d_ff))
    w_gate, w_up, w_down = (torch.randn(*w, dtype=torch.float64) / w[-1] ** 0.5 for w in widths)
    return {
        "x": torch.randn(N, d_model, dtype=torch.float64),
        "weights": torch.rand(N, k, dtype=torch.float64),
        "experts": torch.rand(N, E).argsort(-1)[:, :k].where(torch.rand(N, k) > 0.2, -1),
        "w_gate": w_gate,
        "w_up": w_up,
        "w_down": w_down,
        "activation": F.silu,
    }


def reference(x: Tensor, weights: Tensor, experts: Tensor, expert: Callable[[int, Tensor], Tensor]) -> Tensor:
    """sum over the k slots of weight * expert(x), token by token, where expert(e, rows) is the network of expert e."""
    rows = [
        sum(w * expert(int(e), row.unsqueeze(0))[0] for w, e in zip(ws, es, strict=True) if e >= 0) + 0 * row
        for row, ws, es in zip(x, weights, experts, strict=True)
    ]
    return torch.stack(rows)


def sort_by_expert(experts: Tensor, n_experts: int) -> tuple[Tensor, Tensor, Tensor]:
    """The slots of experts (N, k) in the order of their expert, those of nobody (-1) last.

    Returns order (N k,), the slot in each sorted place; places (N, k), the sorted place of each slot; and ends (E,),
    the place after the last of each expert. A slot is numbered n * k + j, and slots of one expert keep their order.
    """
    slots = experts.flatten()
    by_expert, order = slots.where(slots >= 0, n_experts).sort(stable=True)
    ends = torch.searchsorted(by_expert, torch.arange(n_experts, device=experts.device), right=True)
    line = torch.arange(order.shape[0], device=order.device)
    places = line.scatter(0, order, line)
    return order, places.view_as(experts), ends


def gather_rows(x: Tensor, order: Tensor, places: Tensor) -> Tensor:
    """Rows of x (N, D) for the sorted slots: (N k, D), place i holding token order[i] // k."""
    require("gather_rows", x=(x, "N D"))
    require_integers("gather_rows", x, order=order, places=places)
    return _gather(x, order, places) if _takes_operator(x) else _gather_forward(x, order, places)


def combine_rows(rows: Tensor, weights: Tensor, order: Tensor, places: Tensor) -> Tensor:
    """sum_j weights[n, j] rows[places[n, j]] from rows (N k, D) and weights (N, k) -> (N, D) in the type of rows.

    Products and sums are in float32 or wider. order and places are those of `sort_by_expert`.
    """
    require("combine_rows", rows=(rows, "R D"), weights=(weights, "N k"))
    require_integers("combine_rows", rows, order=order, places=places)
    return _combine(rows, weights, order, places) if _takes_operator(rows) else _bag(rows, weights, places)


def _takes_operator(x: Tensor) -> bool:
    """Whether PyTorch's own operations do not do: on a GPU, and where they would add up in 16 bits."""
    return on_gpu(x) or x.dtype not in (torch.float32, torch.float64)


def experts_gated(
    x: Tensor,
    weights: Tensor,
    experts: Tensor,
    w_gate: Tensor,
    w_up: Tensor,
    w_down: Tensor,
    activation: Callable[[Tensor], Tensor],
) -> Tensor:
    """sum_j weights[:, j] * W_down (activation(W_gate x) * W_up x) over each token's experts.

    x (N, d_model), weights and experts (N, k), w_gate and w_up (E, d_ff, d_model), w_down (E, d_model, d_ff) -> (N,
    d_model).
    """
    require(
        "experts_gated",
        x=(x, "N d_model"),
        weights=(weights, "N k"),
        w_gate=(w_gate, "E d_ff d_model"),
        w_up=(w_up, "E d_ff d_model"),
        w_down=(w_down, "E d_model d_ff"),
    )
    _require_slots("experts_gated", experts, weights)
    order, places, ends = sort_by_expert(experts, w_gate.shape[0])
    rows = gather_rows(x, order, places)
    hidden = activation(grouped_linear(rows, w_gate, ends)) * grouped_linear(rows, w_up, ends)
    return combine_rows(grouped_linear(hidden, w_down, ends), weights, order, places)


def experts_plain(
    x: Tensor,
    weights: Tensor,
    experts: Tensor,
    w_up: Tensor,
    w_down: Tensor,
    activation: Callable[[Tensor], Tensor],
    b_up: Tensor | None = None,
    b_down: Tensor | None = None,
) -> Tensor:
    """sum_j weights[:, j] * (W_down activation(W_up x + b_up) + b_down) over each token's experts.

    x (N, d_model), weights and experts (N, k), w_up (E, d_ff, d_model), w_down (E, d_model, d_ff), b_up (E, d_ff),
    b_down (E, d_model) -> (N, d_model).
    """
    require(
        "experts_plain",
        x=(x, "N d_model"),
        weights=(weights, "N k"),
        w_up=(w_up, "E d_ff d_model"),
        w_down=(w_down, "E d_model d_ff"),
        b_up=(b_up, "E d_ff"),
        b_down=(b_down, "E d_model"),
    )
    _require_slots("experts_plain", experts, weights)
    order, places, ends = sort_by_expert(experts, w_up.shape[0])
    hidden = activation(grouped_linear(gather_rows(x, order, places), w_up, ends, b_up))
    return combine_rows(grouped_linear(hidden, w_down, ends, b_down), weights, order, places)


def _require_slots(op: str, experts: Tensor, weights: Tensor) -> None:
    require_integers(op, weights, experts=experts)
    if experts.shape != weights.shape:
        raise ValueError(
            f"{op}: experts has shape {tuple(experts.shape)}, expected {tuple(weights.shape)} like weights"
        )


def _gather_forward(x: Tensor, order: Tensor, places: Tensor) -> Tensor:
    return x.index_select(0, order // max(places.shape[1], 1))


def _gather_backward(
    grads: list[Tensor | None], outputs: list[Tensor], x: Tensor, order: Tensor, places: Tensor
) -> list[Tensor]:
    (dy,) = grads
    assert dy is not None
    return [_weighted_sum(dy, None, places)]


def _gather_fake(x: Tensor, order: Tensor, places: Tensor) -> Tensor:
    return x.new_empty(order.shape[0], x.shape[1])


def _combine_forward(rows: Tensor, weights: Tensor, order: Tensor, places: Tensor) -> Tensor:
    return _weighted_sum(rows, weights, places)


def _weighted_sum(rows: Tensor, weights: Tensor | None, places: Tensor) -> Tensor:
    """sum_j weights[n, j] rows[places[n, j]], a missing weight being 1."""
    fast = gpu("experts", rows)
    if fast is not None:
        return fast.weighted_sum(rows, weights, places)
    y = rows.new_zeros(len(places), rows.shape[1], dtype=wide_type(rows))
    for j, place in enumerate(places.unbind(1)):
        slot = rows.index_select(0, place)
        y += slot if weights is None else slot * weights[:, j : j + 1].to(y.dtype)
    return y.to(rows.dtype)


def _bag(rows: Tensor, weights: Tensor, places: Tensor) -> Tensor:
    """The weighted sum as PyTorch's own, which takes no empty bags."""
    if not places.numel():
        return rows.sum(0, keepdim=True).expand(len(places), -1) * weights.sum()
    return F.embedding_bag(places, rows, mode="sum", per_sample_weights=weights.to(rows.dtype))


def _combine_backward(
    grads: list[Tensor | None], outputs: list[Tensor], rows: Tensor, weights: Tensor, order: Tensor, places: Tensor
) -> list[Tensor]:
    """Gradients of rows and weights."""
    (dy,) = grads
    assert dy is not None
    fast = gpu("experts", rows)
    if fast is not None:
        return fast.weighted_sum_backward(dy, rows, weights, places)
    drows = _gather_forward(dy, order, places).to(wide_type(rows))
    dweights = torch.einsum("rd,rd->r", drows, rows.to(drows.dtype))[places]
    return [drows.mul_(weights.flatten()[order].unsqueeze(1)), dweights]


def _combine_fake(rows: Tensor, weights: Tensor, order: Tensor, places: Tensor) -> Tensor:
    return rows.new_empty(places.shape[0], rows.shape[1])


_gather = operator("gather_rows", _gather_forward, _gather_backward, _gather_fake)


_combine = operator("combine_rows", _combine_forward, _combine_backward, _combine_fake)
