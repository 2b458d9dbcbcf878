"""Triton kernels of `memory.dplr`, where the equations are: the passes over the states, and all launches.

The forward pass runs here alone: products within chunks and decays (one program a chunk, or a tile of 16 tokens where
each channel decays by itself), the inverse of the triangular systems, then one pass over the chunks for each head and
block of value channels, which carries the state in registers and writes the outputs. Of the backward pass only that
over the chunks in reverse is a kernel; the products within chunks are batched products of PyTorch in float32. Nothing
here has been measured on a GPU.

Layouts: chunk m = (chunk * B + batch) * H + head, M of them, J = B H of them at one time; J also counts as (batch,
head) of the states. Decays are exponentials of sums of g alone, or of differences within one token block, never
above zero.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from archspec.kernels.gpu.dplr_chunks import _inverse_kernel, _within_channels_kernel, _within_kernel
from archspec.kernels.memory.dplr_chunks import Inputs


@triton.jit
def _forward_kernel(
    near_ptr,  # (2, M, C, K)
    far_ptr,  # (M, m C, K)
    inverse_ptr,  # (M, C, C)
    early_ptr,  # (M, C, C)
    late_ptr,  # (M, C, m C)
    total_ptr,  # (M, K) float32
    v_ptr,  # (B, T, H, V)
    beta_ptr,  # (B, T, H)
    initial_ptr,  # (J, K, V) float32, as last_ptr
    y_ptr,  # (B, T, H, V)
    last_ptr,
    entering_ptr,  # (chunks, J, K, V) float32
    T,
    B,
    H,
    K,
    V,
    M,
    chunks,
    C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
    HAS_K: tl.constexpr,
    KEEP: tl.constexpr,
):
    """One head and one block of value channels through all chunks, with the state (BLOCK_K, BLOCK_V) in registers."""
    kind: tl.constexpr = near_ptr.dtype.element_ty
    writes: tl.constexpr = 2 if HAS_K else 1
    j = tl.program_id(0).to(tl.int64)
    head, batch = j % H, j // H
    row = tl.arange(0, C)
    key = tl.arange(0, BLOCK_K)
    value = tl.program_id(1) * BLOCK_V + tl.arange(0, BLOCK_V)
    memory = key[:, None] * V + value[None, :]
    exists = (key < K)[:, None] & (value < V)[None, :]
    own = row[:, None] * K + key[None, :]
    inside = (row < C)[:, None] & (key < K)[None, :]
    square = row[:, None] * C + row[None, :]
    wide = row[:, None] * (writes * C) + row[None, :]
    S = tl.load(initial_ptr + j * K * V + memory, mask=exists, other=0.0)
    for chunk in range(chunks):
        m = chunk * (B * H) + j
        if KEEP:
            tl.store(entering_ptr + m * K * V + memory, S, mask=exists)
        t = chunk * C + row
        there = (t < T)[:, None] & (value < V)[None, :]
        token = batch * T + t
        place = (token * H + head)[:, None] * V + value[None, :]
        v = tl.load(v_ptr + place, mask=there, other=0.0)
        S_low = S.to(kind)
        a = tl.load(near_ptr + m * C * K + own, mask=inside, other=0.0)
        q = tl.load(near_ptr + (M + m) * C * K + own, mask=inside, other=0.0)
        read = tl.dot(a, S_low, input_precision="ieee")
        if HAS_K:
            early = tl.load(early_ptr + m * C * C + square)
            z = -tl.dot(early, v.to(kind), input_precision="ieee") - read
        else:
            beta = tl.load(beta_ptr + token * H + head, mask=t < T, other=0.0).to(tl.float32)
            z = v.to(tl.float32) * beta[:, None] - read
        u = tl.dot(tl.load(inverse_ptr + m * C * C + square), z.to(kind), input_precision="ieee").to(kind)
        late = tl.load(late_ptr + m * writes * C * C + wide)
        y = tl.dot(q, S_low, input_precision="ieee") + tl.dot(late, u, input_precision="ieee")
        b = tl.load(far_ptr + m * writes * C * K + own, mask=inside, other=0.0)
        total = tl.load(total_ptr + m * K + key, mask=key < K, other=0.0)
        S = S * total[:, None] + tl.dot(tl.trans(b), u, input_precision="ieee")
        if HAS_K:
            late = tl.load(late_ptr + m * writes * C * C + wide + C)
            y += tl.dot(late, v.to(kind), input_precision="ieee")
            k = tl.load(far_ptr + (m * writes + 1) * C * K + own, mask=inside, other=0.0)
            S += tl.dot(tl.trans(k), v.to(kind), input_precision="ieee")
        tl.store(y_ptr + place, y.to(y_ptr.dtype.element_ty), mask=there)
    tl.store(last_ptr + j * K * V + memory, S, mask=exists)


@triton.jit
def _backward_kernel(
    near_ptr,  # (2, M, C, K) float32, as everything here
    far_ptr,  # (M, m C, K)
    inverse_ptr,  # (M, C, C)
    total_ptr,  # (M, K)
    loss_ptr,  # (2, M, C, V): the first is written, the gradient of -z; the second is that of y
    dwritten_ptr,  # (M, m C, V): completed
    carry_ptr,  # (J, K, V) gradient of the state after the last chunk
    leaving_ptr,  # (M, K, V) gradients of the states after each chunk, written
    first_ptr,  # (J, K, V) gradient of the state before the first chunk, written
    J,
    K,
    V,
    M,
    chunks,
    C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
    HAS_K: tl.constexpr,
):
    """The gradient of the state of one head and block of value channels, from the last chunk to the first."""
    writes: tl.constexpr = 2 if HAS_K else 1
    j = tl.program_id(0).to(tl.int64)
    row = tl.arange(0, C)
    key = tl.arange(0, BLOCK_K)
    value = tl.program_id(1) * BLOCK_V + tl.arange(0, BLOCK_V)
    memory = key[:, None] * V + value[None, :]
    exists = (key < K)[:, None] & (value < V)[None, :]
    own = row[:, None] * K + key[None, :]
    inside = (row < C)[:, None] & (key < K)[None, :]
    outer = row[:, None] * V + value[None, :]
    there = (row < C)[:, None] & (value < V)[None, :]
    square = row[:, None] * C + row[None, :]
    carry = tl.load(carry_ptr + j * K * V + memory, mask=exists, other=0.0)
    for back in range(chunks):
        m = (chunks - 1 - back) * J + j
        tl.store(leaving_ptr + m * K * V + memory, carry, mask=exists)
        du_ptr = dwritten_ptr + m * writes * C * V + outer
        b = tl.load(far_ptr + m * writes * C * K + own, mask=inside, other=0.0)
        du = tl.load(du_ptr, mask=there, other=0.0) + tl.dot(b, carry, input_precision="ieee")
        tl.store(du_ptr, du, mask=there)
        if HAS_K:
            k = tl.load(far_ptr + (m * writes + 1) * C * K + own, mask=inside, other=0.0)
            dv = tl.load(du_ptr + C * V, mask=there, other=0.0) + tl.dot(k, carry, input_precision="ieee")
            tl.store(du_ptr + C * V, dv, mask=there)
        inverse = tl.load(inverse_ptr + m * C * C + square)
        dz = -tl.dot(tl.trans(inverse), du, input_precision="ieee")
        tl.store(loss_ptr + m * C * V + outer, dz, mask=there)
        dy = tl.load(loss_ptr + (M + m) * C * V + outer, mask=there, other=0.0)
        a = tl.load(near_ptr + m * C * K + own, mask=inside, other=0.0)
        q = tl.load(near_ptr + (M + m) * C * K + own, mask=inside, other=0.0)
        total = tl.load(total_ptr + m * K + key, mask=key < K, other=0.0)
        carry = carry * total[:, None] + tl.dot(tl.trans(a), dz, input_precision="ieee")
        carry += tl.dot(tl.trans(q), dy, input_precision="ieee")
    tl.store(first_ptr + j * K * V + memory, carry, mask=exists)


def _power(n: int) -> int:
    """The power of two that holds n, at least 16 as a matrix product needs."""
    return max(16, triton.next_power_of_2(n))


def _value_block(K: int, V: int) -> int:
    """Value channels that one program carries: fewer where keys are wide, for the state to stay in registers."""
    return min(_power(V), 64 if K <= 64 else 32 if K <= 128 else 16)


def forward(given: Inputs, initial: Tensor, scale: float, C: int, train: bool) -> tuple[Tensor, Tensor, Tensor]:
    """As `_forward` of `memory.dplr`, in chunks of C tokens: y, the last state, the states entering each chunk."""
    q, a, b, v, k, beta, decay = (x if x is None else x.contiguous() for x in given)
    B, T, H, V = v.shape
    G, K = q.shape[2:]
    J, chunks = B * H, -(-T // C)
    M, m = J * chunks, 1 if k is None else 2
    y, last = torch.empty_like(v), torch.empty_like(initial)
    entering = initial.new_empty(chunks if train else 0, J, K, V)
    if M == 0:
        return y, initial.clone(), entering
    near, far = v.new_empty(2, M, C, K), v.new_empty(M, m * C, K)
    system, inverse = v.new_empty(M, C, C, dtype=torch.float32), v.new_empty(M, C, C)
    early, late = v.new_empty(M, C, C) if m == 2 else inverse, v.new_empty(M, C, m * C)
    total = v.new_empty(M, K, dtype=torch.float32)
    none = v  # a pointer that is not read
    sizes = T, B, H, G, K, M, scale, C, _power(K)
    if decay is not None and decay.dim() == 4:
        _within_channels_kernel[(M, C // 16)](
            q, a, b, none if k is None else k, none if beta is None else beta, decay, near, far, system, early, late,
            total, *sizes, HAS_K=m == 2, num_warps=4,
        )  # fmt: skip
    else:
        assert beta is not None, "one decay a head goes with the delta rule"
        _within_kernel[(M,)](
            q, a, b, beta, none if decay is None else decay, near, far, system, late, total, *sizes,
            HAS_DECAY=decay is not None, num_warps=4,
        )  # fmt: skip
    half = min(C, 32)
    precision = "ieee" if v.dtype == torch.float32 else "tf32x3"
    _inverse_kernel[(M,)](system, inverse, C, half, precision, num_warps=2)
    block = _value_block(K, V)
    _forward_kernel[(J, triton.cdiv(V, block))](
        near, far, inverse, early, late, total, v, none if beta is None else beta, initial.contiguous(), y, last,
        entering, T, B, H, K, V, M, chunks, C, _power(K), block, HAS_K=m == 2, KEEP=train, num_warps=4, num_stages=1,
    )  # fmt: skip
    return y, last, entering


def backward_pass(
    near: Tensor, far: Tensor, inverse: Tensor, total: Tensor | None, loss: Tensor, dwritten: Tensor, carry: Tensor
) -> tuple[Tensor, Tensor]:
    """As `_backward_pass` of `memory.dplr_chunks`, whose `Terms` hold the first four arguments."""
    _, M, C, K = near.shape
    J, _, V = carry.shape
    total = near.new_ones(M, K) if total is None else total.squeeze(-1).expand(M, K).contiguous()
    leaving, first = carry.new_empty(M, K, V), torch.empty_like(carry)
    if M == 0:
        return leaving, carry.clone()
    block = _value_block(K, V)
    _backward_kernel[(J, triton.cdiv(V, block))](
        near, far, inverse.contiguous(), total, loss, dwritten, carry.contiguous(), leaving, first, J, K, V, M,
        M // J, C, _power(K), block, HAS_K=far.shape[1] == 2 * C, num_warps=4, num_stages=1,
    )  # fmt: skip
    return leaving, first
