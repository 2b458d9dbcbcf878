"""WKV, the time mixing of RWKV-4: a moving average of values weighted by exponentials of keys (Peng et al. 2023).

    y[t] = (sum_{s<t} exp(k[s] + (t-1-s) w) v[s] + exp(u + k[t]) v[t]) / (the same sum without v)

Shapes: k, v (B, T, D); w (D,) the log of the decay, at most 0; u (D,) the bonus of the current token -> y (B, T, D).
The two sums are kept as num e^max and den e^max with max the largest exponent so far, so that keys of any size neither
overflow nor vanish; the state holds the three (B, D) tensors, and starts at 0, 0 and -1e38.

The backward pass recomputes the sums of one chunk of CHUNK tokens at a time, last chunk first, from those that entered
it, which training keeps. With r[t] = dy[t] / denominator[t], the gradients of the two sums after token t are

    G[t] = r[t+1] + e^w G[t+1],    H[t] = -r[t+1] y[t+1] + e^w H[t+1]

and they, too, are kept as a factor times e^p with p the largest exponent: every exponential is of a number up to 0.
The state's max is a mere scale: num and den carry all of the gradient between pieces of a sequence.

Computed in float32, or float64 for float64 inputs, by Triton on a GPU (not measured on one), by loops that Numba
compiles on a CPU, and by the PyTorch below otherwise: it does step i of every block of CHUNK tokens at once.
Measured on one core with AVX-512, D 512, T 1024: 1.4 ms forward, 9 ms with the gradients; PyTorch 25 and 81 ms.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.backend import cpu, gpu
from archspec.kernels.contract import require
from archspec.kernels.library import operator
from archspec.kernels.plain.wkv import past_padding
from archspec.kernels.precision import wide_type
from archspec.kernels.state import State, recall
from archspec.kernels.thresholds import WKV_CHUNK

CHUNK = WKV_CHUNK  # tokens
START = -1e38  # of max: finite, so that no difference is NaN
FLOOR = -1e30  # of the log of the decay, where it is multiplied by a number of tokens; its exponential is zero
EXAMPLES: tuple[dict[str, int], ...] = (
    {"B": 2, "T": 63},
    {"T": 1, "D": 5},
    {"T": 100, "D": 33},
    {"B": 1, "T": 257, "D": 3},
    {"B": 0, "T": 5},
)


def example(B: int = 2, T: int = 63, D: int = 7) -> dict[str, Tensor]:
    """Arguments of `wkv` for tests and measurements."""
    w, u = -torch.randn(D, dtype=torch.float64).exp(), torch.randn(D, dtype=torch.float64)
    return {
        "w": w,
        "u": u,
        "k": torch.randn(B, T, D, dtype=torch.float64),
        "v": torch.randn(B, T, D, dtype=torch.float64),
    }


def reference(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, num: Tensor | None = None, den: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The sums in float64 as they stand, token by token, for keys of moderate size; returns y and the last sums."""
    w, u, k, v = w.double(), u.double(), k.double(), v.double()
    num = torch.zeros_like(k[:, 0]) if num is None else num.double()
    den = torch.zeros_like(k[:, 0]) if den is None else den.double()
    outputs = []
    for t in range(k.shape[1]):
        now = torch.exp(u + k[:, t])
        outputs.append((num + now * v[:, t]) / (den + now))
        num = torch.exp(w) * num + torch.exp(k[:, t]) * v[:, t]
        den = torch.exp(w) * den + torch.exp(k[:, t])
    return torch.stack(outputs, dim=1), num, den


