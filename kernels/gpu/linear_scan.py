"""Element-wise linear recurrence on a GPU.

A program owns a block of channels of one sequence and walks through time in tiles. Inside a tile the recurrence is a
scan as a tree, because then all of the tile's loads are under way at once: token by token, each step would wait for
its own. From tile to tile the last state is carried. Complex numbers are pairs in memory.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

TIME, BLOCK = 64, 32


def forward(a: Tensor, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """h of every token and the last one (B, D)."""
    y, last = torch.empty(x.shape, dtype=x.dtype, device=x.device), torch.empty_like(h)
    if x.numel():
        kernel = _scan_complex if h.is_complex() else _scan
        tensors = (a, x, h, y, last)
        kernel[_grid(x)](*map(_numbers, tensors), x.shape[1], x.shape[2], *_strides(a), TIME=TIME, BLOCK=BLOCK)
    return y, last


def backward(dy: Tensor, dlast: Tensor, y: Tensor, a: Tensor, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a, x and the first state."""
    dx, dh = torch.empty_like(dy, memory_format=torch.contiguous_format), torch.empty_like(h)
    moves = a.dim() == 3
    da = torch.empty(a.shape if moves else (len(x), *a.shape), dtype=h.dtype, device=h.device)
    if x.numel():
        kernel = _scan_back_complex if h.is_complex() else _scan_back
        tensors = (dy, dlast, y, a, h, dx, da, dh)
        settings = {"MOVES": moves, "TIME": TIME, "BLOCK": BLOCK}
        kernel[_grid(x)](*map(_numbers, tensors), x.shape[1], x.shape[2], *_strides(a), **settings)
    return da if moves else da.sum(0), dx, dh


def _grid(x: Tensor) -> tuple[int]:
    """Sequences and blocks of channels in one axis, as the others end at 65535."""
    return (triton.cdiv(x.shape[2], BLOCK) * len(x),)


def _numbers(x: Tensor) -> Tensor:
    """x contiguous, complex numbers as pairs in a last axis of 2."""
    x = x.resolve_conj().contiguous()
    return torch.view_as_real(x) if x.is_complex() else x


def _strides(a: Tensor) -> tuple[int, int]:
    """Of the decay over sequences and tokens, in numbers or pairs; 0 where it is constant."""
    return (a.shape[1] * a.shape[2], a.shape[2]) if a.dim() == 3 else (0, 0)


@triton.jit
def _then(a, x, b, y):
    """h -> a h + x, then h -> b h + y."""
    return a * b, b * x + y


@triton.jit
def _then_complex(a, ai, x, xi, b, bi, y, yi):
    """`_then` for numbers a + i ai and so on."""
    return a * b - ai * bi, a * bi + ai * b, b * x - bi * xi + y, b * xi + bi * x + yi


@triton.jit
def _row(x, t, wanted):
    """Row `wanted` of a tile."""
    return tl.sum(tl.where((t == wanted)[:, None], x, 0.0), axis=0)


