"""Triton kernels of `archspec.kernels.pointwise.activation`: a gated activation and its gradients, one pass each."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024  # channels of a program


def _rows(gate: Tensor, up: Tensor | None) -> tuple[Tensor, Tensor, int, int]:
    """gate and up as matrices of neighbouring channels, their rows and channels; one long row where they are dense."""
    if up is None:
        packed = gate.reshape(-1, gate.shape[-1]) if gate.numel() else gate.new_empty(0, gate.shape[-1])
        packed = packed if packed.stride(-1) == 1 else packed.contiguous()
        first, second = packed.chunk(2, dim=-1)
    elif gate.is_contiguous() and up.is_contiguous():
        first, second = gate.view(1, -1), up.view(1, -1)
    else:
        first, second = (
            (x if x.stride(-1) == 1 else x.contiguous()).reshape(x.numel() // max(x.shape[-1], 1), x.shape[-1])
            for x in (gate, up)
        )
    return first, second, *first.shape


def forward(
    gate: Tensor, up: Tensor | None, shape: tuple[int, ...], dtype: torch.dtype, kind: str, alpha: float, limit: float
) -> Tensor:
    """act(gate) * up."""
    y = torch.empty(shape, dtype=dtype, device=gate.device)
    first, second, rows, channels = _rows(gate, up)
    _forward_kernel[rows * triton.cdiv(channels, BLOCK),](
        first, second, y, channels, first.stride(0), second.stride(0), alpha, limit, KIND=kind, BLOCK=BLOCK, num_warps=4
    )
    return y


def backward(dy: Tensor, gate: Tensor, up: Tensor | None, kind: str, alpha: float, limit: float) -> list[Tensor]:
    """Gradients of gate and up, or of both in one."""
    first, second, rows, channels = _rows(gate, up)
    found = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (gate, up) if x is not None]
    if up is None:
        dfirst, dsecond = found[0].view(rows, 2 * channels).chunk(2, dim=-1)
    else:
        dfirst, dsecond = found
    _backward_kernel[rows * triton.cdiv(channels, BLOCK),](
        dy.contiguous(),
        first,
        second,
        dfirst,
        dsecond,
        channels,
        first.stride(0),
        second.stride(0),
        2 * channels if up is None else channels,
        alpha,
        limit,
        KIND=kind,
        BLOCK=BLOCK,
        num_warps=4,
    )
    return found


@triton.jit
def _forward_kernel(
    gate_ptr,  # (rows, channels)
    up_ptr,  # (rows, channels)
    y_ptr,  # (rows, channels), contiguous
    channels,
    gate_stride,
    up_stride,
    alpha,
    limit,
    KIND: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program computes BLOCK channels of one row."""
    blocks = tl.cdiv(channels, BLOCK)
    row = (tl.program_id(0) // blocks).to(tl.int64)
    channel = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = channel < channels
    gate = tl.load(gate_ptr + row * gate_stride + channel, mask, 0.0).to(tl.float32)
    up = tl.load(up_ptr + row * up_stride + channel, mask, 0.0).to(tl.float32)
    if KIND == "clamped":
        up = _clamp(up, limit) + 1.0
    value, _ = _value_and_slope(gate, alpha, limit, KIND)
    tl.store(y_ptr + row * channels + channel, (value * up).to(y_ptr.dtype.element_ty), mask)


@triton.jit
def _backward_kernel(
    dy_ptr,  # (rows, channels), contiguous
    gate_ptr,  # (rows, channels)
    up_ptr,  # (rows, channels)
    dgate_ptr,  # (rows, channels)
    dup_ptr,  # (rows, channels)
    channels,
    gate_stride,
    up_stride,
    gradient_stride,
    alpha,
    limit,
    KIND: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program computes the gradients of BLOCK channels of one row."""
    blocks = tl.cdiv(channels, BLOCK)
    row = (tl.program_id(0) // blocks).to(tl.int64)
    channel = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = channel < channels
    dy = tl.load(dy_ptr + row * channels + channel, mask, 0.0).to(tl.float32)
    gate = tl.load(gate_ptr + row * gate_stride + channel, mask, 0.0).to(tl.float32)
    up = tl.load(up_ptr + row * up_stride + channel, mask, 0.0).to(tl.float32)
    value, slope = _value_and_slope(gate, alpha, limit, KIND)
    dup = dy * value
    if KIND == "clamped":
        dup = tl.where(tl.abs(up) > limit, 0.0, dup)
        up = _clamp(up, limit) + 1.0
    at = row * gradient_stride + channel
    tl.store(dgate_ptr + at, (dy * up * slope).to(dgate_ptr.dtype.element_ty), mask)
    tl.store(dup_ptr + at, dup.to(dup_ptr.dtype.element_ty), mask)


@triton.jit
def _clamp(x, limit):
    """x within [-limit, limit]; NaN stays."""
    x = tl.where(x > limit, limit, x)
    return tl.where(x < -limit, -limit, x)


@triton.jit
def _value_and_slope(x, alpha, limit, KIND: tl.constexpr):
    """act(x) and its derivative."""
    if KIND == "relu":
        value = tl.where(x < 0, 0.0, x)
        slope = tl.where(x > 0, 1.0, 0.0)
    elif KIND == "sigmoid":
        value = tl.sigmoid(x)
        slope = value * (1.0 - value)
    elif KIND == "gelu":
        share = 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))
        value = x * share
        slope = share + x * tl.exp(-0.5 * x * x) * 0.3989422804014327
    elif KIND == "gelu_tanh":
        # (1 + tanh(u)) / 2 = sigmoid(2 u), 2 sqrt(2 / pi) = 1.59...
        share = tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
        value = x * share
        slope = share + value * (1.0 - share) * 1.5957691216057308 * (1.0 + 0.134145 * x * x)
    elif KIND == "silu":
        share = tl.sigmoid(x)
        value = x * share
        slope = share * (1.0 + x * (1.0 - share))
    else:
        kept = tl.where(x > limit, limit, x)
        share = tl.sigmoid(alpha * kept)
        value = kept * share
        slope = tl.where(x > limit, 0.0, share * (1.0 + alpha * kept * (1.0 - share)))
    return value, slope