def wkv(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: State | None = None, mask: Tensor | None = None) -> Tensor:
    """y of the equation above, (B, T, D) in the type of v; the state is kept under "num", "den" and "max".

    mask (B, T) is True for real tokens, before which padding stands: it enters no sum, and no sum decays at it.

    Raises ValueError for shapes that do not fit together.
    """
    kept = (recall(state, "num"), recall(state, "den"), recall(state, "max"))
    sizes = require(
        "wkv",
        w=(w, "D"),
        u=(u, "D"),
        k=(k, "B T D"),
        v=(v, "B T D"),
        num=(kept[0], "B D"),
        den=(kept[1], "B D"),
        max=(kept[2], "B D"),
    )
    wide, like = wide_type(v), v.dtype
    empty = v.new_zeros(sizes["B"], sizes["D"], dtype=wide)
    nothing = (empty, empty.clone(), empty + START)
    num, den, top = nothing if kept[0] is None else (x.to(wide) for x in kept if x is not None)
    if mask is not None:
        k, v = past_padding(k.to(wide), v.to(wide), num, den, top, mask)  # (B, T + 1, D)
        num, den, top = nothing
    tensors = (w, u, k, v, num, den, top)
    if state is not None and k.shape[1] == 1:
        w, u, k_t, v_t = (x.to(wide) for x in (w, u, k[:, 0], v[:, 0]))
        y = _read([num, den, top], u + k_t, v_t).to(v.dtype).unsqueeze(1)
        state["num"], state["den"], state["max"] = _write((num, den, top.detach()), w, k_t, v_t, 1.0)
        return y
    train = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
    y, num, den, top, _ = average(*tensors, train)
    if state is not None:
        state["num"], state["den"], state["max"] = num, den, top.detach()
    return y if mask is None else y[:, 1:].to(like)


class Inputs(NamedTuple):
    """What goes into an average, in the shapes of the equation above; num, den, top (B, D): the sums before it."""

    w: Tensor
    u: Tensor
    k: Tensor
    v: Tensor
    num: Tensor
    den: Tensor
    top: Tensor  # both sums are divided by its exponential


def _read(sums: list[Tensor], now: Tensor, v: Tensor) -> Tensor:
    """The average with the current token of exponent `now`."""
    num, den, top = sums
    largest = torch.maximum(top, now).detach()
    before, now = torch.exp(top - largest), torch.exp(now - largest)
    return (before * num + now * v) / (before * den + now)


def _write(
    sums: tuple[Tensor, Tensor, Tensor], w: Tensor, k: Tensor, v: Tensor, one: Tensor | float
) -> tuple[Tensor, Tensor, Tensor]:
    """The sums (of v, of one, their exponent) after a token of exponent k."""
    num, den, top = sums
    largest = torch.maximum(top + w, k).detach()
    before, now = torch.exp(top + w - largest), torch.exp(k - largest)
    return before * num + now * v, before * den + now * one, largest


def _merge(earlier: list[Tensor], later: list[Tensor]) -> list[Tensor]:
    """The sum of two triples (first, second, exponent) that stand for first e^exponent and second e^exponent."""
    (a, b, p), (c, d, q) = earlier, later
    largest = torch.maximum(p, q)
    p, q = torch.exp(p - largest), torch.exp(q - largest)
    return [p * a + q * c, p * b + q * d, largest]


def _blocks(x: Tensor, value: float) -> Tensor:
    """(B, T, D) as (CHUNK, B, chunks, D), its end filled with `value`."""
    x = F.pad(x, (0, 0, 0, -x.shape[1] % CHUNK), value=value)
    return x.unflatten(1, (-1, CHUNK)).permute(2, 0, 1, 3).contiguous()


def _tokens(x: Tensor, length: int) -> Tensor:
    """`_blocks` undone."""
    return x.permute(1, 2, 0, 3).flatten(1, 2)[:, :length]


