"""Selective scan on a GPU.

A program owns a block of channels of one sequence, keeps their states (N, BLOCK) in registers, one channel a thread so
that sums over N need no other thread, and walks through time, loading a token ahead. The backward kernel walks through
the chunks from the last to the first: it recomputes the states of a chunk into scratch memory that stays in the
second-level cache, then goes back over it. Sums over channels are written for each block and added up afterwards.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from archspec.kernels.scans.selective_scan import Inputs
from archspec.kernels.thresholds import SCAN_CHUNK as CHUNK

BLOCK = 32  # channels: a warp


def forward(given: Inputs, train: bool) -> tuple[Tensor, Tensor, Tensor]:
    """y, the last state, and for training the state entering each chunk (B, chunks, N, D)."""
    x, h = given.x, given.h
    batch, length, width = x.shape
    N = given.A.shape[1]
    y, last = torch.empty_like(x, memory_format=torch.contiguous_format), torch.empty_like(h)
    entering = h.new_empty((batch, triton.cdiv(length, CHUNK), N, width) if train else (0,))
    x, dt, A, B, C, D, z, h = _prepared(*given)
    if not length:
        last.copy_(h)
    elif h.numel():
        tensors = (x, dt, A, B, C, D, z, h, y, last, entering)
        _scan[_grid(x)](*tensors, length, width, N, **_settings(N, D, z), TRAIN=train, num_warps=1)
    return y, last, entering


def backward(dy: Tensor, dlast: Tensor, entering: Tensor, given: Inputs) -> list[Tensor]:
    """Gradients of x, dt, A, B, C, then of D and z where they are given, and of h."""
    x, h, D, z = given.x, given.h, given.D, given.z
    batch, length, width = x.shape
    N = given.A.shape[1]
    blocks = triton.cdiv(width, BLOCK)
    dx, ddt, dz = (torch.empty(x.shape, dtype=h.dtype, device=x.device) for _ in range(3))
    dA, dD, dh = h.new_empty(batch, width, N), h.new_empty(batch, width), torch.empty_like(h)
    dB, dC = (h.new_empty(blocks, batch, length, N) for _ in range(2))
    settings = _settings(N, D, z)
    scratch = h.new_empty(batch, blocks, CHUNK + 1, settings["STATES"], BLOCK)
    arguments = _prepared(*given)[:-1]
    if h.numel():
        tensors = (dy.contiguous(), dlast.contiguous(), entering, *arguments, scratch, dx, ddt, dz, dA, dD, dh, dB, dC)
        _scan_back[_grid(x)](*tensors, batch, length, width, N, entering.shape[1], **settings, num_warps=1)
    of_skip = [] if D is None else [dD.sum(0)]
    of_gate = [] if z is None else [dz]
    return [dx, ddt, dA.sum(0), dB.sum(0), dC.sum(0), *of_skip, *of_gate, dh]


def _prepared(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if tensor is None else tensor.contiguous() for tensor in tensors]


def _settings(N: int, D: Tensor | None, z: Tensor | None) -> dict[str, int]:
    return {
        "SKIPS": D is not None,
        "GATED": z is not None,
        "STATES": triton.next_power_of_2(max(N, 2)),
        "BLOCK": BLOCK,
        "CHUNK": CHUNK,
    }


def _grid(x: Tensor) -> tuple[int]:
    """Sequences and blocks of channels in one axis, as the others end at 65535."""
    return (triton.cdiv(x.shape[2], BLOCK) * len(x),)


@triton.jit
def _scan(
    x_ptr,  # (B, T, D)
    dt_ptr,  # (B, T, D)
    A_ptr,  # (D, N)
    B_ptr,  # (B, T, N)
    C_ptr,  # (B, T, N)
    D_ptr,  # (D,) or None
    z_ptr,  # (B, T, D) or None
    initial_ptr,  # (B, D, N)
    y_ptr,  # (B, T, D)
    final_ptr,  # (B, D, N)
    entering_ptr,  # (B, chunks, N, D)
    length,
    width,
    N,
    SKIPS: tl.constexpr,
    GATED: tl.constexpr,
    STATES: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    TRAIN: tl.constexpr,
):
    """One program computes y of BLOCK channels of one sequence."""
    blocks = tl.cdiv(width, BLOCK)
    channel = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    n = tl.arange(0, STATES)
    inside, real = channel < width, n < N
    mask = real[:, None] & inside[None, :]
    rate = tl.load(A_ptr + channel[None, :] * N + n[:, None], mask=mask, other=0.0).to(tl.float32)
    edge = (batch * width + channel[None, :]) * N + n[:, None]
    h = tl.load(initial_ptr + edge, mask=mask, other=0.0)
    if SKIPS:
        skip = tl.load(D_ptr + channel, mask=inside, other=0.0).to(tl.float32)
    here = batch * length * width + channel
    row = batch * length * N + n
    chunks = tl.cdiv(length, CHUNK)
    x_next = tl.load(x_ptr + here, mask=inside, other=0.0)
    dt_next = tl.load(dt_ptr + here, mask=inside, other=0.0)
    B_next = tl.load(B_ptr + row, mask=real, other=0.0)
    C_next = tl.load(C_ptr + row, mask=real, other=0.0)
    for t in range(length):
        x, dt = x_next.to(tl.float32), dt_next.to(tl.float32)
        B, C = B_next.to(tl.float32), C_next.to(tl.float32)
        if GATED:
            z = tl.load(z_ptr + here, mask=inside, other=0.0).to(tl.float32)
        ahead = tl.minimum(t + 1, length - 1) - t  # 0 at the end, where what is loaded goes unused
        x_next = tl.load(x_ptr + here + ahead * width, mask=inside, other=0.0)
        dt_next = tl.load(dt_ptr + here + ahead * width, mask=inside, other=0.0)
        B_next = tl.load(B_ptr + row + ahead * N, mask=real, other=0.0)
        C_next = tl.load(C_ptr + row + ahead * N, mask=real, other=0.0)
        if TRAIN and t % CHUNK == 0:
            kept = ((batch * chunks + t // CHUNK) * N + n[:, None]) * width + channel[None, :]
            tl.store(entering_ptr + kept, h, mask=mask)
        h = tl.exp(dt[None, :] * rate) * h + (dt * x)[None, :] * B[:, None]
        y = tl.sum(h * C[:, None], axis=0)
        if SKIPS:
            y += skip * x
        if GATED:
            y *= z * tl.sigmoid(z)
        tl.store(y_ptr + here, y, mask=inside)
        here += width
        row += N
    tl.store(final_ptr + edge, h, mask=mask)


@triton.jit
def _scan_back(
    dy_ptr,  # (B, T, D)
    dlast_ptr,  # (B, D, N)
    entering_ptr,  # (B, chunks, N, D)
    x_ptr,  # (B, T, D)
    dt_ptr,  # (B, T, D)
    A_ptr,  # (D, N)
    B_ptr,  # (B, T, N)
    C_ptr,  # (B, T, N)
    D_ptr,  # (D,) or None
    z_ptr,  # (B, T, D) or None
    scratch_ptr,  # (B, blocks, CHUNK + 1, STATES, BLOCK)
    dx_ptr,  # (B, T, D)
    ddt_ptr,  # (B, T, D)
    dz_ptr,  # (B, T, D)
    dA_ptr,  # (B, D, N)
    dD_ptr,  # (B, D)
    dinitial_ptr,  # (B, D, N)
    dB_ptr,  # (blocks, B, T, N)
    dC_ptr,  # (blocks, B, T, N)
    batches,
    length,
    width,
    N,
    chunks,
    SKIPS: tl.constexpr,
    GATED: tl.constexpr,
    STATES: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """One program computes the gradients of BLOCK channels of one sequence, last chunk first."""
    blocks = tl.cdiv(width, BLOCK)
    block = (tl.program_id(0) % blocks).to(tl.int64)
    channel = block * BLOCK + tl.arange(0, BLOCK)
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    n = tl.arange(0, STATES)
    inside, real = channel < width, n < N
    mask = real[:, None] & inside[None, :]
    rate = tl.load(A_ptr + channel[None, :] * N + n[:, None], mask=mask, other=0.0).to(tl.float32)
    edge = (batch * width + channel[None, :]) * N + n[:, None]
    carry = tl.load(dlast_ptr + edge, mask=mask, other=0.0)
    drate = tl.zeros((STATES, BLOCK), tl.float32)
    dskip = tl.zeros((BLOCK,), tl.float32)
    skip = tl.zeros((BLOCK,), tl.float32)
    if SKIPS:
        skip = tl.load(D_ptr + channel, mask=inside, other=0.0).to(tl.float32)
    tile = n[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    scratch_ptr += (batch * blocks + block) * (CHUNK + 1) * STATES * BLOCK
    for back in range(chunks):
        chunk = chunks - 1 - back
        first = chunk * CHUNK
        end = tl.minimum(first + CHUNK, length)
        kept = ((batch * chunks + chunk) * N + n[:, None]) * width + channel[None, :]
        h = tl.load(entering_ptr + kept, mask=mask, other=0.0)
        tl.store(scratch_ptr + tile, h)
        for t in range(first, end):
            here = (batch * length + t) * width + channel
            row = (batch * length + t) * N + n
            x = tl.load(x_ptr + here, mask=inside, other=0.0).to(tl.float32)
            dt = tl.load(dt_ptr + here, mask=inside, other=0.0).to(tl.float32)
            B = tl.load(B_ptr + row, mask=real, other=0.0).to(tl.float32)
            h = tl.exp(dt[None, :] * rate) * h + (dt * x)[None, :] * B[:, None]
            tl.store(scratch_ptr + (t - first + 1) * (STATES * BLOCK) + tile, h)
        tl.debug_barrier()
        for reverse in range(end - first):
            t = end - 1 - reverse
            here = (batch * length + t) * width + channel
            row = (batch * length + t) * N + n
            x = tl.load(x_ptr + here, mask=inside, other=0.0).to(tl.float32)
            dt = tl.load(dt_ptr + here, mask=inside, other=0.0).to(tl.float32)
            s = tl.load(dy_ptr + here, mask=inside, other=0.0).to(tl.float32)
            B = tl.load(B_ptr + row, mask=real, other=0.0).to(tl.float32)
            C = tl.load(C_ptr + row, mask=real, other=0.0).to(tl.float32)
            before = tl.load(scratch_ptr + (t - first) * (STATES * BLOCK) + tile)
            decay = tl.exp(dt[None, :] * rate)
            h = decay * before + (dt * x)[None, :] * B[:, None]
            if GATED:
                z = tl.load(z_ptr + here, mask=inside, other=0.0).to(tl.float32)
                gate = tl.sigmoid(z)
                total = tl.sum(h * C[:, None], axis=0) + skip * x
                tl.store(dz_ptr + here, s * total * gate * (1.0 + z * (1.0 - gate)), mask=inside)
                s *= z * gate
            partial = ((block * batches + batch) * length + t) * N + n
            tl.store(dC_ptr + partial, tl.sum(h * s[None, :], axis=1), mask=real)
            grad = C[:, None] * s[None, :] + carry
            tl.store(dB_ptr + partial, tl.sum(grad * (dt * x)[None, :], axis=1), mask=real)
            dinput = tl.sum(grad * B[:, None], axis=0)
            carry = grad * decay
            dexponent = carry * before
            drate += dexponent * dt[None, :]
            dskip += s * x
            tl.store(dx_ptr + here, dinput * dt + skip * s, mask=inside)
            tl.store(ddt_ptr + here, dinput * x + tl.sum(dexponent * rate, axis=0), mask=inside)
        tl.debug_barrier()
    tl.store(dA_ptr + edge, drate, mask=mask)
    tl.store(dinitial_ptr + edge, carry, mask=mask)
    tl.store(dD_ptr + batch * width + channel, dskip, mask=inside)
