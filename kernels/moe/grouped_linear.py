"""A Linear per expert, each on its own rows: the matrix products of a mixture of experts.

    y[r] = W[e] x[r] + b[e],  e the expert that owns row r

Shapes: x (R, d_in) with rows sorted by expert, W (E, d_out, d_in), b (E, d_out) -> (R, d_out). Expert e owns the rows
from ends[e - 1] to ends[e]; rows after the last end are nobody's: they are not multiplied and give 0, to the output and
to every gradient. Shapes do not depend on the counts, so a compiled graph does not branch on them. Weights are read in
place, without a copy. Backward: dx = dy W[e] over the same rows, dW[e] = dy^T x over the rows of e; only x and W are
saved, and a product that nobody needs (the weights of frozen experts) is not made.

Where what runs. CPU: one product per expert with rows, written in place (with 4096 rows, 8 to 64 experts and widths 512
and 1024 it measured within 6 % of torch.nn.functional.grouped_mm, which needs torch 2.10, and of a batched one where
counts are equal). GPU: Triton, in kernels/gpu/grouped_linear.py, which never waits for the counts; compiled for sm_90
and checked in Triton's interpreter, not measured on a GPU.

Source: Gale et al. 2023 (MegaBlocks: no padding, no dropping).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from archspec.kernels.backend import gpu
from archspec.kernels.contract import require, require_integers
from archspec.kernels.library import Shape, operator
from archspec.kernels.precision import linear_type

EXAMPLES = (
    {"R": 74, "E": 8, "d_in": 24, "d_out": 20},
    {"R": 1, "E": 2, "d_in": 16, "d_out": 16},
    {"R": 189, "E": 7, "d_in": 33, "d_out": 17},
    {"R": 400, "E": 16, "d_in": 16, "d_out": 40},
    {"R": 257, "E": 5, "d_in": 8, "d_out": 129},
    {"R": 0, "E": 3, "d_in": 8, "d_out": 8},
)


def example(R: int = 74, E: int = 8, d_in: int = 24, d_out: int = 20) -> dict[str, Tensor]:
    """Example arguments; counts are random, and about one row in ten is nobody's."""
    x, weight, bias = (torch.randn(*s, dtype=torch.float64) for s in ((R, d_in), (E, d_out, d_in), (E, d_out)))
    ends = torch.randint(0, R - R // 10 + 1, (E,)).sort().values
    return {"x": x, "weight": weight / d_in**0.5, "ends": ends, "bias": bias}


def reference(x: Tensor, weight: Tensor, ends: Tensor, bias: Tensor | None = None) -> Tensor:
    """`grouped_linear` row by row in float64."""
    y = x.double() @ (0 * weight.double().sum(0).T)
    y = y if bias is None else y + 0 * bias.double().sum(0)
    owners = [sum(int(end) <= r for end in ends) for r in range(len(x))]
    rows = list(y.unbind(0))
    for r, e in enumerate(owners):
        if e < len(ends):
            rows[r] = rows[r] + weight[e].double() @ x[r].double() + (0 if bias is None else bias[e].double())
    return torch.stack(rows) if rows else y


def grouped_linear(x: Tensor, weight: Tensor, ends: Tensor, bias: Tensor | None = None) -> Tensor:
    """A Linear per expert, each on its own rows: y[r] = weight[e] x[r] + bias[e], e the expert that owns row r.

    x (R, d_in), weight (E, d_out, d_in), bias (E, d_out) -> (R, d_out) in the type of x, or in that of autocast. ends
    (E,) integers that do not fall: expert e owns the rows from ends[e - 1] (0 for the first) to ends[e]; rows after the
    last end are nobody's and give 0. The weight may be of another type than x; its gradient is in its own. Sums are in
    float32 or wider. Raises ValueError or TypeError for arguments of wrong shapes or types.
    """
    sizes = require("grouped_linear", x=(x, "R d_in"), weight=(weight, "E d_out d_in"), bias=(bias, "E d_out"))
    require_integers("grouped_linear", x, ends=ends)
    if ends.shape != (sizes["E"],):
        raise ValueError(f"grouped_linear: ends has shape {tuple(ends.shape)}, expected ({sizes['E']},), one an expert")
    return _grouped(x.to(linear_type(x)), weight, ends, bias)


def _grouped_forward(x: Tensor, weight: Tensor, ends: Tensor, bias: Tensor | None) -> Tensor:
    fast = gpu("grouped_linear", x)
    if fast is not None:
        return fast.grouped_linear(x, weight, ends, bias)
    y = x.new_empty(x.shape[0], weight.shape[1])
    start = 0
    for e, end in enumerate(ends.tolist()):
        if end > start:
            w = weight[e].to(x.dtype).T
            if bias is None:
                torch.mm(x[start:end], w, out=y[start:end])
            else:
                torch.addmm(bias[e].to(x.dtype), x[start:end], w, out=y[start:end])
        start = end
    y[start:] = 0
    return y


def _grouped_backward(
    grads: list[Tensor | None],
    outputs: list[Tensor],
    x: Tensor,
    weight: Tensor,
    ends: Tensor,
    bias: Tensor | None,
    needed: list[bool],
) -> list[Tensor | None]:
    """Gradients of x, weight and, where there is one, bias; no product for those that are not needed."""
    (dy,) = grads
    assert dy is not None
    fast = gpu("grouped_linear", x)
    if fast is not None:
        return fast.grouped_linear_backward(dy, x, weight, ends, bias, needed)
    inputs = [x, weight] if bias is None else [x, weight, bias]
    found = [like.new_empty(like.shape) if need else None for like, need in zip(inputs, needed, strict=True)]
    dx, start = found[0], 0
    for e, end in enumerate(ends.tolist()):
        its_dx = None if dx is None else dx[start:end]
        theirs = (None if d is None else d[e] for d in found[1:])
        _expert_backward(dy[start:end], x[start:end], weight[e], its_dx, *theirs)
        start = end
    if dx is not None:
        dx[start:] = 0
    return found


def _expert_backward(
    dy: Tensor, x: Tensor, w: Tensor, dx: Tensor | None, dw: Tensor | None, db: Tensor | None = None
) -> None:
    """Write the needed gradients of one expert's rows x, weight w and bias; zeros where it has no rows."""
    if db is not None:
        torch.sum(dy, 0, dtype=db.dtype, out=db)
    if dx is not None and len(x):
        torch.mm(dy, w.to(dy.dtype), out=dx)
    if dw is None:
        return
    if not len(x):
        dw.zero_()
    elif dw.dtype == dy.dtype:
        torch.mm(dy.T, x, out=dw)
    else:
        dw.copy_(dy.T @ x)


def _grouped_fake(x: Tensor, weight: Tensor, ends: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[1])


def _grouped_flops(x: Shape, weight: Shape, ends: Shape, bias: Shape | None) -> int:
    """As if every row were somebody's: how many are is data."""
    return 2 * x[0] * weight[1] * weight[2]


def _grouped_backward_flops(x: Shape, weight: Shape, ends: Shape, bias: Shape | None, needed: Sequence[bool]) -> int:
    return 2 * sum(needed[:2]) * x[0] * weight[1] * weight[2]


_grouped = operator(
    "grouped_linear",
    _grouped_forward,
    _grouped_backward,
    _grouped_fake,
    flops=_grouped_flops,
    backward_flops=_grouped_backward_flops,
    selective=True,
)
