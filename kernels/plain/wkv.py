"""WKV, the time mixing of RWKV-4: a moving average of values weighted by exponentials of keys (Peng et al. 2023).

y[t] = (sum_{s<t} exp(k[s] + (t-1-s) w) v[s] + exp(u + k[t]) v[t]) / (the same sum without v)
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from archspec.kernels.plain.precision import wide
from archspec.kernels.plain.state import State

CHUNK = 32  # tokens
START = -1e38  # the exponent of nothing


def wkv(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: State | None = None, mask: Tensor | None = None) -> Tensor:
    """y (B, T, D) of k, v (B, T, D), the log of the decay w (D,) and the bonus u (D,).

    The state keeps both sums divided by exp(max), max being the largest exponent so far: "num", "den", "max" (B, D).
    """
    if k.shape[1] == 0:
        return v  # no tokens
    like = v.dtype
    w, u, k, v = wide(w), wide(u), wide(k), wide(v)
    num = v.new_zeros(v.shape[0], v.shape[2])
    den, top = torch.zeros_like(num), torch.full_like(num, START)
    if state is not None and "num" in state:
        num, den, top = state["num"], state["den"], state["max"]
    if mask is not None:
        k, v = past_padding(k, v, num, den, top, mask)  # (B, T + 1, D)
        num, den, top = torch.zeros_like(num), torch.zeros_like(num), torch.full_like(num, START)
    outputs = []
    for k_c, v_c in zip(k.split(CHUNK, dim=1), v.split(CHUNK, dim=1), strict=True):
        # The backward pass makes the weights of a chunk again.
        y, num, den, top = checkpoint(
            average_chunk, w, u, k_c, v_c, num, den, top, use_reentrant=False, preserve_rng_state=False
        )
        outputs.append(y)
    if state is not None:
        state["num"], state["den"], state["max"] = num.clone(), den.clone(), top.clone()
    y = torch.cat(outputs, dim=1)
    if mask is not None:
        y = y[:, 1:]
    return y.to(like)


def past_padding(k: Tensor, v: Tensor, num: Tensor, den: Tensor, top: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values (B, T + 1, D) in which the sums so far stand as a token before the first real one.

    mask (B, T) is True for real tokens, before which padding stands: its keys weigh nothing, but the sums so far would
    decay at each of them.
    """
    real = F.pad(mask, (1, 0)).unsqueeze(-1)  # (B, T + 1, 1)
    last = ~real & F.pad(mask, (0, 1), value=True).unsqueeze(-1)  # where the sums stand
    weight = den.clamp(min=0.5)  # it is 1 at least, or 0 before the first token
    keys = F.pad(k, (0, 0, 1, 0)).masked_fill(~real, START)
    values = F.pad(v, (0, 0, 1, 0)).masked_fill(~real, 0)
    keys = torch.where(last, (top + weight.log()).unsqueeze(1), keys)
    return keys, torch.where(last, (num / weight).unsqueeze(1), values)


def average_chunk(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, num: Tensor, den: Tensor, top: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The averages of L tokens, (B, L, D), and both sums and their scale after them."""
    L = k.shape[1]
    t = torch.arange(L + 1, device=k.device).unsqueeze(1)  # one more: what the chunk leaves
    steps = (t - 1 - t[:L].mT).unsqueeze(-1)  # (L + 1, L, 1) from a token to the last before another
    exponents = k.unsqueeze(1) + steps * w  # (B, L + 1, L, D)
    exponents = torch.where(steps == -1, (u + k).unsqueeze(1), exponents).masked_fill(steps < -1, -torch.inf)
    before = top.unsqueeze(1) + t * w  # (B, L + 1, D)
    largest = torch.maximum(exponents.amax(2), before).detach()
    weights, share = (exponents - largest.unsqueeze(2)).exp(), (before - largest).exp()
    nums = (weights * v.unsqueeze(1)).sum(2) + share * num.unsqueeze(1)  # (B, L + 1, D)
    dens = weights.sum(2) + share * den.unsqueeze(1)
    return nums[:, :L] / dens[:, :L], nums[:, L], dens[:, L], largest[:, L]
