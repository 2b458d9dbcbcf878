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

from collections.abc import Sequence
from math import prod
from types import ModuleType

import torch
from torch import Tensor

from archspec.kernels.backend import gpu
from archspec.kernels.contract import require
from archspec.kernels.library import Shape, operator
from archspec.kernels.memory.chunked import chunked_backward, chunked_forward, kept_type
from archspec.kernels.memory.segments import chunk_length, is_vector
from archspec.kernels.precision import wide_type
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
    keep = v.new_ones(B, T, H, K) if decay is None else _per_channel(decay.double(), B, T, H, K).exp()
    outputs = []
    for t in range(T):
        write = k[:, t].unsqueeze(-1) * v[:, t].unsqueeze(-2)
        decayed = keep[:, t].unsqueeze(-1) * S
        seen = decayed + write if bonus is None else S + bonus.double().unsqueeze(-1) * write
        S = decayed + write
        outputs.append(scale * torch.einsum("bhk,bhkv->bhv", q[:, t], seen))
    return torch.stack(outputs, dim=1), S


def _per_channel(decay: Tensor, B: int, T: int, H: int, K: int) -> Tensor:
    """Any of the four shapes of a log decay as (B, T, H, K)."""
    return (decay.unsqueeze(-1) if decay.dim() in (1, 3) else decay).expand(B, T, H, K)


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


def scan(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor | None,
    initial: Tensor | None,
    scale: float = 1.0,
    exclusive: bool = False,
    chunk: int = 64,
) -> tuple[Tensor, Tensor]:
    """y and the last state; with `exclusive` the token itself is not read."""
    given = [x for x in (q, k, v, decay, initial) if x is not None]
    train = torch.is_grad_enabled() and any(x.requires_grad for x in given)
    y, last, _ = _scan(q, k, v, decay, initial, scale, exclusive, chunk, train)
    return y, last