def _sums(
    w: Tensor, k: Tensor, v: Tensor, one: Tensor, start: tuple[Tensor, Tensor, Tensor]
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """The sums before each token (three of (B, T, D)), after the last, and those entering each chunk.

    One call does step i of all chunks, each from nothing; then the sums of whole chunks are carried along.
    """
    length = k.shape[1]
    w = w.clamp(min=FLOOR)
    keys, values, ones = _blocks(k, START), _blocks(v, 0.0), _blocks(one, 0.0)
    inside = keys.new_empty(3, CHUNK + 1, *keys.shape[1:])
    inside[:, 0] = 0
    inside[2, 0] = START
    for i in range(CHUNK):
        after = _write((inside[0, i], inside[1, i], inside[2, i]), w, keys[i], values[i], ones[i])
        for place, x in zip(inside[:, i + 1], after, strict=True):
            place.copy_(x)
    entering = k.new_empty(3, *keys.shape[1:])
    now = list(start)
    for c in range(keys.shape[2]):
        for place, x in zip(entering[:, :, c], now, strict=True):
            place.copy_(x)
        count = min(CHUNK, length - c * CHUNK)
        now = _merge([now[0], now[1], now[2] + count * w], list(inside[:, count, :, c]))
    steps = torch.arange(CHUNK, dtype=k.dtype, device=k.device).view(-1, 1, 1, 1)
    carried = [entering[0], entering[1], entering[2] + steps * w]
    return [_tokens(x, length) for x in _merge(carried, list(inside[:, :-1]))], now, entering


def vectorised_forward(given: Inputs, train: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """y, the last sums, and for training those entering each chunk (3, B, chunks, D)."""
    w, u, k, v, num, den, top = given
    like, wide = v.dtype, num.dtype
    w, u, k, v = (x.to(wide) for x in (w, u, k, v))
    before, last, entering = _sums(w, k, v, torch.ones_like(k), (num, den, top))
    y = _read(before, u + k, v)
    num, den, top = (x.clone() for x in last)
    return y.to(like), num, den, top, entering if train else num.new_empty(0)


def vectorised_backward(
    dy: Tensor,
    dnum: Tensor,
    dden: Tensor,
    last: Tensor,
    entering: Tensor,
    given: Inputs,
) -> list[Tensor]:
    """Gradients of w, u, k, v, num and den; `last` is the max after the last token."""
    w, u, k, v, num, den, top = given
    wide = num.dtype
    w, u, k, v, dy = (x.to(wide) for x in (w, u, k, v, dy))
    before, _, _ = _sums(w, k, v, torch.ones_like(k), (num, den, top))
    largest = torch.maximum(before[2], u + k)
    now = torch.exp(u + k - largest)
    r = dy / (torch.exp(before[2] - largest) * before[1] + now)
    y = _read(before, u + k, v)
    flipped = ((-largest).flip(1), r.flip(1), (-r * y).flip(1))
    after, first, _ = _sums(w, *flipped, (dnum, dden, -last))
    G, H, p = (x.flip(1) for x in after)
    written = torch.exp(k + p)
    du = now * r * (v - y)
    dw = torch.exp(w + p + before[2]) * (G * before[0] + H * before[1])
    scale = torch.exp(first[2] + top)
    dk, dv = du + written * (G * v + H), now * r + written * G
    return [dw.sum((0, 1)), du.sum((0, 1)), dk, dv, scale * first[0], scale * first[1]]


def _forward(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, num: Tensor, den: Tensor, top: Tensor, train: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    fast = gpu("wkv", num) or cpu("wkv", num)
    run = vectorised_forward if fast is None else fast.forward
    return run(Inputs(w, u, k, v, num, den, top), train)


def _backward(grads: list[Tensor | None], outputs: list[Tensor], *inputs: Any) -> list[Tensor]:
    given, train = Inputs(*inputs[:-1]), inputs[-1]
    dy = torch.zeros_like(given.v) if grads[0] is None else grads[0]
    dnum, dden = (torch.zeros_like(given.num) if grad is None else grad for grad in grads[1:3])
    last, entering = outputs if train else _forward(*given, True)[3:]
    fast = gpu("wkv", given.num) or cpu("wkv", given.num)
    run = vectorised_backward if fast is None else fast.backward
    return [*run(dy, dnum, dden, last, entering, given), torch.zeros_like(given.top)]


def _fake(*inputs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    (_, _, k, v, *sums), train = inputs[:-1], inputs[-1]
    chunks = (3, len(k), -(-k.shape[1] // CHUNK), k.shape[2]) if train else (0,)
    num, den, top = (x.new_empty(x.shape) for x in sums)
    return v.new_empty(v.shape), num, den, top, num.new_empty(chunks)


def _flops(*_: object) -> int:
    """None of matrix products."""
    return 0


average = operator("wkv", _forward, _backward, _fake, flops=_flops, backward_flops=_flops, keeps=(3, 4))
