"""The peak of a training step against the allocator's own trace, and what each figure is made of."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from archspec.codegen.load import build
from archspec.errors import CostError
from archspec.graph import graph
from archspec.language.load import load
from archspec.language.model import Spec
from archspec.passes.count import count
from archspec.passes.memory import memory

PLAIN = {"kind": "attention", "n_heads": 4}
ROPE = {"kind": "attention", "n_heads": 4, "n_kv_heads": 2, "position": {"kind": "rope"}}
BLOCKS: dict[str, dict[str, Any]] = {
    "llama": {"blocks": [{"repeat": 3, "mixer": ROPE, "ffn": {"kind": "gated_mlp", "d_ff": 96}}]},
    "gpt2": {
        "blocks": [{"repeat": 2, "mixer": PLAIN, "ffn": {"kind": "mlp", "d_ff": 192}}],
        "embedding": {"kind": "token", "position": {"kind": "learned"}},
        "head": {"kind": "lm", "tied": True},
        "norm": {"kind": "layernorm"},
    },
    "mamba": {"blocks": [{"repeat": 2, "mixer": {"kind": "mamba"}}]},
    "moe": {"blocks": [{"mixer": PLAIN, "ffn": {"kind": "moe", "n_experts": 4, "top_k": 2, "d_ff": 32}}]},
}
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adamw": lambda p: torch.optim.AdamW(p, foreach=False),
    "adam": lambda p: torch.optim.Adam(p, foreach=False),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, foreach=False),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, foreach=False),
}


def spec_of(kind: str) -> Spec:
    return load(
        {"name": kind, "d_model": 48, "vocab_size": 200, "max_seq_len": 256, "head": {"kind": "lm"}} | BLOCKS[kind]
    )


def traced(spec: Spec, B: int, T: int, optimizer: str) -> tuple[int, int]:
    """Bytes of weights, buffers and states, and the most that the allocator held in the second step."""
    model = build(spec)
    stepper = OPTIMIZERS[optimizer](model.parameters())
    tokens, targets = torch.randint(200, (B, T)), torch.randint(200, (B * T,))

    def step() -> None:
        stepper.zero_grad(set_to_none=True)
        F.cross_entropy(model(tokens).flatten(0, 1), targets).backward()
        stepper.step()

    step()
    stepper.zero_grad(set_to_none=True)
    states = (v for state in stepper.state.values() for v in state.values() if isinstance(v, Tensor))
    static = sum(t.untyped_storage().nbytes() for t in (*model.parameters(), *model.buffers(), *states))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        step()
    events = [e for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return static, static + peak


@pytest.mark.parametrize("kind", BLOCKS)
def test_the_peak_at_the_start_of_the_backward_pass(kind: str) -> None:
    spec = spec_of(kind)
    said = memory(spec, batch=8, seq=128, dtype="float32")
    static, peak = traced(spec, 8, 128, "adamw")
    assert said.weight_bytes + said.buffer_bytes + said.optimizer_bytes == static
    assert (said.peak_moment, said.peak_bytes) == ("start of the backward pass", peak)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_peak_in_the_step_of_the_optimizer(optimizer: str) -> None:
    spec = spec_of("llama")
    said = memory(spec, batch=1, seq=4, dtype="float32", optimizer=optimizer)
    static, peak = traced(spec, 1, 4, optimizer)
    assert said.weight_bytes + said.buffer_bytes + said.optimizer_bytes == static
    assert said.peak_moment == "optimizer step"
    assert 0 <= peak - said.peak_bytes < 1024  # gradients of four tokens, and scalars
    assert "peak_bytes" in said.estimates


def test_what_the_figures_are_made_of() -> None:
    spec = spec_of("llama")
    total = count(spec).total
    said = memory(spec, batch=1, seq=8, dtype="bf16", gradient_dtype="float32", master_dtype="float32")
    assert (said.weight_bytes, said.gradient_bytes) == (2 * total, 4 * total)
    assert said.optimizer_bytes == 12 * total + 4 * len(count(spec).tensors)
    assert said.buffer_bytes == 3 * 4 * 6  # frequencies of RoPE
    assert memory(spec, seq=8, optimizer="muon").optimizer_bytes < memory(spec, seq=8).optimizer_bytes
    assert memory(spec, seq=8, optimizer="adamw8bit").workspace_bytes == 0


def test_muon_steps_the_matrices_of_layers_alone() -> None:
    spec = spec_of("llama")
    params = [(p, node.segment >= 0, node.copies) for node in graph(spec).nodes for p in node.params if not p.buffer]
    matrices = sum(n * p.numel for p, inside, n in params if inside and len(p.shape) == 2)
    others = [(p.numel, n) for p, inside, n in params if not inside or len(p.shape) != 2]
    said = memory(spec, seq=8, dtype="float32", optimizer="muon")
    assert said.optimizer_bytes == 4 * matrices + sum(n * (8 * size + 4) for size, n in others)
    assert matrices > 0
    assert any(size > spec.main.d_model for size, _ in others)  # embedding and head


@pytest.mark.parametrize("option", ["dtype", "gradient_dtype", "master_dtype"])
@pytest.mark.parametrize("dtype", ["int8", "float8", "fp8"])
def test_types_without_gradients_do_not_train(option: str, dtype: str) -> None:
    with pytest.raises(CostError, match=f"{option} = '{dtype}' has no gradients"):
        memory(spec_of("llama"), **{option: dtype})


@pytest.mark.parametrize("option", ["dtype", "attention", "checkpoint", "optimizer"])
def test_what_is_unknown_is_refused(option: str) -> None:
    with pytest.raises(CostError, match="unknown; known"):
        memory(spec_of("llama"), **{option: "no such thing"})