def step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor | None,
    bonus: Tensor | None,
    scale: float,
    initial: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """One token: T = 1 in the shapes of `matrix_memory`; y and the new state."""
    B, _, H, V = v.shape
    G, K = k.shape[2:]
    wide = wide_type(q, k, v)
    q, k, v = q[:, 0].to(wide).unsqueeze(2), k[:, 0].to(wide).unsqueeze(2), v[:, 0].to(wide)
    write = (k.unsqueeze(-1) * v.view(B, G, H // G, 1, V)).flatten(1, 2)  # (B, H, K, V)
    state = write if initial is None else initial.to(wide)
    new = write
    if initial is not None:
        keep = None if decay is None else _per_channel(decay.to(wide), B, 1, H, K)[:, 0].exp().unsqueeze(-1)
        new = state + write if keep is None else torch.addcmul(write, state, keep)
    seen = new
    if bonus is not None:
        own = bonus.to(wide).unsqueeze(-1) * write
        seen = own if initial is None else state + own
    y = (q.unsqueeze(-2) @ seen.unflatten(1, (G, -1))).view(B, 1, H, V)
    return y if scale == 1.0 else y * scale, new


def retention_decays(heads: int) -> Tensor:
    """Log decays (H,) of retention, log(1 - 2^(-5 - h)) (Sun et al. 2023, eq. 8)."""
    return torch.log1p(-torch.exp2(-5.0 - torch.arange(heads, dtype=torch.float64))).float()


def lightning_decays(heads: int, layer: int, n_layers: int) -> Tensor:
    """Log decays (H,) of TransNormerLLM and MiniMax: slopes 2^(-8 (h + 1) / H) that shrink with the layer's number.

    The same geometric slopes as ALiBi's for a power of two of heads; the 1e-5 are the published code's.
    """
    slopes = torch.exp2(-8.0 * torch.arange(1, heads + 1, dtype=torch.float64) / heads)
    return (-slopes * (1 - layer / (n_layers - 1 + 1e-5) + 1e-5)).float()


def linear_lightning_decays(heads: int, layer: int, n_layers: int) -> Tensor:
    """Log decays (H,) of flash-linear-attention's lightning attention: slopes 8 h / H, linear in the head."""
    return (-8.0 / heads * (1 - layer / n_layers) * torch.arange(heads, dtype=torch.float64)).float()


def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor | None,
    initial: Tensor | None,
    scale: float,
    exclusive: bool,
    chunk: int,
    train: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the last state, and for the backward pass the states that enter the chunks."""
    if not v.numel():
        y, last, entering = _fake(q, k, v, decay, initial, scale, exclusive, chunk, train)
        return y, last.zero_() if initial is None else last.copy_(initial), entering
    fast = _fast(q, k, v)
    run = chunked_forward if fast is None else fast.forward
    return run(q, k, v, decay, initial, scale, exclusive, _fitting(v, chunk), train)


def _backward(
    grads: list[Tensor | None],
    outputs: list[Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor | None,
    initial: Tensor | None,
    scale: float,
    exclusive: bool,
    chunk: int,
    train: bool,
    needed: Sequence[bool],
) -> list[Tensor]:
    """Gradients of q, k, v, the decay and the initial state; that of a decay which needs none is zero."""
    if not v.numel():
        found = [torch.zeros_like(x) for x in (q, k, v, decay, initial) if x is not None]
        return found if initial is None or grads[1] is None else [*found[:-1], grads[1].clone()]
    fast = _fast(q, k, v)
    run = chunked_backward if fast is None else fast.backward
    return run(
        grads,
        outputs[0],
        q,
        k,
        v,
        decay,
        initial,
        scale,
        exclusive,
        _fitting(v, chunk),
        decay is not None and needed[3],
    )


def _fast(q: Tensor, k: Tensor, v: Tensor) -> ModuleType | None:
    """Triton's kernels, unless something is to be computed in float64."""
    return None if wide_type(q, k, v) == torch.float64 else gpu("matrix_memory", v)


def _fake(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor | None,
    initial: Tensor | None,
    scale: float,
    exclusive: bool,
    chunk: int,
    train: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    (B, T, H, V), (G, K) = v.shape, q.shape[2:]
    chunks = -(-T // chunk_length(decay, T, _fitting(v, chunk))) if train and v.numel() else 0
    G = H if is_vector(decay) else G
    entering = v.new_empty((chunks, B, G, K, H // max(G, 1), V), dtype=kept_type(q, k, v))
    return v.new_empty(v.shape), v.new_empty((B, H, K, V), dtype=wide_type(q, k, v)), entering


def _fitting(v: Tensor, chunk: int) -> int:
    """Tokens a chunk: on a GPU at most 64, whose products fit the registers."""
    return min(chunk, 64) if v.is_cuda else chunk


def _flops(
    q: Shape,
    k: Shape,
    v: Shape,
    decay: Shape | None,
    initial: Shape | None,
    scale: float,
    exclusive: bool,
    chunk: int,
    train: bool,
) -> int:
    """Of the products within chunks, of what is written to the state and of what is read."""
    scores, values, _, states = _products(q, v, decay, chunk)
    return scores + values + 2 * states


def _backward_flops(
    q: Shape,
    k: Shape,
    v: Shape,
    decay: Shape | None,
    initial: Shape | None,
    scale: float,
    exclusive: bool,
    chunk: int,
    train: bool,
    needed: Sequence[bool],
) -> int:
    """Of the scores and their gradient, the gradients within chunks, and those of what was written and read."""
    scores, values, gradients, states = _products(q, v, decay, chunk)
    scalar = decay is not None and len(decay) in (1, 3)
    return scores + 2 * values + 2 * gradients + (5 if scalar and needed[3] else 4) * states


def _products(q: Shape, v: Shape, decay: Shape | None, chunk: int) -> tuple[int, int, int, int]:
    """FLOPs of q k^T, of its product with v, of the gradient of q from that of q k^T, and of a pass over the state."""
    if not prod(v):
        return 0, 0, 0, 0
    (B, T, H, V), (G, K) = v, q[2:]
    vector = decay is not None and len(decay) in (2, 4)
    L = min(1 << (chunk.bit_length() - 1), 1 << (T - 1).bit_length()) if vector else min(chunk, T)
    tokens = B * -(-T // L) * L
    if vector:  # blocks of 1, 2, 4, ... L / 2 rows and columns
        scores = tokens * H * K * (L - 1)
        return scores, 2 * tokens * L * H * V, scores, 2 * tokens * H * K * V
    return 2 * tokens * L * G * K, 2 * tokens * L * H * V, 2 * tokens * L * G * K, 2 * tokens * H * K * V


_scan = operator(
    "matrix_memory",
    _forward,
    _backward,
    _fake,
    flops=_flops,
    backward_flops=_backward_flops,
    keeps=(2,),
    selective=True,
)
