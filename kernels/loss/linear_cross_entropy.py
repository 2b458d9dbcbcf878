"""Cross entropy of the logits of a linear layer, without ever holding all logits.

    z[n] = softcap tanh(scale (W x[n] + b) / softcap);  lse[n] = log sum_v exp(z[n, v])
    loss[n] = (1 - e) (lse[n] - z[n, t[n]]) + e (lse[n] - mean_v z[n, v]) + z_loss lse[n]^2
    dz[n, v] = p[n, v] (1 + 2 z_loss lse[n]) - (1 - e) [v = t[n]] - e / V,  p = exp(z - lse)

Shapes: x (..., D), W (V, D), b (V,), targets t (...) -> a number, or (...) for each token. e is the label smoothing. A
token whose target is ignore_index has loss 0 and no gradient, and does not count in a mean. Sums are in float32, or
float64 for float64 inputs.

Tokens go through in chunks of about 2^23 logits (32 MiB in float32), at least 128 tokens since each chunk reads all of
W. For a sum or a mean the gradient of the sum is known in the forward pass but for one factor, the incoming gradient;
so while a chunk's logits are there the forward pass turns them into dz and adds up dx = dz W (in the type of x) and
dW = dz^T x (float32), and the backward pass multiplies by the factor: three products of N V D, as with all logits, and
memory O(chunk V + V D). The division of a mean comes last, so that dz in float16 does not underflow. For a loss of each
token the factor is another for each and not yet known, so the backward pass computes the logits of a chunk again: four
products. With neither gradient wanted there is one. In 16-bit types logits, dz and each chunk's product are rounded to
16 bits, as in separate operations; the sum over chunks is not.

On a CPU it is PyTorch: the softmax of a chunk once, from which follow lse (the largest z less the log of its p) and dz.
On a GPU a Triton kernel does the rows of a chunk in place between the same products. With N = 2048, D = 512 and
V = 32,000 in float32 on one CPU core, loss and gradients took 0.93 times the time of cross_entropy(linear(x, W)) and
141 MiB beyond the arguments instead of 767; a loss of each token took 1.27 times as long. The kernel was compiled for
sm_90 and checked in Triton's interpreter, not measured on a GPU.

Sources: Chen et al. 2016 (chunks recomputed), Hsu et al. 2024 (gradients in the forward pass), Chowdhery et al. 2022
(PaLM, section 5: z-loss), Szegedy et al. 2016 (label smoothing), Gemma Team 2024 (softcap).
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from archspec.kernels.contract import require, require_choice, require_integers
from archspec.kernels.library import Shape, operator
from archspec.kernels.loss.logit_chunks import loss_and_gradients
from archspec.kernels.precision import linear_type, wide_type

LOGITS_AT_ONCE = 2**23
LEAST_TOKENS = 128

EXAMPLES = (
    {"B": 2, "T": 63, "D": 24, "V": 50},
    {"B": 1, "T": 1, "D": 3, "V": 2},
    {"B": 1, "T": 257, "D": 17, "V": 33},
    {"B": 2, "T": 5, "D": 8, "V": 1000},
    {"B": 3, "T": 100, "D": 5, "V": 7},
    {"B": 0, "T": 3, "D": 8, "V": 5},
)


def example(B: int = 2, T: int = 63, D: int = 24, V: int = 50) -> dict[str, Any]:
    """Example arguments; every fourth target or so is ignored, the first never."""
    targets = torch.randint(0, V, (B, T)).where(torch.rand(B, T) > 0.25, -100)
    targets[:1, :1] = V - 1
    x, weight, bias = (torch.randn(*shape, dtype=torch.float64) for shape in ((B, T, D), (V, D), (V,)))
    return {"x": x, "weight": weight / D**0.5, "targets": targets, "bias": bias}


def reference(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None = None,
    softcap: float | None = None,
    scale: float = 1.0,
    z_loss: float = 0.0,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """The equations above token by token in float64."""
    x, weight = x.double(), weight.double()
    nothing = 0 * (x.sum() + weight.sum() + (0 if bias is None else bias.double().sum()))
    losses, counted = [], 0
    for row, target in zip(x.flatten(0, -2), targets.flatten().tolist(), strict=True):
        if target == ignore_index:
            losses.append(nothing)
            continue
        counted += 1
        z = scale * (weight @ row + (0 if bias is None else bias.double()))
        z = z if softcap is None else softcap * torch.tanh(z / softcap)
        log_p = z - z.logsumexp(0)
        loss = -(1 - label_smoothing) * log_p[target] - label_smoothing * log_p.mean()
        losses.append(nothing + loss + z_loss * z.logsumexp(0) ** 2)
    every = torch.stack(losses) if losses else nothing.expand(0)
    if reduction == "none":
        return every.view(targets.shape)
    return every.sum() / (counted if reduction == "mean" else 1)


def linear_cross_entropy(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
    scale: float = 1.0,
    z_loss: float = 0.0,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    chunk: int | None = None,
) -> Tensor:
    """Cross entropy of x (..., D) through weight (V, D) and bias (V,) with targets (...), as F.cross_entropy has it.

    softcap: logits become softcap tanh(logits / softcap), after scale multiplied them. z_loss: factor of the mean (or
    sum) of lse^2, lse being the logsumexp of a token's logits. reduction: "mean" over the tokens that count (NaN where
    none does), "sum", or "none". chunk: tokens at once. Returns float32 (float64 for float64 x): one number, or one a
    token for "none". Raises ValueError or TypeError for arguments of wrong shapes or types, and on a CPU for a target
    that is neither below V nor ignore_index; a GPU would have to be waited for, so there the loss becomes NaN.
    """
    op = "linear_cross_entropy"
    sizes = require(op, x=(x, "... D"), weight=(weight, "V D"), bias=(bias, "V"))
    require_integers(op, x, targets=targets)
    require_choice(op, "reduction", reduction, ("mean", "sum", "none"))
    if targets.shape != x.shape[:-1]:
        raise ValueError(f"{op}: targets has shape {tuple(targets.shape)}, expected {tuple(x.shape[:-1])} like x")
    if chunk is not None and chunk < 1:
        raise ValueError(f"{op}: chunk is {chunk}, expected a positive number of tokens")
    if chunk is None:
        chunk = max(LEAST_TOKENS, LOGITS_AT_ONCE // max(sizes["V"], 1))
    rows, flat = x.reshape(-1, sizes["D"]).to(linear_type(x)), targets.reshape(-1).long()
    settings = (softcap or 0.0, scale, z_loss, label_smoothing, ignore_index, chunk)
    if reduction == "none":
        return _each(rows, weight, bias, flat, *settings).view(targets.shape)
    train = torch.is_grad_enabled()
    train_weight = train and (weight.requires_grad or (bias is not None and bias.requires_grad))
    total = _total(rows, weight, bias, flat, *settings, train and x.requires_grad, train_weight)[0]
    if reduction == "sum":
        return total
    counted = (flat != ignore_index).sum()
    return (total / counted.clamp(min=1)).masked_fill(counted == 0, torch.nan)


def _require_in_range(targets: Tensor, V: int, ignore_index: int) -> None:
    wrong = targets[((targets < 0) | (targets >= V)) & (targets != ignore_index)]
    if len(wrong):
        right = f"0 to {V - 1}, or ignore_index {ignore_index}"
        raise ValueError(f"linear_cross_entropy: targets holds {int(wrong[0])}, expected {right}")


def _total_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    softcap: float,
    scale: float,
    z_loss: float,
    label_smoothing: float,
    ignore_index: int,
    chunk: int,
    train_x: bool,
    train_weight: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The sum of the losses, and its gradients by x, weight and bias where wanted."""
    if targets.device.type == "cpu":
        _require_in_range(targets, len(weight), ignore_index)
    settings = (softcap, scale, z_loss, label_smoothing, ignore_index, chunk, train_x, train_weight)
    losses, *gradients = loss_and_gradients(x, weight, bias, targets, None, *settings)
    return losses.sum(), *gradients


