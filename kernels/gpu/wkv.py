"""WKV on a GPU: a program owns a block of channels of one sequence and walks through time, loading a token ahead.

The backward kernel walks through the chunks from the last to the first: it recomputes the sums before each token of a
chunk into scratch memory that stays in the second-level cache, then goes back over it.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from archspec.kernels.scans.wkv import CHUNK, Inputs

BLOCK = 32  # channels: a warp


def forward(given: Inputs, train: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """y, the last sums, and for training those entering each chunk (3, B, chunks, D)."""
    w, u, k, v, num, den, top = given
    batch, length, width = k.shape
    y = torch.empty_like(v, memory_format=torch.contiguous_format)
    sums = torch.stack((num, den, top))
    entering = num.new_empty((3, batch, triton.cdiv(length, CHUNK), width) if train else (0,))
    if k.numel():
        tensors = (*(x.contiguous() for x in (w, u, k, v)), sums, y, entering)
        _average[_grid(k)](*tensors, length, width, TRAIN=train, CHUNK=CHUNK, BLOCK=BLOCK, num_warps=1)
    return y, *(x.clone() for x in sums), entering


def backward(dy: Tensor, dnum: Tensor, dden: Tensor, last: Tensor, entering: Tensor, given: Inputs) -> list[Tensor]:
    """Gradients of w, u, k, v, num and den; `last` is the max after the last token."""
    w, u, k, v, num, _, top = given
    batch, length, width = k.shape
    dk, dv = (torch.empty(k.shape, dtype=num.dtype, device=k.device) for _ in range(2))
    carry = torch.stack((dnum, dden, -last))
    sums = num.new_empty(2, batch, width)  # gradients of w and u
    scratch = num.new_empty(batch, 3, CHUNK, width)
    if num.numel():
        tensors = (dy, carry, entering, w, u, k, v, scratch, dk, dv, sums)
        settings = {"CHUNK": CHUNK, "BLOCK": BLOCK, "num_warps": 1}
        chunks = triton.cdiv(length, CHUNK)
        _average_back[_grid(k)](*(x.contiguous() for x in tensors), length, width, chunks, **settings)
    scale = torch.exp(carry[2] + top)
    return [sums[0].sum(0), sums[1].sum(0), dk, dv, scale * carry[0], scale * carry[1]]


def _grid(k: Tensor) -> tuple[int]:
    """Sequences and blocks of channels in one axis, as the others end at 65535."""
    return (triton.cdiv(k.shape[2], BLOCK) * len(k),)


@triton.jit
def _write(num, den, top, w, k, v):
    """The sums after a token."""
    largest = tl.maximum(top + w, k)
    before, now = tl.exp(top + w - largest), tl.exp(k - largest)
    return before * num + now * v, before * den + now, largest


@triton.jit
def _average(
    w_ptr,  # (D,)
    u_ptr,  # (D,)
    k_ptr,  # (B, T, D)
    v_ptr,  # (B, T, D)
    sums_ptr,  # (3, B, D), first those before all tokens, at the end those after them
    y_ptr,  # (B, T, D)
    entering_ptr,  # (3, B, chunks, D)
    length,
    width,
    TRAIN: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program computes y of BLOCK channels of one sequence."""
    blocks = tl.cdiv(width, BLOCK)
    channel = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    inside = channel < width
    w = tl.load(w_ptr + channel, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(u_ptr + channel, mask=inside, other=0.0).to(tl.float32)
    edge, plane = batch * width + channel, (tl.num_programs(0) // blocks).to(tl.int64) * width
    num = tl.load(sums_ptr + edge, mask=inside, other=0.0)
    den = tl.load(sums_ptr + plane + edge, mask=inside, other=0.0)
    top = tl.load(sums_ptr + 2 * plane + edge, mask=inside, other=0.0)
    here = batch * length * width + channel
    chunks = tl.cdiv(length, CHUNK)
    k_next = tl.load(k_ptr + here, mask=inside, other=0.0)
    v_next = tl.load(v_ptr + here, mask=inside, other=0.0)
    for t in range(length):
        k, v = k_next.to(tl.float32), v_next.to(tl.float32)
        ahead = (tl.minimum(t + 1, length - 1) - t) * width  # 0 at the end, where what is loaded goes unused
        k_next = tl.load(k_ptr + here + ahead, mask=inside, other=0.0)
        v_next = tl.load(v_ptr + here + ahead, mask=inside, other=0.0)
        if TRAIN and t % CHUNK == 0:
            kept = (batch * chunks + t // CHUNK) * width + channel
            tl.store(entering_ptr + kept, num, mask=inside)
            tl.store(entering_ptr + plane * chunks + kept, den, mask=inside)
            tl.store(entering_ptr + 2 * plane * chunks + kept, top, mask=inside)
        largest = tl.maximum(top, u + k)
        before, now = tl.exp(top - largest), tl.exp(u + k - largest)
        tl.store(y_ptr + here, (before * num + now * v) / (before * den + now), mask=inside)
        num, den, top = _write(num, den, top, w, k, v)
        here += width
    tl.store(sums_ptr + edge, num, mask=inside)
    tl.store(sums_ptr + plane + edge, den, mask=inside)
    tl.store(sums_ptr + 2 * plane + edge, top, mask=inside)


@triton.jit
def _average_back(
    dy_ptr,  # (B, T, D)
    carry_ptr,  # (3, B, D), first of the last sums, at the end of the first sums
    entering_ptr,  # (3, B, chunks, D)
    w_ptr,  # (D,)
    u_ptr,  # (D,)
    k_ptr,  # (B, T, D)
    v_ptr,  # (B, T, D)
    scratch_ptr,  # (B, 3, CHUNK, D)
    dk_ptr,  # (B, T, D)
    dv_ptr,  # (B, T, D)
    sums_ptr,  # (2, B, D): gradients of w and u
    length,
    width,
    chunks,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program computes the gradients of BLOCK channels of one sequence, last chunk first."""
    blocks = tl.cdiv(width, BLOCK)
    channel = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    inside = channel < width
    w = tl.load(w_ptr + channel, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(u_ptr + channel, mask=inside, other=0.0).to(tl.float32)
    edge, plane = batch * width + channel, (tl.num_programs(0) // blocks).to(tl.int64) * width
    G = tl.load(carry_ptr + edge, mask=inside, other=0.0)
    H = tl.load(carry_ptr + plane + edge, mask=inside, other=0.0)
    p = tl.load(carry_ptr + 2 * plane + edge, mask=inside, other=0.0)
    dw = tl.zeros((BLOCK,), tl.float32)
    du = tl.zeros((BLOCK,), tl.float32)
    scratch_ptr += batch * 3 * CHUNK * width + channel
    for back in range(chunks):
        chunk = chunks - 1 - back
        first = chunk * CHUNK
        end = tl.minimum(first + CHUNK, length)
        kept = (batch * chunks + chunk) * width + channel
        num = tl.load(entering_ptr + kept, mask=inside, other=0.0)
        den = tl.load(entering_ptr + plane * chunks + kept, mask=inside, other=0.0)
        top = tl.load(entering_ptr + 2 * plane * chunks + kept, mask=inside, other=0.0)
        for t in range(first, end):
            here = (batch * length + t) * width + channel
            k = tl.load(k_ptr + here, mask=inside, other=0.0).to(tl.float32)
            v = tl.load(v_ptr + here, mask=inside, other=0.0).to(tl.float32)
            place = scratch_ptr + (t - first) * width
            tl.store(place, num, mask=inside)
            tl.store(place + CHUNK * width, den, mask=inside)
            tl.store(place + 2 * CHUNK * width, top, mask=inside)
            num, den, top = _write(num, den, top, w, k, v)
        tl.debug_barrier()
        for reverse in range(end - first):
            t = end - 1 - reverse
            here = (batch * length + t) * width + channel
            k = tl.load(k_ptr + here, mask=inside, other=0.0).to(tl.float32)
            v = tl.load(v_ptr + here, mask=inside, other=0.0).to(tl.float32)
            dy = tl.load(dy_ptr + here, mask=inside, other=0.0).to(tl.float32)
            place = scratch_ptr + (t - first) * width
            num = tl.load(place, mask=inside, other=0.0)
            den = tl.load(place + CHUNK * width, mask=inside, other=0.0)
            top = tl.load(place + 2 * CHUNK * width, mask=inside, other=0.0)
            largest = tl.maximum(top, u + k)
            before, now = tl.exp(top - largest), tl.exp(u + k - largest)
            total = before * den + now
            r, y = dy / total, (before * num + now * v) / total
            bonus, written = now * r * (v - y), tl.exp(k + p)
            tl.store(dk_ptr + here, bonus + written * (G * v + H), mask=inside)
            tl.store(dv_ptr + here, now * r + written * G, mask=inside)
            du += bonus
            dw += tl.exp(w + p + top) * (G * num + H * den)
            scale = tl.maximum(p + w, -largest)
            passed, now = tl.exp(p + w - scale), tl.exp(-largest - scale)
            G, H, p = passed * G + now * r, passed * H - now * r * y, scale
        tl.debug_barrier()
    tl.store(sums_ptr + edge, dw, mask=inside)
    tl.store(sums_ptr + plane + edge, du, mask=inside)
    tl.store(carry_ptr + edge, G, mask=inside)
    tl.store(carry_ptr + plane + edge, H, mask=inside)
    tl.store(carry_ptr + 2 * plane + edge, p, mask=inside)
