"""What `kernels_gpu.py` measures: for each operation its inputs at real widths, ours, and the best known others.

A peer imports what it needs when it is asked for and returns a function of the same tensors.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.attention.softmax import attention
from archspec.kernels.convolutions.long_conv import long_conv
from archspec.kernels.convolutions.short_conv import short_conv
from archspec.kernels.loss.linear_cross_entropy import linear_cross_entropy
from archspec.kernels.memory.delta_rule import delta_rule
from archspec.kernels.memory.matrix_memory import matrix_memory
from archspec.kernels.pointwise.activation import swiglu
from archspec.kernels.pointwise.norm import add_rms_norm, layer_norm, rms_norm
from archspec.kernels.pointwise.rope import rope_tables, rotate
from archspec.kernels.scans.linear_scan import linear_scan
from archspec.kernels.scans.selective_scan import selective_scan

Op = Callable[..., Tensor]
Peer = Callable[[], Op]


@dataclass(frozen=True)
class Case:
    """One operation. `inputs(T, tiny)` gives float32 tensors on the CPU; `fixed` names those that stay float32.

    `moved` are the inputs and outputs that a perfect kernel moves once each, where memory is the limit: then the share
    of the copy bandwidth is printed.
    """

    name: str
    inputs: Callable[[int, bool], list[Tensor]]
    ours: Op
    peers: dict[str, Peer] = field(default_factory=dict)
    fixed: tuple[int, ...] = ()
    memory_bound: bool = False
    longest: int = 65536


def heads(T: int, tiny: bool, count: int, width: int, first: int = 1) -> Tensor:
    """(B, T, H, D), a total of 64K tokens or one sequence."""
    return torch.randn(batch(T, tiny), T, 2 if tiny else count, 16 if tiny else width) * first


def batch(T: int, tiny: bool) -> int:
    """Sequences that make 32K tokens."""
    return 1 if tiny else max(32768 // T, 1)


def attention_inputs(T: int, tiny: bool) -> list[Tensor]:
    q, k, v = (heads(T, tiny, n, 128).transpose(1, 2) for n in (16, 4, 4))
    return [q, k, v]


def unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1)


def memory_inputs(T: int, tiny: bool) -> list[Tensor]:
    return [heads(T, tiny, 16, 128) for _ in range(3)]


def scalar_decay_inputs(T: int, tiny: bool) -> list[Tensor]:
    return [*memory_inputs(T, tiny), F.logsigmoid(torch.randn(batch(T, tiny), T, 2 if tiny else 16) + 3)]


def vector_decay_inputs(T: int, tiny: bool) -> list[Tensor]:
    return [*memory_inputs(T, tiny), F.logsigmoid(heads(T, tiny, 16, 128)) / 16]


def delta_inputs(T: int, tiny: bool) -> list[Tensor]:
    q, k, v = memory_inputs(T, tiny)
    return [unit(q), unit(k), v, torch.rand(q.shape[:3])]


def gated_delta_inputs(T: int, tiny: bool) -> list[Tensor]:
    return [*delta_inputs(T, tiny), scalar_decay_inputs(T, tiny)[3]]


def kda_inputs(T: int, tiny: bool) -> list[Tensor]:
    return [*delta_inputs(T, tiny), F.logsigmoid(heads(T, tiny, 16, 128))]


def channels(T: int, tiny: bool, width: int = 4096) -> Tensor:
    return torch.randn(batch(T, tiny), T, 24 if tiny else width)


def mamba_inputs(T: int, tiny: bool) -> list[Tensor]:
    x, z = channels(T, tiny), channels(T, tiny)
    B, C = (torch.randn(*x.shape[:2], 4 if tiny else 16) for _ in range(2))
    A = -torch.arange(1.0, B.shape[-1] + 1).expand(x.shape[-1], -1).contiguous()
    return [x, F.softplus(torch.randn_like(x) - 4), A, B, C, torch.ones(x.shape[-1]), z]


def scan_inputs(T: int, tiny: bool) -> list[Tensor]:
    return [torch.sigmoid(channels(T, tiny) + 2), channels(T, tiny)]


def short_conv_inputs(T: int, tiny: bool) -> list[Tensor]:
    x = channels(T, tiny)
    return [x, torch.randn(x.shape[-1], 1, 4), torch.randn(x.shape[-1])]


def long_conv_inputs(T: int, tiny: bool) -> list[Tensor]:
    u = channels(T, tiny, 768)
    return [u, torch.randn(T, u.shape[-1]) * torch.exp(-torch.arange(T) / T)[:, None], torch.randn(u.shape[-1])]


def norm_inputs(T: int, tiny: bool) -> list[Tensor]:
    x = channels(T, tiny)
    return [x, torch.randn(x.shape[-1])]


def rope_inputs(T: int, tiny: bool) -> list[Tensor]:
    x = heads(T, tiny, 32, 128).transpose(1, 2)
    dim = x.shape[-1]
    return [x, *rope_tables(torch.arange(T), 10000.0 ** (-torch.arange(0, dim, 2) / dim))]


def cross_entropy_inputs(T: int, tiny: bool) -> list[Tensor]:
    x = channels(T, tiny)
    return [x.flatten(0, 1), torch.randn(40 if tiny else 128256, x.shape[-1]) * 0.02]


def some_targets(x: Tensor, weight: Tensor) -> Tensor:
    return torch.arange(x.shape[0], device=x.device) * 7919 % weight.shape[0]


def sdpa() -> Op:
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def flex(window: int | None) -> Peer:
    """FlexAttention, compiled as its authors say, with the mask as a block mask."""

    def peer() -> Op:
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        compiled = torch.compile(flex_attention, dynamic=False)
        seen = (lambda b, h, i, j: (i >= j) & (i - j < window)) if window else (lambda b, h, i, j: i >= j)
        masks = {}

        def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            T = q.shape[2]
            if T not in masks:
                masks[T] = create_block_mask(seen, None, None, T, T, device=q.device)
            return compiled(q, k, v, block_mask=masks[T], enable_gqa=True)

        return run

    return peer


def fla(path: str, name: str, wrap: Callable[[Op], Op]) -> dict[str, Peer]:
    """A function of flash-linear-attention."""

    def peer() -> Op:
        from importlib import import_module

        return wrap(getattr(import_module(path), name))

    return {"flash-linear-attention": peer}


def mamba_ssm() -> Op:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    def run(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor) -> Tensor:
        x, dt, B, C, z = (t.transpose(1, 2) for t in (x, dt, B, C, z))
        return selective_scan_fn(x, dt, A, B, C, D, z).transpose(1, 2)

    return run


def causal_conv1d() -> Op:
    from causal_conv1d import causal_conv1d_fn

    return lambda x, w, b: causal_conv1d_fn(x.transpose(1, 2), w.squeeze(1), b, activation="silu").transpose(1, 2)


def torch_conv() -> Op:
    def run(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        y = F.conv1d(F.pad(x.transpose(1, 2), (w.shape[-1] - 1, 0)), w, b, groups=x.shape[-1])
        return F.silu(y).transpose(1, 2)

    return run


def torch_fft_conv() -> Op:
    def run(u: Tensor, k: Tensor, d: Tensor) -> Tensor:
        wide, size = u.float(), 2 * u.shape[1]
        y = torch.fft.irfft(torch.fft.rfft(wide, size, dim=1) * torch.fft.rfft(k.float(), size, dim=0), size, dim=1)
        return (y[:, : u.shape[1]] + d * wide).to(u.dtype)

    return run


def liger(name: str, wrap: Callable[[Op], Op]) -> dict[str, Peer]:
    """A function of Liger-Kernel."""

    def peer() -> Op:
        from liger_kernel.transformers import functional

        return wrap(getattr(functional, name))

    return {"Liger-Kernel": peer}


def compiled(f: Op) -> Peer:
    """PyTorch's own formula under torch.compile."""
    return lambda: torch.compile(f, dynamic=False)


