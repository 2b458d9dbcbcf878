"""Recurrences of archspec.kernels against the CPU code of transformers: same inputs, float32, in turns.

    python benchmarks/kernels_cpu.py [--threads 1] [--rounds 7] [--lengths 1024 4096] [--only mamba] [--no-numba]

A ratio is printed only for an operation whose outputs agreed in this run. Times are of the CPU; with more than one
thread, wall time stands beside them. "kept" is what autograd holds between forward and backward.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from side_by_side import cpu_seconds, relative_error, saved_bytes, training
from torch import Tensor
from transformers.models.kimi_linear.modeling_kimi_linear import chunk_kimi_delta_attention
from transformers.models.mamba.modeling_mamba import mamba_selective_scan
from transformers.models.mamba2.modeling_mamba2 import mamba2_chunk_scan
from transformers.models.qwen3_next.modeling_qwen3_next import torch_chunk_gated_delta_rule
from transformers.models.recurrent_gemma import RecurrentGemmaConfig
from transformers.models.recurrent_gemma.modeling_recurrent_gemma import RecurrentGemmaRglru
from transformers.models.rwkv.modeling_rwkv import rwkv_linear_attention_cpu

from archspec.kernels import backend
from archspec.kernels.memory.delta_rule import delta_rule
from archspec.kernels.memory.ssd import ssd
from archspec.kernels.scans.linear_scan import linear_scan
from archspec.kernels.scans.selective_scan import selective_scan
from archspec.kernels.scans.wkv import wkv


@dataclass(frozen=True)
class Case:
    """One operation: inputs for a length, ours, theirs, and the longest sequence to train theirs on."""

    name: str
    shape: str
    inputs: Callable[[int], list[Tensor]]
    ours: Callable[..., Tensor]
    theirs: Callable[..., Tensor]
    trains_to: int = 100_000


def mamba_inputs(T: int) -> list[Tensor]:
    D, N = 1024, 16
    A = -torch.arange(1.0, N + 1).expand(D, N).contiguous()
    dt = F.softplus(torch.randn(1, T, D) - 4.0)
    return [
        torch.randn(1, T, D),
        dt,
        A,
        torch.randn(1, T, N),
        torch.randn(1, T, N),
        torch.ones(D),
        torch.randn(1, T, D),
    ]


def mamba_theirs(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor) -> Tensor:
    x, dt, B, C, z = (t.transpose(1, 2) for t in (x, dt, B, C, z))
    return mamba_selective_scan(x, dt, A, B, C, D, z).transpose(1, 2)


def ssd_inputs(T: int) -> list[Tensor]:
    H, P, N = 16, 64, 128
    dt = F.softplus(torch.randn(1, T, H) - 4.0)
    return [torch.randn(1, T, H, P), dt, -torch.rand(H) * 15 - 1, torch.randn(1, T, 1, N), torch.randn(1, T, 1, N)]


def ssd_theirs(*inputs: Tensor) -> Tensor:
    y = mamba2_chunk_scan(*inputs, chunk_size=256)
    return y if isinstance(y, Tensor) else y[0]


def delta_inputs(T: int) -> list[Tensor]:
    H, K, V = 8, 64, 128
    q, k = (F.normalize(torch.randn(1, T, H, K), dim=-1) for _ in range(2))
    return [q, k, torch.randn(1, T, H, V), torch.rand(1, T, H), F.logsigmoid(torch.randn(1, T, H) + 2)]


def kda_inputs(T: int) -> list[Tensor]:
    H, K = 4, 64
    q, k = (F.normalize(torch.randn(1, T, H, K), dim=-1) for _ in range(2))
    return [q, k, torch.randn(1, T, H, K), torch.rand(1, T, H), F.logsigmoid(torch.randn(1, T, H, K) + 2)]


def gated_delta_ours(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, decay: Tensor) -> Tensor:
    return delta_rule(q, k, v, beta, decay, scale=q.shape[-1] ** -0.5)


def gated_delta_theirs(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, decay: Tensor) -> Tensor:
    return torch_chunk_gated_delta_rule(q, k, v, decay, beta)[0]


def kda_theirs(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, decay: Tensor) -> Tensor:
    plain = getattr(chunk_kimi_delta_attention, "__wrapped__", chunk_kimi_delta_attention)
    return plain(q, k, v, decay, beta)[0]


def wkv_inputs(T: int) -> list[Tensor]:
    D = 512
    return [torch.randn(D) - 1, torch.randn(D), torch.randn(1, T, D), torch.randn(1, T, D)]


def rg_lru_inputs(T: int) -> list[Tensor]:
    return [torch.sigmoid(torch.randn(1, T, 512) + 2), torch.randn(1, T, 512)]


RG_LRU = RecurrentGemmaRglru(RecurrentGemmaConfig(hidden_size=512, lru_width=512, num_attention_heads=8))


def rg_lru_theirs(a: Tensor, b: Tensor) -> Tensor:
    reset = torch.zeros(1, a.shape[1], 1, dtype=torch.bool)
    return RG_LRU._rnn_scan(hidden_states=b, recurrent_gate=a, reset=reset, recurrent_states=None)[0]


CASES = (
    # their training at 1024 tokens and more did not end in minutes: each step's gradient is as large as all states
    Case("mamba", "D 1024, N 16", mamba_inputs, selective_scan, mamba_theirs, trains_to=256),
    Case("ssd", "16 heads of 64, N 128", ssd_inputs, ssd, ssd_theirs),
    Case("gated delta rule", "8 heads, 64 x 128", delta_inputs, gated_delta_ours, gated_delta_theirs),
    Case("kda", "4 heads, 64 x 64", kda_inputs, gated_delta_ours, kda_theirs),
    Case(
        "wkv",
        "D 512",
        wkv_inputs,
        lambda w, u, k, v: wkv(-torch.exp(w), u, k, v),
        lambda *x: rwkv_linear_attention_cpu(*x)[0],
        256,
    ),
    Case("rg-lru", "D 512", rg_lru_inputs, linear_scan, rg_lru_theirs, 256),
)


def rows(case: Case, T: int, rounds: int, threads: int) -> None:
    """Check, then time forward and, where theirs can, forward and backward."""
    inputs = case.inputs(T)
    with torch.no_grad():
        error = relative_error(case.ours(*inputs), case.theirs(*inputs))
    if not error < 1e-4:
        raise SystemExit(f"{case.name} at T = {T}: outputs differ by {error:.1e}, no time is worth reading")
    works = {"forward": (lambda: case.ours(*inputs), lambda: case.theirs(*inputs), True)}
    if case.trains_to >= T:
        works["forward + backward"] = (training(case.ours, inputs), training(case.theirs, inputs), False)
    for work, (ours, theirs, inference) in works.items():
        with torch.inference_mode(inference):
            t = cpu_seconds({"ours": ours, "theirs": theirs}, rounds)
            wall = cpu_seconds({"ours": ours, "theirs": theirs}, rounds, time.perf_counter) if threads > 1 else None
        kept = "" if inference else f"{saved_bytes(case.ours, inputs) / 2**20:.1f}"
        kept_theirs = "" if inference else f"{saved_bytes(case.theirs, inputs) / 2**20:.1f}"
        ratio = f"{t['theirs'] / t['ours']:.1f}" + (f" (wall {wall['theirs'] / wall['ours']:.1f})" if wall else "")
        times = f"{t['ours'] * 1e3:.1f} | {t['theirs'] * 1e3:.1f} | {ratio}"
        print(
            f"| {case.name}, {case.shape} | {T} | {work} | {times} | {kept} | {kept_theirs} | {error:.0e} |", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 1024, 4096])
    parser.add_argument("--only", choices=[case.name for case in CASES])
    parser.add_argument(
        "--no-numba", action="store_true", help="the vectorised PyTorch path, as where Numba is missing"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if args.no_numba:
        backend.CPU_DEVICES = ()
    print(f"torch {torch.__version__}, {args.threads} thread(s), CPU ms; kept: MiB\n")
    print("| operation | T | work | archspec | transformers | theirs / ours | kept | kept, theirs | difference |")
    print("|---|---|---|---|---|---|---|---|---|")
    for case in CASES:
        for T in args.lengths if args.only in (None, case.name) else ():
            rows(case, T, args.rounds, args.threads)


if __name__ == "__main__":
    main()
