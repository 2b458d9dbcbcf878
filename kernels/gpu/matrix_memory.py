"""Triton kernels of the matrix memory; the functions of `archspec.kernels.memory.chunked` on a GPU.

Three kernels, each for the forward and the backward pass. The states that enter the chunks (and, backwards, their
gradients) are computed chunk after chunk, in parallel over sequences, heads and blocks of the state. Outputs (and the
gradients of values) are computed in parallel over chunks from those states; so are the gradients of queries, keys and
decays. Products take operands of the type of the values and add up in float32; where values are float16, products with
states are in tf32, because a state may be larger than float16 holds.

Log decays come in as sums over the tokens of a chunk up to each, made by `_sums`. For one decay a head the sums are
split into multiples of 1 / 256, whose differences are exact, and the small rest. For a decay a channel the products of
queries and keys are taken for blocks of 2, 4, ... tokens: those of the later half of a block with those of its earlier
half, decayed to and from the cut between the halves, so that no exponent is positive.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from archspec.kernels.gpu.matrix_memory_kernels import _keys_kernel, _outputs_kernel, _states_kernel
from archspec.kernels.gpu.matrix_memory_tiles import NONE, SCALAR, VECTOR
from archspec.kernels.memory.chunked import kept_type
from archspec.kernels.memory.segments import Inputs, chunk_length, is_vector

TINIEST = -104.0  # the exponential of which is zero in float32
TYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


class Launch:
    """Tensors and settings that the kernels of one call share."""

    def __init__(self, given: Inputs):
        q, k, v, decay, _, _, exclusive, chunk = given
        self.q, self.k, self.v = q.contiguous(), k.contiguous(), v.contiguous()
        self.B, self.T, self.H, self.V = v.shape
        self.G, self.K = q.shape[2:]
        self.L = chunk_length(decay, self.T, chunk)
        self.chunks = -(-self.T // self.L)
        self.vector = is_vector(decay)
        self.RS = 1 if self.vector else self.H // self.G
        self.state_shape = (self.chunks, self.B, self.H // self.RS, self.K, self.RS, self.V)
        self.kept = kept_type(q, k, v)
        self.tile = max(16, triton.next_power_of_2(self.L))
        self.sums, self.fine, strides = _sums(self.v, decay, self.L, self.chunks)
        self.settings = dict(zip(("sums_batch", "sums_chunk", "sums_row", "sums_head"), strides, strict=True))
        self.settings |= {"RS": self.RS, "TILE": self.tile, "EXCLUSIVE": int(exclusive)}
        self.settings |= {"DECAY": (NONE if decay is None else VECTOR if self.vector else SCALAR).value}
        self.settings |= {"TYPE": TYPES[v.dtype], "PRECISION": "ieee" if v.dtype == torch.float32 else "tf32"}
        self.state_type = tl.bfloat16 if v.dtype == torch.bfloat16 else tl.float32
        self.levels = (self.L - 1).bit_length()

    def blocks(self, keys: int, values: int) -> tuple[int, int]:
        """Columns of keys and values at once: at most these, at least 16."""
        return tuple(min(most, max(16, triton.next_power_of_2(n))) for n, most in ((self.K, keys), (self.V, values)))

    def states(self, x: Tensor, v: Tensor, first: Tensor | None, scale: float, back: bool) -> tuple[Tensor, Tensor]:
        """The state at each chunk, in its type for products, and the last (B, H, K, V)."""
        states = torch.empty(self.state_shape, dtype=self.kept, device=v.device)
        last = torch.empty((self.B, self.H, self.K, self.V), dtype=torch.float32, device=v.device)
        BK, BV = self.blocks(64, 64 if self.v.dtype != torch.float32 else 32)
        grid = (triton.cdiv(self.K, BK) * triton.cdiv(self.V, BV) * self.B * self.H,)
        first = None if first is None else first.contiguous()
        _states_kernel[grid](
            x, v, self.sums, self.fine, v if first is None else first, states, last, scale,
            self.B, self.T, self.G, self.H, self.K, self.V, self.L, self.chunks,
            BLOCK_K=BK, BLOCK_V=BV, BACK=back, HAS_FIRST=first is not None, **self.settings, num_warps=4, num_stages=2,
        )  # fmt: skip
        return states, last

    def outputs(self, v: Tensor, states: Tensor, scale: float, back: bool) -> Tensor:
        """Outputs, or backwards the gradients of values."""
        y = torch.empty(self.v.shape, dtype=self.v.dtype, device=v.device)
        BK, BV = self.blocks(32 if self.vector or self.v.dtype == torch.float32 else 64, 64)
        grid = (self.chunks * triton.cdiv(self.V, BV) * self.B * self.H,)
        _outputs_kernel[grid](
            self.q, self.k, v, states, self.sums, self.fine, y, scale,
            self.B, self.T, self.G, self.H, self.K, self.V, self.L,
            LEVELS=self.levels, BLOCK_K=BK, BLOCK_V=BV, BACK=back, STATE_TYPE=self.state_type, **self.settings,
            num_warps=8 if self.vector or self.v.dtype == torch.float32 else 4, num_stages=2,
        )  # fmt: skip
        return y

    def keys(
        self, dy: Tensor, states: Tensor, dstates: Tensor, scale: float, learned: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of queries, of keys, and of log decays (B, T, H) or (B, T, H, K)."""
        shared = self.H // self.G
        part = min(shared, 8)  # heads that one program adds up: few enough to keep a GPU busy
        parts = triton.cdiv(shared, part)
        BK, BV = self.blocks(32 if self.vector or self.v.dtype == torch.float32 else 64, 32)
        blocks = triton.cdiv(self.K, BK)
        dq, dk = (torch.empty((parts, *self.q.shape), dtype=torch.float32, device=dy.device) for _ in range(2))
        dg_shape = (self.B, self.T, self.H, self.K) if self.vector else (blocks, self.B, self.T, self.H)
        dg = torch.empty(dg_shape if learned else 0, dtype=torch.float32, device=dy.device)
        _keys_kernel[(self.chunks * blocks * self.B * self.G * parts,)](
            self.q, self.k, self.v, dy, states, dstates, self.sums, self.fine, dq, dk, dg, scale,
            self.B, self.T, self.G, self.H, self.K, self.V, self.L,
            parts=parts, PART=part, LEVELS=self.levels, BLOCK_K=BK, BLOCK_V=BV, LEARNED=learned,
            STATE_TYPE=self.state_type, **self.settings, num_warps=8, num_stages=1,
        )  # fmt: skip
        dq, dk = (x[0] if parts == 1 else x.sum(0) for x in (dq, dk))
        return dq, dk, dg if self.vector or not learned else dg.sum(0)