def _total_backward(
    grads: list[Tensor | None],
    outputs: list[Tensor],
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    *settings: Any,
    needed: list[bool],
) -> list[Tensor | None]:
    """The gradients of the sum, by the one number that the rest of the graph makes of it.

    Where the forward pass was not told that a gradient is needed, as in an exported graph that is trained or under
    vmap, the logits are computed again.
    """
    (grad, *_), found = grads, outputs
    *shared, train_x, train_weight = settings
    late_x, late_weight = needed[0] and not train_x, any(needed[1:]) and not train_weight
    if late_x or late_weight:
        _, *late = loss_and_gradients(x, weight, bias, targets, None, *shared, late_x, late_weight)
        found = [late[0] if late_x else found[0], *(late[1:] if late_weight else found[1:])]
    return [g.to(grad.dtype) * grad if need else None for g, need in zip(found, needed, strict=False)]


def _total_fake(
    x: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, *settings: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    train_x, train_weight = settings[-2:]
    wide = wide_type(x)
    return (
        x.new_empty((), dtype=wide),
        x.new_empty(x.shape if train_x else 0),
        x.new_empty(weight.shape if train_weight else 0, dtype=wide),
        x.new_empty(weight.shape[0] if train_weight and bias is not None else 0, dtype=wide),
    )


def _total_flops(x: Shape, weight: Shape, bias: Shape | None, targets: Shape, *settings: Any) -> int:
    return 2 * prod(x) * weight[0] * (1 + sum(settings[-2:]))


def _each_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    softcap: float,
    scale: float,
    z_loss: float,
    label_smoothing: float,
    ignore_index: int,
    chunk: int,
) -> Tensor:
    """The loss of each token."""
    if targets.device.type == "cpu":
        _require_in_range(targets, len(weight), ignore_index)
    settings = (softcap, scale, z_loss, label_smoothing, ignore_index, chunk)
    return loss_and_gradients(x, weight, bias, targets, None, *settings, train_x=False, train_weight=False)[0]


