"""Blocks of torch.nn written as specs: attention, whole encoder and decoder layers, recurrent networks."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from parity_checks import (
    TOKENS,
    VOCAB,
    Rules,
    Take,
    assert_same,
    built,
    decoded,
    padded,
    part,
    randomise,
    tokens,
)
from torch import Tensor, nn

D, D_IN, HEADS, D_FF = 32, 5, 4, 56
LAYERNORM = {"kind": "layernorm", "eps": 1e-5}
FEATURES = {"kind": "features", "d_input": D_IN}
ATTENTION = {"kind": "attention", "n_heads": HEADS, "qkv_bias": True, "out_bias": True}
BEFORE: Rules = {"embedding.project.*": "project.*"}


class Reference(nn.Module):
    """A linear layer on the input, then any module of torch.nn, called as `run` says."""

    def __init__(self, run: Callable[..., Tensor], **modules: nn.Module):
        super().__init__()
        self.project = nn.Linear(D_IN, D)
        for name, module in modules.items():
            self.add_module(name, module)
        self.run = run
        randomise(self).double().eval()

    def forward(self, x: Tensor, **inputs: Any) -> Tensor:
        return self.run(self, self.project(x), **inputs)


def attention(ours: str, theirs: str) -> Rules:
    """Queries, keys and values are one matrix there."""
    return {
        **{f"{ours}.{x}_proj.*": part(f"{theirs}.in_proj_*", i, 3) for i, x in enumerate("qkv")},
        f"{ours}.o_proj.*": f"{theirs}.out_proj.*",
    }


def features(seed: int = 0, length: int = TOKENS) -> Tensor:
    return torch.randn(2, length, D_IN, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def later(length: int) -> Tensor:
    """True where torch.nn must not look: at later tokens."""
    return torch.ones(length, length, dtype=torch.bool).triu(1)


def alone(part: str, component: dict[str, Any], **top: Any) -> dict[str, Any]:
    """A model that is one component, on features."""
    spec = {"d_model": D, "embedding": FEATURES, "blocks": [{part: component, "wiring": [f"x = {part}(x)"]}]}
    return {**spec, "final_norm": False, "head": "none", **top}


@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_bidirectional_attention(bias: bool) -> None:
    theirs = Reference(
        lambda m, x, **k: m.attend(x, x, x, need_weights=False, **k)[0],
        attend=nn.MultiheadAttention(D, HEADS, bias=bias, batch_first=True),
    )
    component = {"kind": "attention", "n_heads": HEADS, "mask": "bidirectional", "qkv_bias": bias, "out_bias": bias}
    ours = built(alone("mixer", component), theirs, {**BEFORE, **attention("blocks.0.mixer", "attend")})
    x, mask = features(), padded(TOKENS, 9)
    assert_same(ours(x), theirs(x))
    assert_same(ours(x, mask=mask), theirs(x, key_padding_mask=~mask))


@torch.no_grad()
def test_causal_attention() -> None:
    theirs = Reference(
        lambda m, x: m.attend(x, x, x, need_weights=False, attn_mask=later(x.shape[1]))[0],
        attend=nn.MultiheadAttention(D, HEADS, batch_first=True),
    )
    ours = built(alone("mixer", ATTENTION), theirs, {**BEFORE, **attention("blocks.0.mixer", "attend")})
    x = features()
    assert_same(ours(x), theirs(x))
    assert_same(decoded(ours, x), theirs(x))


@torch.no_grad()
def test_cross_attention_to_a_memory_of_another_width() -> None:
    theirs = Reference(
        lambda m, x, memory, **k: m.attend(x, *[m.widen(memory)] * 2, need_weights=False, **k)[0],
        widen=nn.Linear(3, 24),
        attend=nn.MultiheadAttention(D, HEADS, kdim=24, vdim=24, batch_first=True),
    )
    # The encoder must have a layer: one that does nothing but add a row of zeros.
    encoder = {
        "d_model": 24,
        "embedding": {"kind": "features", "d_input": 3},
        "blocks": [{"mixer": "none", "ffn": {"kind": "mlp", "d_ff": 4}, "wiring": ["x = x + 0 * ffn(x)"]}],
        "final_norm": False,
    }
    decoder = {
        "memory": "encoder",
        "embedding": FEATURES,
        "blocks": [{"cross": ATTENTION, "ffn": "none", "wiring": ["x = cross(x)"]}],
        "final_norm": False,
    }
    spec = {"d_model": D, "stacks": {"encoder": encoder, "decoder": decoder}, "head": "none"}
    ours = built(
        spec,
        theirs,
        {
            "encoder.embedding.project.*": "widen.*",
            "encoder.blocks.0.ffn.up_proj.weight": Take("", lambda: torch.zeros(4, 24), 0),
            "encoder.blocks.0.ffn.down_proj.weight": Take("", lambda: torch.zeros(24, 4), 0),
            "decoder.embedding.project.*": "project.*",
            **{
                f"decoder.blocks.0.cross.{x}_proj.bias": part("attend.in_proj_bias", i, 3) for i, x in enumerate("qkv")
            },
            "decoder.blocks.0.cross.*_proj.weight": "attend.*_proj_weight",
            "decoder.blocks.0.cross.o_proj.*": "attend.out_proj.*",
        },
    )
    memory = torch.randn(2, 11, 3, dtype=torch.float64)
    x, mask = features(), padded(11, 6, length=11)
    expected = theirs(x, memory=memory, key_padding_mask=~mask)
    assert_same(ours(memory, x), theirs(x, memory=memory))
    assert_same(ours(memory, x, encoder_mask=mask), expected)
    assert_same(decoded(ours, x, memory, encoder_mask=mask), expected)
