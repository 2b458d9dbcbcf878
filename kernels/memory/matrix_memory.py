"""Matrix memory: linear attention with a decay, one matrix a head that tokens are written into and read from.

    S[t] = diag(exp(g[t])) S[t-1] + k[t] v[t]^T        y[t] = scale q[t] S[t]

With a bonus u the memory is read before the token is written, and the token itself weighs u in its place:
y[t] = scale q[t] (S[t-1] + diag(u) k[t] v[t]^T). Normalised, y[t] is divided by scale q[t] . n[t], n being the same
memory of the value 1, n[t] = exp(g[t]) n[t-1] + k[t].

Shapes: q and k (B, T, G, K) shared by the H / G heads of a group, v (B, T, H, V) -> y (B, T, H, V); the state S is
(B, H, K, V). The log decay g <= 0 is one of

    None            linear attention (Katharopoulos et al. 2020, eq. 16 to 20)
    (H,)            a constant a head: retention (Sun et al. 2023, eq. 6), lightning attention (Qin et al. 2024)
    (H, K)          a constant a channel: RWKV-5 (Peng et al. 2024, eq. 17 to 19, with bonus)
    (B, T, H)       a number a token and head: Mamba-2 (Dao and Gu 2024), xLSTM's mLSTM, simple GLA
    (B, T, H, K)    a number a token and channel: gated linear attention (Yang et al. 2024, eq. 3), HGRN2 with
                    k = 1 - exp(g), RWKV-6 with bonus

-inf is a decay to nothing. Everything is computed in float32 or wider, in chunks of tokens: see
`archspec.kernels.memory.chunked`, which runs on a CPU and wherever Triton does not. Memory grows by one state a
chunk, kept for the backward pass alone; products within a chunk are computed anew there. On one core of a shared Xeon
with AVX-512, 1024 tokens of 16 heads of 64 x 128 that share q and k took 14 ms, of which 8 in matrix products, and 88
with the backward pass; 4 heads of 128 x 256 with a decay a channel took 30 and 95 ms. On a GPU the kernels of
`archspec.kernels.gpu.matrix_memory` run; they compile for sm_90, agree in Triton's interpreter, and were not measured.
"""

import torch
from torch import Tensor

from archspec.kernels.contract import require
from archspec.kernels.memory.matrix_scan import per_channel, scan, step
from archspec.kernels.state import State, recall

EXAMPLES = (
    {"T": 1},
    {"T": 63, "decay": 3},
    {"T": 63, "decay": 1},
    {"T": 100, "decay": 2, "bonus": 1},
    {"T": 257, "decay": 3, "H": 3, "G": 1, "K": 5, "V": 3},
    {"T": 100, "decay": 4, "K": 7, "V": 9},
    {"T": 63, "decay": 4, "G": 1, "bonus": 1},
    {"B": 0, "T": 63, "decay": 3},
)