def _sums(v: Tensor, decay: Tensor | None, L: int, chunks: int) -> tuple[Tensor, Tensor, tuple[int, int, int, int]]:
    """Log decays summed up within chunks, the rest of the sums, and their strides for batch, chunk, row and head."""
    if decay is None:
        return v, v, (0, 0, 0, 0)
    g = decay.float().clamp(min=TINIEST)
    constant = decay.dim() < 3
    if constant:
        g = g.expand(1, L, *g.shape)
    else:
        g = torch.nn.functional.pad(g, (0, 0) * (g.dim() - 2) + (0, chunks * L - g.shape[1]))
    g = g.unflatten(1, (-1, L))  # (B, chunks, L, H, ...)
    if is_vector(decay):
        sums = fine = g.cumsum(2).contiguous()
    else:
        coarse = (g * 256.0).round() / 256.0
        sums, fine = coarse.cumsum(2).contiguous(), (g - coarse).cumsum(2).contiguous()
    batch, part, row, head = sums.stride()[:4]
    return sums, fine, (0, 0, row, head) if constant else (batch, part, row, head)


def forward(given: Inputs, train: bool) -> tuple[Tensor, Tensor, Tensor]:
    """y (B, T, H, V), the last state (B, H, K, V), and for training the state that enters each chunk."""
    run = Launch(given)
    states, last = run.states(run.k, run.v, given.initial, 1.0, back=False)
    y = run.outputs(run.v, states, given.scale, back=False)
    return y, last, states if train else states.new_empty((0, *states.shape[1:]))


def backward(grads: list[Tensor | None], entering: Tensor, given: Inputs, learned: bool) -> list[Tensor]:
    """Gradients of q, k, v and, where they are given, of the decay and the initial state."""
    run, decay, scale = Launch(given), given.decay, given.scale
    dy = torch.zeros_like(run.v) if grads[0] is None else grads[0].contiguous()
    dstates, dinitial = run.states(run.q, dy, grads[1], scale, back=True)
    dv = run.outputs(dy, dstates, scale, back=True)
    dq, dk, dg = run.keys(dy, entering, dstates, scale, learned)
    result = [dq, dk, dv]
    if decay is not None:
        result.append(_as_decay(dg, decay) if learned else torch.zeros_like(decay))
    return result if given.initial is None else [*result, dinitial]


def _as_decay(dg: Tensor, decay: Tensor) -> Tensor:
    """The gradient of log decays in their shape; none passes where a decay is zero."""
    return (dg.sum((0, 1)) if decay.dim() < 3 else dg).masked_fill(decay == -torch.inf, 0.0)