@triton.jit
def _scan(
    a_ptr,  # (B, T, D) or (D,)
    x_ptr,  # (B, T, D)
    initial_ptr,  # (B, D)
    y_ptr,  # (B, T, D)
    final_ptr,  # (B, D)
    length,
    width,
    decay_batch_stride,
    decay_time_stride,
    TIME: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program computes h of BLOCK channels of one sequence."""
    blocks = tl.cdiv(width, BLOCK)
    channel = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    inside = channel < width
    step = tl.arange(0, TIME)
    carry = tl.load(initial_ptr + batch * width + channel, mask=inside, other=0.0).to(tl.float32)
    a_ptr += batch * decay_batch_stride + channel[None, :]
    x_ptr += batch * length * width + channel[None, :]
    y_ptr += batch * length * width + channel[None, :]
    for start in range(0, length, TIME):
        t = (start + step).to(tl.int64)[:, None]
        mask = (t < length) & inside[None, :]
        # past the end the state stays what it is
        a = tl.load(a_ptr + t * decay_time_stride, mask=mask, other=1.0).to(tl.float32)
        x = tl.load(x_ptr + t * width, mask=mask, other=0.0).to(tl.float32)
        a, x = tl.associative_scan((a, x), 0, _then)
        h = a * carry[None, :] + x
        tl.store(y_ptr + t * width, h, mask=mask)
        carry = _row(h, step, TIME - 1)
    tl.store(final_ptr + batch * width + channel, carry, mask=inside)


@triton.jit
def _scan_back(
    dy_ptr,  # (B, T, D)
    dlast_ptr,  # (B, D)
    y_ptr,  # (B, T, D)
    a_ptr,  # (B, T, D) or (D,)
    initial_ptr,  # (B, D)
    dx_ptr,  # (B, T, D)
    da_ptr,  # (B, T, D) or (B, D)
    dinitial_ptr,  # (B, D)
    length,
    width,
    decay_batch_stride,
    decay_time_stride,
    MOVES: tl.constexpr,
    TIME: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program computes the gradients of BLOCK channels of one sequence, last token first."""
    blocks = tl.cdiv(width, BLOCK)
    channel = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    inside = channel < width
    step = tl.arange(0, TIME)
    carry = tl.load(dlast_ptr + batch * width + channel, mask=inside, other=0.0).to(tl.float32)
    initial = tl.load(initial_ptr + batch * width + channel, mask=inside, other=0.0).to(tl.float32)
    a_ptr += batch * decay_batch_stride + channel[None, :]
    here = batch * length * width + channel[None, :]
    summed = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, length, TIME):
        t = (length - 1 - start - step).to(tl.int64)[:, None]
        mask = (t >= 0) & inside[None, :]
        later = mask & (t + 1 < length)  # the gradient of the last state meets no decay
        a = tl.load(a_ptr + (t + 1) * decay_time_stride, mask=later, other=1.0).to(tl.float32)
        dy = tl.load(dy_ptr + here + t * width, mask=mask, other=0.0).to(tl.float32)
        a, dy = tl.associative_scan((a, dy), 0, _then)
        g = a * carry[None, :] + dy
        before = tl.load(y_ptr + here + (t - 1) * width, mask=mask & (t > 0), other=0.0).to(tl.float32)
        before = tl.where(t == 0, initial[None, :], before)
        tl.store(dx_ptr + here + t * width, g, mask=mask)
        if MOVES:
            tl.store(da_ptr + here + t * width, g * before, mask=mask)
        else:
            summed += tl.sum(tl.where(mask, g * before, 0.0), axis=0)
        carry = _row(g, step, TIME - 1)
    if not MOVES:
        tl.store(da_ptr + batch * width + channel, summed, mask=inside)
    first = tl.load(a_ptr + tl.zeros((1, 1), tl.int64), mask=inside[None, :], other=0.0).to(tl.float32)
    tl.store(dinitial_ptr + batch * width + channel[None, :], first * carry[None, :], mask=inside[None, :])


@triton.jit
def _load_pair(ptr, mask, other):
    """Real and imaginary parts, the imaginary 0 where masked."""
    return tl.load(ptr, mask=mask, other=other), tl.load(ptr + 1, mask=mask, other=0.0)


@triton.jit
def _store_pair(ptr, real, imaginary, mask):
    tl.store(ptr, real, mask=mask)
    tl.store(ptr + 1, imaginary, mask=mask)


