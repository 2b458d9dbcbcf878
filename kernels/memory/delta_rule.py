"""Delta rules: a memory that, for each key, replaces what it recalls by what it should recall.

    S = diag(exp(g[t])) S[t-1];    S[t] = S + beta[t] k[t] (v[t] - S^T p[t])^T;    y[t] = scale S[t]^T q[t]

Shapes: q, k, p (B, T, G, K), v (B, T, H, V), beta (B, T, H), each of the G keys serving H / G neighbouring values ->
y (B, T, H, V); the state S is (B, H, K, V) in float32 or wider. p, the key to recall with, is k itself unless given.
Sources: no decay, Schlag et al. 2021 and Yang et al. 2024, "Parallelizing linear transformers with the delta rule"; g
(B, T, H), Yang et al. 2025, "Gated delta networks"; g (B, T, H, K), Kimi Team 2025, "Kimi Linear"; p other than k, Hu
et al. 2025, "Comba"; several steps a token, Siems et al. 2025, "DeltaProduct". Gated DeltaNet-2 is the case p = erase
k, v = write v, beta = 1.

The computation, by chunks, is that of `memory.dplr`, with its implementations: Triton kernels on a GPU, which have
not been measured on one, and PyTorch elsewhere. CPU time of one thread of a shared machine, float32, run in turns with
transformers 5.23: one decay a head, 8 heads of 64 x 128, T 1024 and 4096: 26 and 91 ms, Qwen3-Next's chunk function 46
and 186 ms; with all gradients at 1024: 105 and 228 ms. One decay a channel, 4 heads of 64 x 64, T 1024: 23 ms, Kimi
Linear's chunk function 393 ms; with all gradients 56 and 1864 ms.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.contract import require, require_choice
from archspec.kernels.memory.dplr import CHUNKS, initial_state, remember
from archspec.kernels.memory.dplr_chunks import Inputs
from archspec.kernels.state import State


def reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    decay: Tensor | None = None,
    read_key: Tensor | None = None,
    scale: float = 1.0,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The recurrence in float64, token by token; returns y and the last state."""
    read_key = k if read_key is None else read_key
    q, k, p = (x.double().repeat_interleave(v.shape[2] // x.shape[2], dim=2) for x in (q, k, read_key))
    v, beta = v.double(), beta.double()
    S = v.new_zeros(v.shape[0], v.shape[2], q.shape[3], v.shape[3]) if state is None else state.double()
    outputs = []
    for t in range(v.shape[1]):
        if decay is not None:
            S = S * (decay.double() if decay.dim() == 4 else decay.double().unsqueeze(-1))[:, t].exp().unsqueeze(-1)
        wrong = v[:, t] - torch.einsum("bhkv,bhk->bhv", S, p[:, t])
        S = S + torch.einsum("bh,bhk,bhv->bhkv", beta[:, t], k[:, t], wrong)
        outputs.append(scale * torch.einsum("bhkv,bhk->bhv", S, q[:, t]))
    return torch.stack(outputs, dim=1), S


def example(
    B: int = 2, T: int = 63, G: int = 2, H: int = 4, K: int = 8, V: int = 12, channels: bool = False
) -> dict[str, Tensor]:
    """Example arguments of `delta_rule`: unit keys, beta in [0, 2], a decay a head or, with `channels`, a channel."""
    q, k = (F.normalize(torch.randn(B, T, G, K, dtype=torch.float64), dim=-1) for _ in range(2))
    v, beta = torch.randn(B, T, H, V, dtype=torch.float64), 2 * torch.rand(B, T, H, dtype=torch.float64)
    decay = -F.softplus(torch.randn(B, T, H, *([K] if channels else []), dtype=torch.float64) - 2)
    return {"q": q, "k": k, "v": v, "beta": beta, "decay": decay}


EXAMPLES = (
    {"T": 1},
    {"T": 63},
    {"T": 63, "channels": True},
    {"T": 100, "G": 1, "H": 1, "K": 5, "V": 3},
    {"T": 257, "B": 1, "G": 3, "H": 3},
    {"T": 257, "B": 1, "G": 1, "channels": True},
    {"B": 0, "T": 5},
    {"B": 1, "T": 33, "K": 64, "V": 128},
)


def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    decay: Tensor | None = None,
    *,
    read_key: Tensor | None = None,
    scale: float = 1.0,
    chunk: int | None = None,
    state: State | None = None,
) -> Tensor:
    """y of the equations above, (B, T, H, V) in the type of v; the state is kept under "memory", (B, H, K, V).

    q, k, read_key (B, T, G, K), v (B, T, H, V), beta (B, T, H), decay (B, T, H) or (B, T, H, K): a logarithm, at most
    0, which may be -inf. `chunk` tokens go through at once: 16, 32 or 64, which matters for speed and rounding alone.
    A NaN or infinity may reach earlier tokens of its chunk, as in `memory.dplr`.
    """
    keys = "B T G K"
    gates = "B T H K" if decay is not None and decay.dim() == 4 else "B T H"
    sizes = require(
        "delta_rule",
        q=(q, keys),
        k=(k, keys),
        v=(v, "B T H V"),
        beta=(beta, "B T H"),
        decay=(decay, gates),
        read_key=(read_key, keys),
    )
    _require_groups("delta_rule", sizes)
    require_choice("delta_rule", "chunk", chunk, (None, *CHUNKS))
    initial = initial_state("delta_rule", state, v, sizes)
    read_key = k if read_key is None else read_key
    if sizes["T"] == 1 and state is not None:
        q, k, read_key, v, beta = (x.squeeze(1) for x in (q, k, read_key, v, beta))
        memory = _decayed(initial, None if decay is None else decay.squeeze(1))
        last = _step(k, read_key, v, beta, memory)
        y = scale * _recall(last, q).unsqueeze(1)
    else:
        y, last = remember(Inputs(q, read_key, k, v, None, beta, decay), initial, scale, chunk)
    if state is not None:
        state["memory"] = last
    return y.to(v.dtype)


def delta_product(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    decay: Tensor | None = None,
    *,
    scale: float = 1.0,
    chunk: int | None = None,
    state: State | None = None,
) -> Tensor:
    """n delta-rule steps a token: the decay comes before the first, q reads after the last; y (B, T, H, V).

    q (B, T, G, K), k (B, T, n, G, K), v (B, T, n, H, V), beta (B, T, n, H), decay (B, T, H) or (B, T, H, K), at most
    0. The state is as in `delta_rule`; `chunk` counts steps.
    """
    gates = "B T H K" if decay is not None and decay.dim() == 4 else "B T H"
    sizes = require(
        "delta_product",
        q=(q, "B T G K"),
        k=(k, "B T n G K"),
        v=(v, "B T n H V"),
        beta=(beta, "B T n H"),
        decay=(decay, gates),
    )
    _require_groups("delta_product", sizes)
    require_choice("delta_product", "chunk", chunk, (None, *CHUNKS))
    n = sizes["n"]
    initial = initial_state("delta_product", state, v[:, :, 0], sizes)
    if sizes["T"] == 1 and state is not None:
        last = _decayed(initial, None if decay is None else decay.squeeze(1))
        for j in range(n):
            last = _step(k[:, 0, j], k[:, 0, j], v[:, 0, j], beta[:, 0, j], last)
        y = scale * _recall(last, q.squeeze(1)).unsqueeze(1)
    else:
        late = F.pad(q.unsqueeze(2), (0, 0, 0, 0, n - 1, 0)).flatten(1, 2)
        early = None if decay is None else _first_of(decay, n)
        k, v, beta = (x.flatten(1, 2) for x in (k, v, beta))
        y, last = remember(Inputs(late, k, k, v, None, beta, early), initial, scale, chunk)
        y = y[:, n - 1 :: n]
    if state is not None:
        state["memory"] = last
    return y.to(v.dtype)


def _first_of(decay: Tensor, n: int) -> Tensor:
    """The decay of the first of n steps; the others have none."""
    return F.pad(decay.unsqueeze(2), (0, 0) * (decay.dim() - 2) + (0, n - 1)).flatten(1, 2)


def _require_groups(op: str, sizes: dict[str, int]) -> None:
    if sizes["G"] == 0 or sizes["H"] % sizes["G"]:
        raise ValueError(f"{op}: v has {sizes['H']} heads, expected a multiple of the {sizes['G']} heads of k")


def _decayed(S: Tensor, decay: Tensor | None) -> Tensor:
    """The memory after the decay (B, H) or (B, H, K) of one token."""
    if decay is None:
        return S
    factor = decay.to(S.dtype).exp()
    return S * (factor if decay.dim() == 3 else factor.unsqueeze(-1)).unsqueeze(-1)


def _recall(S: Tensor, key: Tensor) -> Tensor:
    """S^T key, (B, H, V), for keys (B, G, K)."""
    B, H, K, V = S.shape
    groups = S.view(B, key.shape[1], -1, K, V)
    return (key.to(S.dtype)[:, :, None, None] @ groups).reshape(B, H, V)


def _step(k: Tensor, read_key: Tensor, v: Tensor, beta: Tensor, S: Tensor) -> Tensor:
    """The memory after one write: k, read_key (B, G, K), v (B, H, V), beta (B, H)."""
    wrong = beta.to(S.dtype).unsqueeze(-1) * (v.to(S.dtype) - _recall(S, read_key))
    k = k.to(S.dtype).repeat_interleave(v.shape[1] // k.shape[1], dim=1)
    return S + k.unsqueeze(-1) * wrong.unsqueeze(-2)
