"""The rows of a chunk of logits on a GPU: losses, and gradients in the place of the logits."""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _capped(z, softcap, has_softcap: tl.constexpr):
    """softcap tanh(z / softcap), tanh(u) being 1 - 2 / (1 + exp(2 u))."""
    if has_softcap:
        z = softcap * (1.0 - 2.0 / (1.0 + tl.exp(2.0 * z / softcap)))
    return z


@triton.jit
def _rows_kernel(
    logits_ptr,  # (C, V), becomes the gradient
    targets_ptr,  # (C,)
    row_weights_ptr,  # (C,)
    losses_ptr,  # (C,)
    row_stride,
    width,
    softcap,
    z_loss,
    label_smoothing,
    ignore_index,
    has_softcap: tl.constexpr,
    has_smoothing: tl.constexpr,
    has_weights: tl.constexpr,
    train: tl.constexpr,
    block: tl.constexpr,
):
    """One program computes one row: its loss in a first pass over the logits, their gradients in a second."""
    row = tl.program_id(0).to(tl.int64)
    z_ptr = logits_ptr + row * row_stride
    target = tl.load(targets_ptr + row).to(tl.int64)
    # read before the reductions, at which warps wait for each other: one ahead would put a gradient in its place
    inside = (target >= 0) & (target < width)
    z_target = tl.load(z_ptr + target, mask=inside, other=float("nan")).to(tl.float32)
    z_target = _capped(z_target, softcap, has_softcap)
    largest = -float("inf")
    total = 0.0
    sum_z = 0.0
    for start in range(0, width, block):
        index = start + tl.arange(0, block)
        z = tl.load(z_ptr + index, mask=index < width, other=0.0).to(tl.float32)
        z = _capped(z, softcap, has_softcap)
        sum_z += tl.sum(tl.where(index < width, z, 0.0), 0)
        z = tl.where(index < width, z, -float("inf"))
        found = tl.maximum(largest, tl.max(z, 0))
        base = tl.where(found == -float("inf"), 0.0, found)
        total = total * tl.exp(largest - base) + tl.sum(tl.exp(z - base), 0)
        largest = found
    lse = largest + tl.log(total)
    loss = lse - (1.0 - label_smoothing) * z_target + z_loss * lse * lse
    if has_smoothing:
        loss -= label_smoothing * (sum_z / width)
    loss = tl.where(target == ignore_index, 0.0, loss)
    tl.store(losses_ptr + row, loss)
    if train:
        factor = 1.0
        if has_weights:
            factor = tl.load(row_weights_ptr + row).to(tl.float32)
        grow = 1.0 + 2.0 * z_loss * lse
        even = label_smoothing / width
        for start in range(0, width, block):
            index = start + tl.arange(0, block)
            z = tl.load(z_ptr + index, mask=index < width, other=0.0).to(tl.float32)
            z = _capped(z, softcap, has_softcap)
            dz = tl.exp(z - lse) * grow - even
            dz = tl.where(index == target, dz - (1.0 - label_smoothing), dz)
            if has_softcap:
                dz *= 1.0 - (z / softcap) * (z / softcap)
            dz = tl.where(target == ignore_index, 0.0, dz * factor)
            tl.store(z_ptr + index, dz.to(logits_ptr.dtype.element_ty), mask=index < width)


def rows(
    logits: Tensor,
    targets: Tensor,
    row_weights: Tensor | None,
    softcap: float,
    z_loss: float,
    label_smoothing: float,
    ignore_index: int,
    train: bool,
) -> Tensor:
    """The losses (C,) in float32 of logits (C, V), in whose place the gradients are left where `train`."""
    C, V = logits.shape
    losses = targets.new_empty(C, dtype=torch.float32)
    block = min(triton.next_power_of_2(V), 8192)
    _rows_kernel[(C,)](
        logits, targets.contiguous(), losses if row_weights is None else row_weights.contiguous(), losses,
        logits.stride(0), V, softcap, z_loss, label_smoothing, ignore_index,
        has_softcap=softcap != 0, has_smoothing=label_smoothing != 0, has_weights=row_weights is not None, train=train,
        block=block, num_warps=max(1, min(block // 256, 16)),
    )  # fmt: skip
    return losses
