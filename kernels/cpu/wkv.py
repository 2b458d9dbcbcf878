"""WKV on a CPU, token by token, one block of channels at a time.

What one block works on lies in the rows of one array: loops over rows of one array need no tests of whether arrays
overlap, and so become vector instructions.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from archspec.kernels.cpu.exponential import exp
from archspec.kernels.cpu.threads import array, compiled, memory, share, use_wide_vectors
from archspec.kernels.scans.wkv import CHUNK, Inputs

Array = NDArray[np.float32]

BLOCK = 128  # channels
ZERO, ONE = np.float32(0), np.float32(1)
NUM, DEN, TOP, W, U, K, V, DY, DK, DV, G, H, P, DW, DU, ROWS = range(16)


def forward(given: Inputs, train: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """y, the last sums, and for training those entering each chunk (3, B, chunks, D)."""
    w, u, k, v, num, den, top = given
    batch, length, width = k.shape
    y, last = torch.empty(k.shape), torch.empty(3, batch, width)
    entering = torch.empty((3, batch, -(-length // CHUNK), width) if train else (0,))
    kept = entering if train else torch.empty(3, 0, 0, width)
    start = torch.stack((num, den, top))
    given = [array(x) for x in (w, u, k, v, start)]
    share(_average, batch * -(-width // BLOCK), *given, train, *map(memory, (y, last, kept)))
    return y.to(v.dtype), *(x.clone() for x in last), entering


def backward(dy: Tensor, dnum: Tensor, dden: Tensor, last: Tensor, entering: Tensor, given: Inputs) -> list[Tensor]:
    """Gradients of w, u, k, v, num and den; `last` is the max after the last token."""
    w, u, k, v, *_ = given
    batch, _, width = k.shape
    dk, dv = torch.empty(k.shape), torch.empty(k.shape)
    sums = torch.empty(4, batch, width)  # gradients of w, u, num, den
    carry = torch.stack((dnum, dden, -last))
    given = [array(x) for x in (dy, carry, entering, w, u, k, v)]
    share(_average_back, batch * -(-width // BLOCK), *given, *map(memory, (dk, dv, sums)))
    return [sums[0].sum(0), sums[1].sum(0), dk, dv, sums[2].clone(), sums[3].clone()]


@compiled
def _average(
    first: int,
    last: int,
    w: Array,
    u: Array,
    k: Array,
    v: Array,
    start: Array,
    train: bool,
    y: Array,
    final: Array,
    entering: Array,
) -> None:
    """Items are (sequence, block of channels), blocks fastest."""
    use_wide_vectors()
    length, width = k.shape[1], k.shape[2]
    blocks = -(-width // BLOCK)
    work = np.zeros((ROWS, BLOCK), np.float32)
    for item in range(first, last):
        b, begin = item // blocks, item % blocks * BLOCK
        size = min(BLOCK, width - begin)
        for i in range(size):
            work[W, i], work[U, i] = w[begin + i], u[begin + i]
            for row in range(3):
                work[row, i] = start[row, b, begin + i]
        for t in range(length):
            if train and t % CHUNK == 0:
                for row in range(3):
                    for i in range(size):
                        entering[row, b, t // CHUNK, begin + i] = work[row, i]
            k_t, v_t, y_t = k[b, t, begin : begin + size], v[b, t, begin : begin + size], y[b, t, begin : begin + size]
            for i in range(size):
                num, den, top = work[NUM, i], work[DEN, i], work[TOP, i]
                now = work[U, i] + k_t[i]
                largest = top if top > now else now
                before, now = exp(top - largest), exp(now - largest)
                y_t[i] = (before * num + now * v_t[i]) / (before * den + now)
            for i in range(size):
                top = work[TOP, i] + work[W, i]
                largest = top if top > k_t[i] else k_t[i]
                before, now = exp(top - largest), exp(k_t[i] - largest)
                work[NUM, i] = before * work[NUM, i] + now * v_t[i]
                work[DEN, i] = before * work[DEN, i] + now
                work[TOP, i] = largest
        for row in range(3):
            for i in range(size):
                final[row, b, begin + i] = work[row, i]


@compiled
def _average_back(
    first: int,
    last: int,
    dy: Array,
    carry: Array,
    entering: Array,
    w: Array,
    u: Array,
    k: Array,
    v: Array,
    dk: Array,
    dv: Array,
    sums: Array,
) -> None:
    """Items are (sequence, block of channels), blocks fastest."""
    use_wide_vectors()
    length, width = k.shape[1], k.shape[2]
    blocks = -(-width // BLOCK)
    work = np.zeros((ROWS, BLOCK), np.float32)
    kept = np.empty((CHUNK + 1, 3, BLOCK), np.float32)  # the sums before each token of a chunk
    for item in range(first, last):
        b, begin = item // blocks, item % blocks * BLOCK
        size = min(BLOCK, width - begin)
        for i in range(size):
            work[W, i], work[U, i], work[DW, i], work[DU, i] = w[begin + i], u[begin + i], ZERO, ZERO
            work[G, i], work[H, i], work[P, i] = carry[0, b, begin + i], carry[1, b, begin + i], carry[2, b, begin + i]
        for chunk in range(entering.shape[2] - 1, -1, -1):
            start = chunk * CHUNK
            count = min(CHUNK, length - start)
            for row in range(3):
                for i in range(size):
                    kept[0, row, i] = entering[row, b, chunk, begin + i]
            for j in range(count):
                t = start + j
                k_t, v_t = k[b, t, begin : begin + size], v[b, t, begin : begin + size]
                _write(kept[j], kept[j + 1], work[W], k_t, v_t)
            for j in range(count - 1, -1, -1):
                t = start + j
                k_t, v_t, dy_t = (
                    k[b, t, begin : begin + size],
                    v[b, t, begin : begin + size],
                    dy[b, t, begin : begin + size],
                )
                for i in range(size):
                    work[K, i], work[V, i], work[DY, i] = k_t[i], v_t[i], dy_t[i]
                _token_back(work, kept[j], size)
                dk_t, dv_t = dk[b, t, begin : begin + size], dv[b, t, begin : begin + size]
                for i in range(size):
                    dk_t[i], dv_t[i] = work[DK, i], work[DV, i]
        for i in range(size):
            scale = exp(work[P, i] + entering[2, b, 0, begin + i])
            sums[0, b, begin + i], sums[1, b, begin + i] = work[DW, i], work[DU, i]
            sums[2, b, begin + i], sums[3, b, begin + i] = scale * work[G, i], scale * work[H, i]


@compiled
def _write(before: Array, after: Array, w: Array, k: Array, v: Array) -> None:
    """The sums after a token."""
    use_wide_vectors()
    for i in range(k.size):
        top = before[TOP, i] + w[i]
        largest = top if top > k[i] else k[i]
        decay, now = exp(top - largest), exp(k[i] - largest)
        after[NUM, i] = decay * before[NUM, i] + now * v[i]
        after[DEN, i] = decay * before[DEN, i] + now
        after[TOP, i] = largest


@compiled
def _token_back(work: Array, sums: Array, size: int) -> None:
    """Gradients of one token, and what the token before it is handed."""
    use_wide_vectors()
    for i in range(size):
        num, den, top, k, v = sums[NUM, i], sums[DEN, i], sums[TOP, i], work[K, i], work[V, i]
        g, h, p = work[G, i], work[H, i], work[P, i]
        now = work[U, i] + k
        largest = top if top > now else now
        before, now = exp(top - largest), exp(now - largest)
        total = before * den + now
        r, y = work[DY, i] / total, (before * num + now * v) / total
        bonus, written = now * r * (v - y), exp(k + p)
        work[DK, i] = bonus + written * (g * v + h)
        work[DV, i] = now * r + written * g
        work[DU, i] += bonus
        p += work[W, i]
        work[DW, i] += exp(p + top) * (g * num + h * den)
        scale = p if p > -largest else -largest
        passed, now = exp(p - scale), exp(-largest - scale)
        work[G, i] = passed * g + now * r
        work[H, i] = passed * h - now * r * y
        work[P, i] = scale