@triton.jit
def _scan_complex(
    a_ptr,  # (B, T, D, 2) or (D, 2)
    x_ptr,  # (B, T, D, 2)
    initial_ptr,  # (B, D, 2)
    y_ptr,  # (B, T, D, 2)
    final_ptr,  # (B, D, 2)
    length,
    width,
    decay_batch_stride,
    decay_time_stride,
    TIME: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program computes h of BLOCK complex channels of one sequence."""
    blocks = tl.cdiv(width, BLOCK)
    channel = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    inside = channel < width
    step = tl.arange(0, TIME)
    edge = 2 * (batch * width + channel)
    real, imaginary = _load_pair(initial_ptr + edge, inside, 0.0)
    a_ptr += 2 * (batch * decay_batch_stride + channel[None, :])
    here = 2 * (batch * length * width + channel[None, :])
    for start in range(0, length, TIME):
        t = (start + step).to(tl.int64)[:, None]
        mask = (t < length) & inside[None, :]
        a, ai = _load_pair(a_ptr + 2 * t * decay_time_stride, mask, 1.0)
        x, xi = _load_pair(x_ptr + here + 2 * t * width, mask, 0.0)
        a, ai, x, xi = tl.associative_scan((a, ai, x, xi), 0, _then_complex)
        h = a * real[None, :] - ai * imaginary[None, :] + x
        hi = a * imaginary[None, :] + ai * real[None, :] + xi
        _store_pair(y_ptr + here + 2 * t * width, h, hi, mask)
        real, imaginary = _row(h, step, TIME - 1), _row(hi, step, TIME - 1)
    _store_pair(final_ptr + edge, real, imaginary, inside)


@triton.jit
def _scan_back_complex(
    dy_ptr,  # (B, T, D, 2)
    dlast_ptr,  # (B, D, 2)
    y_ptr,  # (B, T, D, 2)
    a_ptr,  # (B, T, D, 2) or (D, 2)
    initial_ptr,  # (B, D, 2)
    dx_ptr,  # (B, T, D, 2)
    da_ptr,  # (B, T, D, 2) or (B, D, 2)
    dinitial_ptr,  # (B, D, 2)
    length,
    width,
    decay_batch_stride,
    decay_time_stride,
    MOVES: tl.constexpr,
    TIME: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program computes the gradients of BLOCK complex channels of one sequence, last token first."""
    blocks = tl.cdiv(width, BLOCK)
    channel = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    inside = channel < width
    step = tl.arange(0, TIME)
    edge = 2 * (batch * width + channel)
    real, imaginary = _load_pair(dlast_ptr + edge, inside, 0.0)
    initial, initial_i = _load_pair(initial_ptr + edge, inside, 0.0)
    a_ptr += 2 * (batch * decay_batch_stride + channel[None, :])
    here = 2 * (batch * length * width + channel[None, :])
    summed = tl.zeros((BLOCK,), tl.float32)
    summed_i = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, length, TIME):
        t = (length - 1 - start - step).to(tl.int64)[:, None]
        mask = (t >= 0) & inside[None, :]
        a, ai = _load_pair(a_ptr + 2 * (t + 1) * decay_time_stride, mask & (t + 1 < length), 1.0)
        dy, dyi = _load_pair(dy_ptr + here + 2 * t * width, mask, 0.0)
        a, ai, dy, dyi = tl.associative_scan((a, -ai, dy, dyi), 0, _then_complex)
        g = a * real[None, :] - ai * imaginary[None, :] + dy
        gi = a * imaginary[None, :] + ai * real[None, :] + dyi
        before, before_i = _load_pair(y_ptr + here + 2 * (t - 1) * width, mask & (t > 0), 0.0)
        before = tl.where(t == 0, initial[None, :], before)
        before_i = tl.where(t == 0, initial_i[None, :], before_i)
        da, dai = g * before + gi * before_i, gi * before - g * before_i
        _store_pair(dx_ptr + here + 2 * t * width, g, gi, mask)
        if MOVES:
            _store_pair(da_ptr + here + 2 * t * width, da, dai, mask)
        else:
            summed += tl.sum(tl.where(mask, da, 0.0), axis=0)
            summed_i += tl.sum(tl.where(mask, dai, 0.0), axis=0)
        real, imaginary = _row(g, step, TIME - 1), _row(gi, step, TIME - 1)
    if not MOVES:
        _store_pair(da_ptr + edge, summed, summed_i, inside)
    first, first_i = _load_pair(a_ptr + tl.zeros((1, 1), tl.int64), inside[None, :], 0.0)
    real, imaginary = real[None, :], imaginary[None, :]
    _store_pair(
        dinitial_ptr + edge[None, :],
        first * real + first_i * imaginary,
        first * imaginary - first_i * real,
        inside[None, :],
    )
