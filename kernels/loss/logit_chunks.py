"""Losses and gradients of a linear cross entropy, a chunk of tokens at a time: what its operators are made of.

What is computed is said in `linear_cross_entropy`. The logits of a chunk are made by one product; the rows pass over
them then puts dz in their place; two more products add it up. On a CPU the rows go through a few at a time, so that
their logits stay in the cache, and no other tensor is as large as a chunk.
"""

import torch
from torch import Tensor

from archspec.kernels.backend import gpu
from archspec.kernels.precision import wide_type

LOGITS_IN_CACHE = 2**18  # 1 MiB in float32, twice


def loss_and_gradients(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    row_weights: Tensor | None,
    softcap: float,
    scale: float,
    z_loss: float,
    label_smoothing: float,
    ignore_index: int,
    chunk: int,
    train_x: bool,
    train_weight: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The losses (N,) and the gradients of sum(row_weights * losses) by x, weight and bias, empty where not wanted."""
    N, wide = len(x), wide_type(x)
    w, b = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
    losses = x.new_empty(N, dtype=wide)
    dx = x.new_empty(x.shape if train_x else 0)
    dw = torch.zeros(weight.shape if train_weight else 0, dtype=wide, device=x.device)
    db = torch.zeros(len(weight) if train_weight and b is not None else 0, dtype=wide, device=x.device)
    fast = gpu("linear_cross_entropy", x)
    rows = _rows if fast is None else fast.rows
    buffer = x.new_empty(min(chunk, N), len(w))
    for start in range(0, N, chunk):
        now = slice(start, min(start + chunk, N))
        logits = buffer[: now.stop - start]
        if b is None:
            torch.addmm(logits, x[now], w.T, beta=0, alpha=scale, out=logits)
        else:
            torch.addmm(b, x[now], w.T, beta=scale, alpha=scale, out=logits)
        factors = None if row_weights is None else row_weights[now]
        train = train_x or train_weight
        losses[now] = rows(logits, targets[now], factors, softcap, z_loss, label_smoothing, ignore_index, train)
        dz = logits
        if train_x:
            torch.addmm(dx[now], dz, w, beta=0, alpha=scale, out=dx[now])
        if train_weight and dz.dtype == wide:
            torch.addmm(dw, dz.T, x[now], alpha=scale, out=dw)
        elif train_weight:
            dw.add_(dz.T @ x[now], alpha=scale)
        if db.numel():
            db.add_(dz.sum(0, dtype=wide), alpha=scale)
    return losses, dx, dw, db


def _rows(
    logits: Tensor,
    targets: Tensor,
    row_weights: Tensor | None,
    softcap: float,
    z_loss: float,
    label_smoothing: float,
    ignore_index: int,
    train: bool,
) -> Tensor:
    """The losses (C,) of logits (C, V), in whose place dz is left where `train`; a few rows at a time, in the cache."""
    block = max(1, LOGITS_IN_CACHE // max(logits.shape[1], 1))
    factors = [None] * -(-len(logits) // block) if row_weights is None else row_weights.split(block)
    settings = (softcap, z_loss, label_smoothing, ignore_index, train)
    losses = [_block(*rows, *settings) for rows in zip(logits.split(block), targets.split(block), factors, strict=True)]
    return torch.cat(losses)


def _block(
    logits: Tensor,
    targets: Tensor,
    row_weights: Tensor | None,
    softcap: float,
    z_loss: float,
    label_smoothing: float,
    ignore_index: int,
    train: bool,
) -> Tensor:
    """`_rows` at once."""
    z = logits.to(wide_type(logits))
    z = z.div_(softcap).tanh_().mul_(softcap) if softcap else z
    p = torch.softmax(z, -1)
    lse = z.amax(-1) - p.amax(-1).log()
    ignored = targets == ignore_index
    target = targets.masked_fill(ignored, 0).unsqueeze(1)
    losses = lse - (1 - label_smoothing) * z.gather(1, target).squeeze(1) + z_loss * lse.square()
    losses = losses - label_smoothing * z.mean(-1) if label_smoothing else losses
    losses = losses.masked_fill(ignored, 0.0)
    if not train:
        return losses
    if z_loss:
        p.mul_((1 + 2 * z_loss * lse).unsqueeze(1))
    if label_smoothing:
        p.sub_(label_smoothing / z.shape[1])
    p.scatter_add_(1, target, p.new_full((), label_smoothing - 1).expand_as(target))
    if softcap:
        p.mul_(z.div_(softcap).square_().neg_().add_(1))
    if row_weights is not None:
        p.mul_(row_weights.unsqueeze(1))
    logits.copy_(p)
    if bool(ignored.any()):
        logits.masked_fill_(ignored.unsqueeze(1), 0.0)
    return losses
