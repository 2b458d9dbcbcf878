"""Triton kernels of the short causal convolution; see `archspec.kernels.convolutions.short_conv` for the equations."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from archspec.kernels.convolutions.short_conv import Inputs

TOKENS = 32  # of one step of a program
CHANNELS = 64
STEPS = 8  # of one program where it adds up gradients of the taps: a partial sum for every TOKENS * STEPS tokens


def forward(given: Inputs) -> Tensor:
    """y (B, T, D) in the type of x."""
    x, weight, bias, gate_in, gate_out, tail = _contiguous(*given[:-1])
    B, T, D = x.shape
    y = torch.empty_like(x)
    if y.numel():
        grid = (B * triton.cdiv(T, TOKENS), triton.cdiv(D, CHANNELS))
        _forward_kernel[grid](
            x,
            weight,
            weight if bias is None else bias,
            x if gate_in is None else gate_in,
            x if gate_out is None else gate_out,
            x if tail is None else tail,
            y,
            T,
            D,
            TAPS=weight.shape[2],
            BIAS=bias is not None,
            GATE_IN=gate_in is not None,
            GATE_OUT=gate_out is not None,
            TAIL=tail is not None,
            SILU=given.silu,
            BLOCK_T=TOKENS,
            BLOCK_D=CHANNELS,
        )
    return y


def backward(dy: Tensor, given: Inputs) -> list[Tensor]:
    """Gradients of x, weight, bias, both gates and tail, as far as they are given."""
    x, weight, bias, gate_in, gate_out, tail, dy = _contiguous(*given[:-1], dy)
    B, T, D = x.shape
    K = weight.shape[2]
    flags = {"GATE_IN": gate_in is not None, "TAIL": tail is not None, "BLOCK_T": TOKENS, "BLOCK_D": CHANNELS}
    parts = triton.cdiv(T, TOKENS * STEPS)
    dw = torch.empty(B, parts, K, D, dtype=torch.float32, device=x.device)
    db = torch.empty(B, parts, D, dtype=torch.float32, device=x.device)
    changed = given.silu or gate_out is not None
    dz = torch.empty_like(dy) if changed else dy
    d_out = None if gate_out is None else torch.empty_like(gate_out)
    dx = torch.empty_like(x)
    d_in = None if gate_in is None else torch.empty_like(gate_in)
    dtail = None if tail is None else torch.empty_like(tail)
    if x.numel():
        _taps_kernel[(B * parts, triton.cdiv(D, CHANNELS))](
            x,
            weight,
            weight if bias is None else bias,
            x if gate_in is None else gate_in,
            x if gate_out is None else gate_out,
            x if tail is None else tail,
            dy,
            dz,
            dy if d_out is None else d_out,
            dw,
            db,
            T,
            D,
            TAPS=K,
            PADDED=triton.next_power_of_2(K),
            BIAS=bias is not None,
            GATE_OUT=gate_out is not None,
            SILU=given.silu,
            STEPS=STEPS,
            **flags,
        )
        _inputs_kernel[(B * triton.cdiv(T + K - 1, TOKENS), triton.cdiv(D, CHANNELS))](
            x,
            weight,
            x if gate_in is None else gate_in,
            dz,
            dx,
            dx if d_in is None else d_in,
            dx if dtail is None else dtail,
            T,
            D,
            TAPS=K,
            **flags,
        )
    found = [dx, dw.sum((0, 1)).mT.unsqueeze(1), None if bias is None else db.sum((0, 1)), d_in, d_out, dtail]
    return [grad for grad in found if grad is not None]


def _contiguous(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if tensor is None else tensor.contiguous() for tensor in tensors]


@triton.jit
def _input(
    x_ptr, gate_ptr, tail_ptr, batch, t, d, T, D, mask, TAPS: tl.constexpr, GATE: tl.constexpr, TAIL: tl.constexpr
):
    """Gated inputs at tokens t (those before the first are of tail, or 0) and channels d, in float32."""
    place = (batch * T + t)[:, None] * D + d[None, :]
    inside = mask & (t >= 0)[:, None]
    u = tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32)
    if GATE:
        u *= tl.load(gate_ptr + place, mask=inside, other=0.0).to(tl.float32)
    if TAIL:
        place = (batch * (TAPS - 1) + t + TAPS - 1)[:, None] * D + d[None, :]
        before = mask & (t < 0)[:, None] & (t >= 1 - TAPS)[:, None]
        u += tl.load(tail_ptr + place, mask=before, other=0.0).to(tl.float32)
    return u


@triton.jit
def _forward_kernel(
    x_ptr,  # (B, T, D)
    weight_ptr,  # (D, TAPS)
    bias_ptr,  # (D,)
    gate_in_ptr,  # (B, T, D)
    gate_out_ptr,  # (B, T, D)
    tail_ptr,  # (B, TAPS - 1, D)
    y_ptr,  # (B, T, D)
    T,
    D,
    TAPS: tl.constexpr,
    BIAS: tl.constexpr,
    GATE_IN: tl.constexpr,
    GATE_OUT: tl.constexpr,
    TAIL: tl.constexpr,
    SILU: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program: BLOCK_T tokens of BLOCK_D channels of y. Tokens that several taps read come from the cache."""
    blocks = tl.cdiv(T, BLOCK_T)
    batch = tl.program_id(0).to(tl.int64) // blocks
    t = tl.program_id(0) % blocks * BLOCK_T + tl.arange(0, BLOCK_T)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    mask = (t < T)[:, None] & (d < D)[None, :]
    z = tl.zeros((BLOCK_T, BLOCK_D), tl.float32)
    for j in tl.static_range(TAPS):
        tap = tl.load(weight_ptr + d * TAPS + j, mask=d < D, other=0.0).to(tl.float32)
        shifted = t + (j - TAPS + 1)
        z += tap[None, :] * _input(x_ptr, gate_in_ptr, tail_ptr, batch, shifted, d, T, D, mask, TAPS, GATE_IN, TAIL)
    if BIAS:
        z += tl.load(bias_ptr + d, mask=d < D, other=0.0).to(tl.float32)[None, :]
    if SILU:
        z *= tl.sigmoid(z)
    place = (batch * T + t)[:, None] * D + d[None, :]
    if GATE_OUT:
        z *= tl.load(gate_out_ptr + place, mask=mask, other=0.0).to(tl.float32)
    tl.store(y_ptr + place, z, mask=mask)


