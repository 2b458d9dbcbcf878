"""Element-wise linear recurrence on a CPU, token by token, one block of channels in one thread."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from archspec.kernels.cpu.threads import array, compiled, memory, share, use_wide_vectors

Array = NDArray[np.float32]

BLOCK = 512  # channels: rows long enough to stream from memory, short enough for the first-level cache
ZERO = np.float32(0)


def forward(a: Tensor, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """h of every token and the last one (B, D)."""
    y, last = torch.empty(x.shape, dtype=h.dtype), torch.empty(h.shape, dtype=h.dtype)
    loop, block = (_scan_complex, BLOCK // 2) if h.is_complex() else (_scan, BLOCK)
    share(loop, _items(x, block), block, int(a.dim() == 3), *_arrays(_rows(a), x, h), *map(memory, (y, last)))
    return y.to(x.dtype), last


def backward(dy: Tensor, dlast: Tensor, y: Tensor, a: Tensor, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a, x and the first state."""
    moves = a.dim() == 3
    dx, dh = torch.empty(x.shape, dtype=h.dtype), torch.empty(h.shape, dtype=h.dtype)
    da = torch.empty_like(dx) if moves else torch.zeros(len(x), 1, *a.shape, dtype=h.dtype)
    loop, block = (_scan_back_complex, BLOCK // 2) if h.is_complex() else (_scan_back, BLOCK)
    given = _arrays(dy, dlast, y, _rows(a), h)
    share(loop, _items(x, block), block, int(moves), *given, *map(memory, (dx, da, dh)))
    return da if moves else da.sum((0, 1)), dx, dh


def _rows(a: Tensor) -> Tensor:
    """A decay (B, T, D), or (1, 1, D) where it is constant; the loops step through it by `moves`, 1 or 0."""
    return a if a.dim() == 3 else a[None, None]


def _items(x: Tensor, block: int) -> int:
    return x.shape[0] * -(-x.shape[2] // block)


def _arrays(*tensors: Tensor) -> list[Array]:
    return [memory(x.detach().resolve_conj().contiguous()) if x.is_complex() else array(x) for x in tensors]


@compiled
def _scan(
    first: int, last: int, block: int, moves: int, a: Array, x: Array, initial: Array, y: Array, final: Array
) -> None:
    """Items are (sequence, block of channels), blocks fastest; so in the loops below."""
    use_wide_vectors()
    length, width = x.shape[1], x.shape[2]
    blocks = -(-width // block)
    for item in range(first, last):
        b, start = item // blocks, item % blocks * block
        end = min(start + block, width)
        before = initial[b, start:end]
        for t in range(length):
            a_t, x_t, y_t = a[b * moves, t * moves, start:end], x[b, t, start:end], y[b, t, start:end]
            for i in range(end - start):
                y_t[i] = a_t[i] * before[i] + x_t[i]
            before = y_t
        last_h = final[b, start:end]
        for i in range(end - start):
            last_h[i] = before[i]


@compiled
def _scan_back(
    first: int,
    last: int,
    block: int,
    moves: int,
    dy: Array,
    dlast: Array,
    y: Array,
    a: Array,
    initial: Array,
    dx: Array,
    da: Array,
    dinitial: Array,
) -> None:
    use_wide_vectors()
    length, width = dy.shape[1], dy.shape[2]
    blocks = -(-width // block)
    for item in range(first, last):
        b, start = item // blocks, item % blocks * block
        end = min(start + block, width)
        carry = dinitial[b, start:end]
        dlast_b = dlast[b, start:end]
        for i in range(end - start):
            carry[i] = dlast_b[i]
        for t in range(length - 1, -1, -1):
            before = y[b, t - 1, start:end] if t else initial[b, start:end]
            dy_t, dx_t, da_t = dy[b, t, start:end], dx[b, t, start:end], da[b, t * moves, start:end]
            a_t = a[b * moves, t * moves, start:end]
            for i in range(end - start):
                dx_t[i] = dy_t[i] + carry[i]
            if moves:
                for i in range(end - start):
                    da_t[i] = dx_t[i] * before[i]
            else:
                for i in range(end - start):
                    da_t[i] += dx_t[i] * before[i]
            for i in range(end - start):
                carry[i] = dx_t[i] * a_t[i]


@compiled
def _scan_complex(
    first: int, last: int, block: int, moves: int, a: Array, x: Array, initial: Array, y: Array, final: Array
) -> None:
    use_wide_vectors()
    length, width = x.shape[1], x.shape[2]
    blocks = -(-width // block)
    for item in range(first, last):
        b, start = item // blocks, item % blocks * block
        end = min(start + block, width)
        before = initial[b, start:end]
        for t in range(length):
            a_t, x_t, y_t = a[b * moves, t * moves, start:end], x[b, t, start:end], y[b, t, start:end]
            for i in range(end - start):
                real, imaginary = before[i, 0], before[i, 1]
                y_t[i, 0] = a_t[i, 0] * real - a_t[i, 1] * imaginary + x_t[i, 0]
                y_t[i, 1] = a_t[i, 0] * imaginary + a_t[i, 1] * real + x_t[i, 1]
            before = y_t
        last_h = final[b, start:end]
        for i in range(end - start):
            last_h[i, 0], last_h[i, 1] = before[i, 0], before[i, 1]


@compiled
def _scan_back_complex(
    first: int,
    last: int,
    block: int,
    moves: int,
    dy: Array,
    dlast: Array,
    y: Array,
    a: Array,
    initial: Array,
    dx: Array,
    da: Array,
    dinitial: Array,
) -> None:
    use_wide_vectors()
    length, width = dy.shape[1], dy.shape[2]
    blocks = -(-width // block)
    for item in range(first, last):
        b, start = item // blocks, item % blocks * block
        end = min(start + block, width)
        carry = dinitial[b, start:end]
        dlast_b = dlast[b, start:end]
        for i in range(end - start):
            carry[i, 0], carry[i, 1] = dlast_b[i, 0], dlast_b[i, 1]
        for t in range(length - 1, -1, -1):
            before = y[b, t - 1, start:end] if t else initial[b, start:end]
            dy_t, dx_t, da_t = dy[b, t, start:end], dx[b, t, start:end], da[b, t * moves, start:end]
            a_t = a[b * moves, t * moves, start:end]
            for i in range(end - start):
                dx_t[i, 0] = dy_t[i, 0] + carry[i, 0]
                dx_t[i, 1] = dy_t[i, 1] + carry[i, 1]
            for i in range(end - start):
                real, imaginary = dx_t[i, 0], dx_t[i, 1]
                da_t[i, 0] = real * before[i, 0] + imaginary * before[i, 1] + (ZERO if moves else da_t[i, 0])
                da_t[i, 1] = imaginary * before[i, 0] - real * before[i, 1] + (ZERO if moves else da_t[i, 1])
            for i in range(end - start):
                real, imaginary = dx_t[i, 0], dx_t[i, 1]
                carry[i, 0] = real * a_t[i, 0] + imaginary * a_t[i, 1]
                carry[i, 1] = imaginary * a_t[i, 0] - real * a_t[i, 1]