def example(
    B: int = 2,
    T: int = 63,
    H: int = 4,
    G: int = 2,
    K: int = 6,
    V: int = 5,
    decay: int = 0,
    bonus: int = 0,
) -> dict[str, Tensor]:
    """Arguments of `matrix_memory` in float64; decay is the number of axes of the log decay, 0 for none."""
    shapes = {1: (H,), 2: (H, K), 3: (B, T, H), 4: (B, T, H, K)}
    made = {"q": _normal(B, T, G, K), "k": _normal(B, T, G, K), "v": _normal(B, T, H, V)}
    if decay:
        made["decay"] = torch.nn.functional.logsigmoid(_normal(*shapes[decay]) + 1.0)
    return {**made, "bonus": _normal(H, K)} if bonus else made


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor | None = None,
    bonus: Tensor | None = None,
    initial: Tensor | None = None,
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """The recurrence in float64, token by token, without the normaliser; returns y and the last state."""
    B, T, H, V = v.shape
    q, k = (x.double().repeat_interleave(H // x.shape[2], dim=2) for x in (q, k))
    v, K = v.double(), k.shape[-1]
    S = v.new_zeros(B, H, K, V) if initial is None else initial.double()
    keep = v.new_ones(B, T, H, K) if decay is None else per_channel(decay.double(), B, T, H, K).exp()
    outputs = []
    for t in range(T):
        write = k[:, t].unsqueeze(-1) * v[:, t].unsqueeze(-2)
        decayed = keep[:, t].unsqueeze(-1) * S
        seen = decayed + write if bonus is None else S + bonus.double().unsqueeze(-1) * write
        S = decayed + write
        outputs.append(scale * torch.einsum("bhk,bhkv->bhv", q[:, t], seen))
    return torch.stack(outputs, dim=1), S


def matrix_memory(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor | None = None,
    *,
    bonus: Tensor | None = None,
    normalise: bool = False,
    scale: float | None = None,
    chunk: int = 64,
    state: State | None = None,
) -> Tensor:
    """y of the equations above, (B, T, H, V) in the type of v.

    q, k (B, T, G, K), v (B, T, H, V), H a multiple of G; decay, a log, in one of the shapes above; bonus (H, K); scale
    is 1 by default. chunk: tokens computed as one masked product (a power of two, else the one below, for a decay a
    channel). The state is kept under "memory", (B, H, K, V), and "normaliser", (B, H, K), in float32 or wider.
    A NaN or infinity in k or v reaches all later tokens, and may reach the earlier ones of its chunk: masked products
    multiply it by zero. Raises ValueError or TypeError where shapes, types or devices do not fit.
    """
    _check(q, k, v, decay, bonus, chunk)
    factor = 1.0 if scale is None else float(scale)
    values = sums_of(v) if normalise else v
    y = remember(q, k, values, decay, bonus, factor, chunk, state, "memory")
    if normalise:
        ones = values.new_ones(*v.shape[:3], 1)
        y = y / remember(q, k, ones, decay, bonus, factor, chunk, state, "normaliser")
    return y.to(v.dtype)


def sums_of(v: Tensor) -> Tensor:
    """v in a type that holds sums over many tokens, which are divided afterwards: float16 ends at 65504."""
    return v.float() if v.dtype == torch.float16 else v


def _check(q: Tensor, k: Tensor, v: Tensor, decay: Tensor | None, bonus: Tensor | None, chunk: int) -> None:
    sizes = require("matrix_memory", q=(q, "B T G K"), k=(k, "B T G K"), v=(v, "B T H V"), bonus=(bonus, "H K"))
    if sizes["H"] % max(sizes["G"], 1):
        raise ValueError(f"matrix_memory: v has {sizes['H']} heads, expected a multiple of the {sizes['G']} of q")
    if chunk < 1:
        raise ValueError(f"matrix_memory: chunk is {chunk}, expected at least 1")
    if decay is not None:
        axes = {1: "H", 2: "H K", 3: "B T H", 4: "B T H K"}.get(decay.dim(), "B T H K")
        require("matrix_memory", q=(q, "B T G K"), v=(v, "B T H V"), decay=(decay, axes))


def remember(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor | None,
    bonus: Tensor | None,
    scale: float,
    chunk: int,
    state: State | None,
    name: str,
) -> Tensor:
    """y without the normaliser; the state is kept under `name`, "normaliser" without the axis of 1."""
    initial = recall(state, name)
    if initial is not None and name == "normaliser":
        initial = initial.unsqueeze(-1)
    if initial is not None:
        sizes = {"B": v.shape[0], "H": v.shape[2], "K": k.shape[3], "V": v.shape[3]}
        if tuple(initial.shape) != tuple(sizes.values()):
            raise ValueError(
                f"matrix_memory: the state has shape {tuple(initial.shape)}, expected {tuple(sizes.values())}"
            )
    if state is not None and v.shape[1] == 1:
        y, last = step(q, k, v, decay, bonus, scale, initial)
    else:
        y, last = scan(q, k, v, decay, initial, scale, bonus is not None, chunk)
        if bonus is not None:
            y = y + scale * _own(q, k, bonus) * v
    if state is not None:
        state[name] = last.squeeze(-1) if name == "normaliser" else last
    return y


def _own(q: Tensor, k: Tensor, bonus: Tensor) -> Tensor:
    """q . diag(bonus) k of each token and head, (B, T, H, 1)."""
    product = q.to(bonus.dtype) * k.to(bonus.dtype)
    weights = bonus.unflatten(0, (q.shape[2], -1))  # (G, H / G, K)
    return torch.einsum("btgk,grk->btgr", product, weights).flatten(2).unsqueeze(-1)