def _each_backward(
    grads: list[Tensor | None],
    outputs: list[Tensor],
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    *settings: Any,
    needed: list[bool],
) -> list[Tensor | None]:
    """Gradients of x, weight and bias; factors are brought up to 1 for the products, which may be in float16."""
    (grad,) = grads
    assert grad is not None
    largest = grad.abs().amax().clamp(min=torch.finfo(grad.dtype).tiny) if len(grad) else grad.new_ones(())
    train = {"train_x": needed[0], "train_weight": any(needed[1:])}
    _, *found = loss_and_gradients(x, weight, bias, targets, grad / largest, *settings, **train)
    return [g.to(grad.dtype) * largest if need else None for g, need in zip(found, needed, strict=False)]


def _each_fake(x: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, *settings: Any) -> Tensor:
    return x.new_empty(x.shape[0], dtype=wide_type(x))


def _each_flops(x: Shape, weight: Shape, bias: Shape | None, targets: Shape, *settings: Any) -> int:
    return 2 * prod(x) * weight[0]


def _each_backward_flops(
    x: Shape, weight: Shape, bias: Shape | None, targets: Shape, *settings: Any, needed: Sequence[bool]
) -> int:
    return 2 * prod(x) * weight[0] * (1 + needed[0] + any(needed[1:]))


_total = operator(
    "linear_cross_entropy",
    _total_forward,
    _total_backward,
    _total_fake,
    flops=_total_flops,
    keeps=(1, 2, 3),
    selective=True,
)


_each = operator(
    "linear_cross_entropy_each",
    _each_forward,
    _each_backward,
    _each_fake,
    flops=_each_flops,
    backward_flops=_each_backward_flops,
    selective=True,
)