def half_split_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x.dtype)


def whole_cross_entropy(x: Tensor, weight: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(x, weight).float(), some_targets(x, weight))


def first(f: Op, **options: object) -> Op:
    """The first result of a function that also returns a state."""

    def run(*tensors: Tensor) -> Tensor:
        y = f(*tensors, **options)
        return y if isinstance(y, Tensor) else y[0]

    return run


CASES = (
    Case(
        "attention, causal, 16 heads on 4 of 128",
        attention_inputs,
        lambda q, k, v: attention(q, k, v, causal=True),
        {"SDPA": sdpa, "FlexAttention": flex(None)},
    ),
    Case(
        "attention, window of 1024, 16 heads on 4 of 128",
        attention_inputs,
        lambda q, k, v: attention(q, k, v, causal=True, window=1024),
        {"FlexAttention": flex(1024)},
    ),
    Case(
        "attention, softcap, 16 heads on 4 of 128",
        attention_inputs,
        lambda q, k, v: attention(q, k, v, causal=True, softcap=30.0),
    ),
    Case(
        "linear attention, 16 heads of 128 x 128",
        memory_inputs,
        matrix_memory,
        fla("fla.ops.linear_attn", "chunk_linear_attn", lambda f: first(f, scale=1.0, normalize=False)),
    ),
    Case(
        "scalar decay (Mamba-2), 16 heads of 128 x 128",
        scalar_decay_inputs,
        matrix_memory,
        fla("fla.ops.simple_gla", "chunk_simple_gla", lambda f: first(f, scale=1.0)),
        fixed=(3,),
    ),
    Case(
        "vector decay (GLA), 16 heads of 128 x 128",
        vector_decay_inputs,
        matrix_memory,
        fla("fla.ops.gla", "chunk_gla", lambda f: first(f, scale=1.0)),
        fixed=(3,),
    ),
    Case(
        "delta rule, 16 heads of 128 x 128",
        delta_inputs,
        delta_rule,
        fla("fla.ops.delta_rule", "chunk_delta_rule", lambda f: first(f, scale=1.0)),
    ),
    Case(
        "gated delta rule, 16 heads of 128 x 128",
        gated_delta_inputs,
        delta_rule,
        fla(
            "fla.ops.gated_delta_rule",
            "chunk_gated_delta_rule",
            lambda f: lambda q, k, v, b, g: f(q, k, v, g, b, scale=1.0)[0],
        ),
        fixed=(4,),
    ),
    Case(
        "KDA, 16 heads of 128 x 128",
        kda_inputs,
        delta_rule,
        fla("fla.ops.kda", "chunk_kda", lambda f: lambda q, k, v, b, g: f(q, k, v, g, b, scale=1.0)[0]),
        fixed=(4,),
    ),
    Case(
        "selective scan, D 4096, N 16",
        mamba_inputs,
        selective_scan,
        {"mamba-ssm": mamba_ssm},
        fixed=(2, 5),
        memory_bound=True,
    ),
    Case(
        "element-wise recurrence, D 4096",
        scan_inputs,
        linear_scan,
        fla("fla.ops.hgrn", "fused_recurrent_hgrn", lambda f: lambda a, b: f(b, a.log())[0]),
        memory_bound=True,
    ),
    Case(
        "short convolution, D 4096, 4 taps, SiLU",
        short_conv_inputs,
        lambda x, w, b: short_conv(x, w, b, activation="silu"),
        {
            "causal-conv1d": causal_conv1d,
            "torch.conv1d": torch_conv,
            "torch.compile": compiled(lambda x, w, b: torch_conv()(x, w, b)),
        },
        memory_bound=True,
    ),
    Case("long convolution, D 768", long_conv_inputs, long_conv, {"torch.fft": torch_fft_conv}, fixed=(1, 2)),
    Case(
        "RMSNorm, D 4096",
        norm_inputs,
        lambda x, w: rms_norm(x, w, 1e-6),
        {
            **liger("liger_rms_norm", lambda f: lambda x, w: f(x, w, 1e-6)),
            "torch.compile": compiled(lambda x, w: F.rms_norm(x, x.shape[-1:], w, 1e-6)),
        },
        memory_bound=True,
    ),
    Case(
        "LayerNorm, D 4096",
        norm_inputs,
        lambda x, w: layer_norm(x, w, None, 1e-6),
        {"torch": lambda: lambda x, w: F.layer_norm(x, x.shape[-1:], w, None, 1e-6)},
        memory_bound=True,
    ),
    Case(
        "residual add and RMSNorm, D 4096",
        lambda T, tiny: [channels(T, tiny), *norm_inputs(T, tiny)],
        lambda r, x, w: add_rms_norm(x, r, w, 1e-6)[0],
        {"torch.compile": compiled(lambda r, x, w: F.rms_norm(x + r, x.shape[-1:], w, 1e-6))},
        memory_bound=True,
    ),
    Case(
        "SwiGLU, 11008 hidden units",
        lambda T, tiny: [channels(T, tiny, 11008) for _ in range(2)],
        swiglu,
        {**liger("liger_swiglu", lambda f: f), "torch.compile": compiled(lambda a, b: F.silu(a) * b)},
        memory_bound=True,
    ),
    Case(
        "RoPE, 32 heads of 128",
        rope_inputs,
        rotate,
        {"torch.compile": compiled(half_split_rope)},
        fixed=(1, 2),
        memory_bound=True,
    ),
    Case(
        "linear and cross-entropy, D 4096, vocabulary 128,256",
        cross_entropy_inputs,
        lambda x, w: linear_cross_entropy(x, w, some_targets(x, w)),
        {
            **liger("liger_fused_linear_cross_entropy", lambda f: lambda x, w: f(x, w, some_targets(x, w))),
            "torch, all logits": lambda: whole_cross_entropy,
        },
        longest=8192,
    ),
)