@triton.jit
def _taps_kernel(
    x_ptr,  # (B, T, D)
    weight_ptr,  # (D, TAPS)
    bias_ptr,  # (D,)
    gate_in_ptr,  # (B, T, D)
    gate_out_ptr,  # (B, T, D)
    tail_ptr,  # (B, TAPS - 1, D)
    dy_ptr,  # (B, T, D)
    dz_ptr,  # (B, T, D), written where it is not dy
    d_out_ptr,  # (B, T, D), written where there is a gate
    dw_ptr,  # (B, parts, TAPS, D)
    db_ptr,  # (B, parts, D)
    T,
    D,
    TAPS: tl.constexpr,
    PADDED: tl.constexpr,
    BIAS: tl.constexpr,
    GATE_IN: tl.constexpr,
    GATE_OUT: tl.constexpr,
    TAIL: tl.constexpr,
    SILU: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program: STEPS * BLOCK_T tokens of BLOCK_D channels of dz, and their part of the gradients of w and b."""
    parts = tl.cdiv(T, STEPS * BLOCK_T)
    batch = tl.program_id(0).to(tl.int64) // parts
    part = tl.program_id(0) % parts
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    taps = tl.arange(0, PADDED)
    dw = tl.zeros((PADDED, BLOCK_D), tl.float32)
    db = tl.zeros((BLOCK_D,), tl.float32)
    for step in range(STEPS):
        t = (part * STEPS + step) * BLOCK_T + tl.arange(0, BLOCK_T)
        mask = (t < T)[:, None] & (d < D)[None, :]
        place = (batch * T + t)[:, None] * D + d[None, :]
        dz = tl.load(dy_ptr + place, mask=mask, other=0.0).to(tl.float32)
        if SILU or GATE_OUT:
            z = tl.zeros((BLOCK_T, BLOCK_D), tl.float32)
            for j in tl.static_range(TAPS):
                tap = tl.load(weight_ptr + d * TAPS + j, mask=d < D, other=0.0).to(tl.float32)
                shifted = t + (j - TAPS + 1)
                z += tap[None, :] * _input(
                    x_ptr, gate_in_ptr, tail_ptr, batch, shifted, d, T, D, mask, TAPS, GATE_IN, TAIL
                )
            if BIAS:
                z += tl.load(bias_ptr + d, mask=d < D, other=0.0).to(tl.float32)[None, :]
            sigmoid = tl.sigmoid(z)
            if GATE_OUT:
                tl.store(d_out_ptr + place, dz * (z * sigmoid if SILU else z), mask=mask)
                dz *= tl.load(gate_out_ptr + place, mask=mask, other=0.0).to(tl.float32)
            if SILU:
                dz *= sigmoid * (1.0 + z * (1.0 - sigmoid))
            tl.store(dz_ptr + place, dz, mask=mask)
        db += tl.sum(dz, axis=0)
        for j in tl.static_range(TAPS):
            shifted = t + (j - TAPS + 1)
            u = _input(x_ptr, gate_in_ptr, tail_ptr, batch, shifted, d, T, D, mask, TAPS, GATE_IN, TAIL)
            dw += tl.where((taps == j)[:, None], tl.sum(dz * u, axis=0)[None, :], 0.0)
    row = batch * parts + part
    place = (row * TAPS + taps)[:, None] * D + d[None, :]
    tl.store(dw_ptr + place, dw, mask=(taps < TAPS)[:, None] & (d < D)[None, :])
    tl.store(db_ptr + row * D + d, db, mask=d < D)


@triton.jit
def _inputs_kernel(
    x_ptr,  # (B, T, D)
    weight_ptr,  # (D, TAPS)
    gate_in_ptr,  # (B, T, D)
    dz_ptr,  # (B, T, D)
    dx_ptr,  # (B, T, D)
    d_in_ptr,  # (B, T, D), written where there is a gate
    dtail_ptr,  # (B, TAPS - 1, D), written where there is a tail
    T,
    D,
    TAPS: tl.constexpr,
    GATE_IN: tl.constexpr,
    TAIL: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program: gradients of BLOCK_T inputs, those of the tail before all others, in BLOCK_D channels."""
    blocks = tl.cdiv(T + TAPS - 1, BLOCK_T)
    batch = tl.program_id(0).to(tl.int64) // blocks
    t = tl.program_id(0) % blocks * BLOCK_T + tl.arange(0, BLOCK_T) - (TAPS - 1)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    mask = (t < T)[:, None] & (d < D)[None, :]
    du = tl.zeros((BLOCK_T, BLOCK_D), tl.float32)
    for j in tl.static_range(TAPS):
        tap = tl.load(weight_ptr + d * TAPS + j, mask=d < D, other=0.0).to(tl.float32)
        later = t + (TAPS - 1 - j)
        inside = mask & (later >= 0)[:, None] & (later < T)[:, None]
        dz = tl.load(dz_ptr + (batch * T + later)[:, None] * D + d[None, :], mask=inside, other=0.0)
        du += tap[None, :] * dz.to(tl.float32)
    place = (batch * T + t)[:, None] * D + d[None, :]
    inside = mask & (t >= 0)[:, None]
    if GATE_IN:
        gate = tl.load(gate_in_ptr + place, mask=inside, other=0.0).to(tl.float32)
        x = tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32)
        tl.store(d_in_ptr + place, du * x, mask=inside)
        tl.store(dx_ptr + place, du * gate, mask=inside)
    else:
        tl.store(dx_ptr + place, du, mask=inside)
    if TAIL:
        place = (batch * (TAPS - 1) + t + TAPS - 1)[:, None] * D + d[None, :]
        tl.store(dtail_ptr + place, du, mask=mask & (t < 0)[:, None])
