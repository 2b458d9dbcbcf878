"""How the matrix memory cuts a sequence: chunks, segments of a few chunks, and the layouts of their tensors."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.precision import wide_type

SEGMENT = 1 << 19  # numbers of the largest intermediate tensor of a segment, which then stays in the cache


class Inputs(NamedTuple):
    """What goes into a matrix memory, and how: the shapes are those of `matrix_memory`."""

    q: Tensor
    k: Tensor
    v: Tensor
    decay: Tensor | None
    initial: Tensor | None  # (B, H, K, V)
    scale: float
    exclusive: bool  # the token itself is not read
    chunk: int


def is_vector(decay: Tensor | None) -> bool:
    """Whether each key channel has its decay: (H, K) or (B, T, H, K) rather than (H,) or (B, T, H)."""
    return decay is not None and decay.dim() in (2, 4)


def chunk_length(decay: Tensor | None, T: int, chunk: int) -> int:
    """Tokens a chunk: `chunk` or all there are; for a vector decay a power of two, at most `chunk`."""
    if is_vector(decay):
        return min(1 << (chunk.bit_length() - 1), 1 << (T - 1).bit_length())
    return min(chunk, T)


class Segments:
    """How a sequence is cut into segments of chunks, and the layouts of its tensors within one.

    The axes of a tensor in a segment are (chunks, B, group, token, width) for queries and keys, (chunks, B, token,
    group, head of the group, V) for values; for a vector decay every head is a group of its own. The last chunk is
    filled up with zeros, which write nothing.
    """

    def __init__(self, given: Inputs):
        q, k, v, decay, _, _, exclusive, chunk = given
        self.B, self.T, self.H, self.V = v.shape
        self.G, self.K = q.shape[2:]
        self.R = self.H // max(self.G, 1)
        self.wide = wide_type(q, k, v)
        self.device = q.device
        self.vector = is_vector(decay)
        self.exclusive = exclusive
        self.L = chunk_length(decay, self.T, chunk)
        self.chunks = -(-self.T // self.L)
        self.decay_shape = (self.B, self.T, self.H, *((self.K,) if self.vector else ()))
        self.constant = decay is not None and decay.dim() < 3
        self.decay = decay
        if self.constant:
            self.decay = decay.expand(1, self.T, *decay.shape)
        widest = self.K if self.vector else max(self.L, self.V)
        self.span = self.L * max(SEGMENT // max(self.B * self.H * self.L * widest, 1), 1)  # tokens of a segment

    def __iter__(self) -> Iterator[tuple[int, slice]]:
        """The number of the first chunk, and the tokens, of each segment."""
        for start in range(0, self.T, self.span):
            yield start // self.L, slice(start, min(start + self.span, self.T))

    def length(self, now: slice) -> int:
        """Chunks of a segment."""
        return -(-(now.stop - now.start) // self.L)

    def cut(self, x: Tensor, now: slice) -> Tensor:
        """(B, T, ...) -> (chunks, B, L, ...), in the type of the computation."""
        x = x[:, now].to(self.wide)
        missing = -x.shape[1] % self.L
        if missing:
            x = F.pad(x, (0, 0) * (x.dim() - 2) + (0, missing))
        return x.unflatten(1, (-1, self.L)).transpose(0, 1)

    def keys(self, x: Tensor, now: slice) -> Tensor:
        """(B, T, G, K) -> (chunks, B, groups, L, K)."""
        x = self.cut(x, now).transpose(2, 3)
        if self.vector and self.R > 1:
            x = x.unsqueeze(3).expand(-1, -1, -1, self.R, -1, -1).flatten(2, 3)
        return x

    def values(self, x: Tensor, now: slice) -> Tensor:
        """(B, T, H, V) -> (chunks, B, L, groups, heads of the group, V)."""
        return self.cut(x, now).unflatten(3, (-1, 1) if self.vector else (self.G, self.R))

    def decays(self, now: slice) -> Tensor | None:
        """Log decays (chunks, B, heads, L, K) or (chunks, B, groups, heads of the group, L).

        The first two axes are 1 where decays are constant.
        """
        if self.decay is None:
            return None
        if self.constant and (now.stop - now.start) % self.L == 0:
            now = slice(0, self.L)
        g = self.cut(self.decay, now)
        if self.vector:
            return g.transpose(2, 3)
        return g.transpose(2, 3).unflatten(2, (self.G, self.R)).contiguous()

    def first_state(self, state: Tensor | None) -> Tensor:
        """(B, H, K, V) or None -> (B, groups, K, heads of the group, V)."""
        R = 1 if self.vector else self.R
        shape = (self.B, self.H // max(R, 1), self.K, R, self.V)
        if state is None:
            return torch.zeros(shape, dtype=self.wide, device=self.device)
        return state.to(self.wide).unflatten(1, (-1, R)).transpose(2, 3)

    def as_given(self, state: Tensor) -> Tensor:
        """(B, groups, K, heads of the group, V) -> (B, H, K, V)."""
        return state.transpose(2, 3).flatten(1, 2)

    def place(self, out: Tensor, now: slice) -> Tensor | None:
        """out (B, T, H, V) at these tokens in the layout of values, or None where that takes a copy."""
        if out.dtype != self.wide or (now.stop - now.start) % self.L:
            return None
        return self.values(out, now)

    def store(self, out: Tensor, now: slice, x: Tensor) -> None:
        """Write (chunks, B, L, heads, width), however heads are grouped, to the tokens of out (B, T, heads, width)."""
        target = out[:, now]
        x = x.transpose(0, 1).reshape(self.B, -1, *out.shape[2:])
        target.copy_(x[:, : target.shape[1]])

    def store_keys(self, out: Tensor, now: slice, x: Tensor) -> None:
        """The same for gradients (chunks, B, groups, L, K) of queries and keys, summed over the heads of a group."""
        if self.vector and self.R > 1:
            x = x.unflatten(2, (self.G, self.R)).sum(3)
        self.store(out, now, x.transpose(2, 3))

    def store_decay(self, out: Tensor, now: slice, x: Tensor) -> None:
        """The same for gradients (chunks, B, groups, heads of the group, L, K or 1) of log decays."""
        x = x.flatten(2, 3).transpose(2, 3)  # (chunks, B, L, H, K or 1)
        self.store(out, now, x)


def rows_of(x: Tensor) -> Tensor:
    """(B, L, groups, heads of the group, V) -> one matrix a group: (B groups, L, heads V)."""
    return x.transpose(1, 2).reshape(-1, x.shape[1], x.shape[3] * x.shape[4])


def from_rows(x: Tensor, like: Tensor) -> Tensor:
    """(B groups, L, heads V) -> (B, L, groups, heads of the group, V)."""
    B, L, G, R, V = like.shape
    return x.view(B, G, L, R, V).transpose(1, 2)


def matrices(state: Tensor) -> Tensor:
    """(B, groups, K, heads of the group, V) -> one matrix a group: (B groups, K, heads V)."""
    return state.view(-1, state.shape[2], state.shape[3] * state.shape[4])


def flat_keys(x: Tensor) -> Tensor:
    """(chunks, B, groups, L, K) -> (chunks, B groups, L, K)."""
    return x.reshape(x.shape[0], -1, *x.shape[3:])


def plus(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """x + a b, in place: `baddbmm_`, which a FLOP counter does not see."""
    return torch.baddbmm(x, a, b, out=x)


def pass_on(old: Tensor, new: Tensor, whole: Tensor | None, k: Tensor, v: Tensor) -> None:
    """new = whole * old + k^T v, in place, for states; k (B groups, L, K), v (B groups, L, heads V)."""
    if whole is None:
        torch.baddbmm(matrices(old), k.mT, v, out=matrices(new))
    else:
        torch.mul(old, whole, out=new)
        plus(matrices(new), k.mT, v)


def decay_gradient(read: Tensor, write: Tensor, end: Tensor, exclusive: bool) -> Tensor:
    """Gradient of log decays (..., L).

    read, write (..., L) and end (...) are gradients of sums of log decays from the start of the chunk: up to each
    token, as far as the state is read there and as far as its key is written there (negated), and up to its end.
    """
    if exclusive:
        read = F.pad(read[..., 1:], (0, 1))
    total = read - write
    total[..., -1] += end
    return total.flip(-1).cumsum(-1).flip(-1)
