"""Selective scan on a CPU: one block of channels at a time, its (N, block) states staying in the first-level cache."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from archspec.kernels.cpu.exponential import exp, sigmoid
from archspec.kernels.cpu.threads import array, compiled, memory, share, use_wide_vectors
from archspec.kernels.scans.selective_scan import Inputs
from archspec.kernels.thresholds import SCAN_CHUNK as CHUNK

Array = NDArray[np.float32]

LOCAL = 4096  # numbers of a block's states
ONE, ZERO = np.float32(1), np.float32(0)


def forward(given: Inputs, train: bool) -> tuple[Tensor, Tensor, Tensor]:
    """y, the last state, and for training the state entering each chunk (B, chunks, N, D)."""
    x, h = given.x, given.h
    batch, length, width = x.shape
    N = given.A.shape[1]
    y, last = torch.empty(x.shape), torch.empty(h.shape)
    entering = torch.empty((batch, -(-length // CHUNK), N, width) if train else (0,))
    kept = entering if train else torch.empty(0, 0, N, width)
    block = _block(N)
    share(
        _scan,
        batch * -(-width // block),
        block,
        *_arrays(given),
        given.D is not None,
        given.z is not None,
        train,
        *map(memory, (y, last, kept)),
    )
    return y.to(x.dtype), last, entering


def backward(dy: Tensor, dlast: Tensor, entering: Tensor, given: Inputs) -> list[Tensor]:
    """Gradients of x, dt, A, B, C, then of D and z where they are given, and of h.

    What is summed over channels is summed within a block first, and then over the blocks in their order, so that the
    result does not depend on the number of threads.
    """
    batch, length, width = given.x.shape
    N = given.A.shape[1]
    block = _block(N)
    blocks = -(-width // block)
    dx, ddt, dz = (torch.empty(given.x.shape) for _ in range(3))
    dA, dD, dh = torch.empty(batch, width, N), torch.empty(batch, width), torch.empty(given.h.shape)
    dB, dC = (torch.empty(blocks, batch, length, N) for _ in range(2))
    share(
        _scan_back,
        batch * blocks,
        block,
        *(array(tensor) for tensor in (dy, dlast, entering)),
        *_arrays(given)[:-1],
        given.z is not None,
        *map(memory, (dx, ddt, dz, dA, dD, dh, dB, dC)),
    )
    of_skip = [] if given.D is None else [dD.sum(0)]
    of_gate = [] if given.z is None else [dz]
    return [dx, ddt, dA.sum(0), dB.sum(0), dC.sum(0), *of_skip, *of_gate, dh]


def _block(N: int) -> int:
    """Channels of a block: whole vectors of 16."""
    return max(16, min(256, LOCAL // max(N, 1) // 16 * 16))


def _arrays(given: Inputs) -> list[Array]:
    """The inputs as arrays; what is absent is a zero for each channel, or x in place of z."""
    x, dt, A, B, C, D, z, h = given
    x = x.detach().float()
    skip = torch.zeros(x.shape[2]) if D is None else D
    return [array(tensor) for tensor in (x, dt, A, B, C, skip, x if z is None else z, h)]


@compiled
def _scan(
    first: int,
    last: int,
    block: int,
    x: Array,
    dt: Array,
    A: Array,
    B: Array,
    C: Array,
    D: Array,
    z: Array,
    initial: Array,
    skips: bool,
    gated: bool,
    train: bool,
    y: Array,
    final: Array,
    entering: Array,
) -> None:
    """Items are (sequence, block of channels), blocks fastest."""
    use_wide_vectors()
    length, width = x.shape[1], x.shape[2]
    N = A.shape[1]
    blocks = -(-width // block)
    h, rate = np.empty((N, block), np.float32), np.empty((N, block), np.float32)
    u, total = np.empty(block, np.float32), np.empty(block, np.float32)
    for item in range(first, last):
        b, start = item // blocks, item % blocks * block
        w = min(block, width - start)
        skip = D[start : start + w]
        for n in range(N):
            for i in range(w):
                h[n, i], rate[n, i] = initial[b, start + i, n], A[start + i, n]
        for t in range(length):
            if train and t % CHUNK == 0:
                for n in range(N):
                    kept = entering[b, t // CHUNK, n, start : start + w]
                    for i in range(w):
                        kept[i] = h[n, i]
            x_t, dt_t, z_t = x[b, t, start : start + w], dt[b, t, start : start + w], z[b, t, start : start + w]
            y_t = y[b, t, start : start + w]
            for i in range(w):
                u[i] = x_t[i] * dt_t[i]
                total[i] = skip[i] * x_t[i] if skips else ZERO
            for n in range(N):
                B_t, C_t = B[b, t, n], C[b, t, n]
                for i in range(w):
                    h[n, i] = exp(dt_t[i] * rate[n, i]) * h[n, i] + u[i] * B_t
                    total[i] += C_t * h[n, i]
            if gated:
                for i in range(w):
                    y_t[i] = total[i] * z_t[i] * sigmoid(z_t[i])
            else:
                for i in range(w):
                    y_t[i] = total[i]
        for n in range(N):
            for i in range(w):
                final[b, start + i, n] = h[n, i]


@compiled
def _scan_back(
    first: int,
    last: int,
    block: int,
    dy: Array,
    dlast: Array,
    entering: Array,
    x: Array,
    dt: Array,
    A: Array,
    B: Array,
    C: Array,
    D: Array,
    z: Array,
    gated: bool,
    dx: Array,
    ddt: Array,
    dz: Array,
    dA: Array,
    dD: Array,
    dinitial: Array,
    dB: Array,
    dC: Array,
) -> None:
    """Items are (sequence, block of channels), blocks fastest. dA, dD: one a sequence; dB, dC: one a block."""
    use_wide_vectors()
    length, width = x.shape[1], x.shape[2]
    N = A.shape[1]
    blocks = -(-width // block)
    rate, drate, carry = (
        np.empty((N, block), np.float32),
        np.empty((N, block), np.float32),
        np.empty((N, block), np.float32),
    )
    decay, states = np.empty((CHUNK, N, block), np.float32), np.empty((CHUNK + 1, N, block), np.float32)
    s, u = np.empty((CHUNK, block), np.float32), np.empty((CHUNK, block), np.float32)
    total, dinput = np.empty(block, np.float32), np.empty(block, np.float32)
    dstep, dskip = np.empty(block, np.float32), np.empty(block, np.float32)
    for item in range(first, last):
        b, part = item // blocks, item % blocks
        start = part * block
        w = min(block, width - start)
        skip = D[start : start + w]
        for i in range(w):
            dskip[i] = ZERO
            for n in range(N):
                rate[n, i], drate[n, i], carry[n, i] = A[start + i, n], ZERO, dlast[b, start + i, n]
        for chunk in range(entering.shape[1] - 1, -1, -1):
            begin = chunk * CHUNK
            for n in range(N):
                kept = entering[b, chunk, n, start : start + w]
                for i in range(w):
                    states[0, n, i] = kept[i]
            for j in range(min(CHUNK, length - begin)):
                t = begin + j
                x_t, dt_t, z_t = x[b, t, start : start + w], dt[b, t, start : start + w], z[b, t, start : start + w]
                dy_t, dz_t, s_t, u_t = dy[b, t, start : start + w], dz[b, t, start : start + w], s[j], u[j]
                for i in range(w):
                    u_t[i] = x_t[i] * dt_t[i]
                for i in range(w):
                    s_t[i] = dy_t[i] * z_t[i] * sigmoid(z_t[i]) if gated else dy_t[i]
                for i in range(w):
                    total[i] = skip[i] * x_t[i]
                    dskip[i] += s_t[i] * x_t[i]
                for n in range(N):
                    B_t, C_t, dC_t = B[b, t, n], C[b, t, n], ZERO
                    before, after, decay_t = states[j, n], states[j + 1, n], decay[j, n]
                    for i in range(w):
                        decay_t[i] = exp(dt_t[i] * rate[n, i])
                    for i in range(w):
                        after[i] = decay_t[i] * before[i] + u_t[i] * B_t
                        total[i] += C_t * after[i]
                    for i in range(w):
                        dC_t += s_t[i] * after[i]
                    dC[part, b, t, n] = dC_t
                if gated:
                    for i in range(w):
                        gate = sigmoid(z_t[i])
                        dz_t[i] = total[i] * dy_t[i] * gate * (ONE + z_t[i] * (ONE - gate))
            for j in range(min(CHUNK, length - begin) - 1, -1, -1):
                t = begin + j
                x_t, dt_t, s_t, u_t = x[b, t, start : start + w], dt[b, t, start : start + w], s[j], u[j]
                for i in range(w):
                    dinput[i], dstep[i] = ZERO, ZERO
                for n in range(N):
                    B_t, C_t, dB_t = B[b, t, n], C[b, t, n], ZERO
                    before, decay_t = states[j, n], decay[j, n]
                    for i in range(w):
                        grad = C_t * s_t[i] + carry[n, i]
                        dB_t += grad * u_t[i]
                        dinput[i] += grad * B_t
                        carry[n, i] = grad * decay_t[i]
                    for i in range(w):
                        drate[n, i] += carry[n, i] * before[i] * dt_t[i]
                    for i in range(w):
                        dstep[i] += carry[n, i] * before[i] * rate[n, i]
                    dB[part, b, t, n] = dB_t
                dx_t, ddt_t = dx[b, t, start : start + w], ddt[b, t, start : start + w]
                for i in range(w):
                    dx_t[i] = dinput[i] * dt_t[i] + skip[i] * s_t[i]
                for i in range(w):
                    ddt_t[i] = dinput[i] * x_t[i] + dstep[i]
        for i in range(w):
            dD[b, start + i] = dskip[i]
            for n in range(N):
                dA[b, start + i, n], dinitial[b, start + i, n] = drate[n, i], carry[n, i]
