"""Blocks of torch.nn written as specs: attention, whole encoder and decoder layers, recurrent networks."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from parity_checks import (
    TOKENS,
    VOCAB,
    Rules,
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
        widen=nn.Sequential(nn.Linear(3, 24), nn.Linear(24, 4), nn.ReLU(), nn.Linear(4, 24)),
        attend=nn.MultiheadAttention(D, HEADS, kdim=24, vdim=24, batch_first=True),
    )
    mlp = {"kind": "mlp", "d_ff": 4, "activation": "relu", "bias": True}
    encoder = {
        "d_model": 24,
        "embedding": {"kind": "features", "d_input": 3},
        "blocks": [{"ffn": mlp, "wiring": ["x = ffn(x)"]}],
        "final_norm": False,
    }
    decoder = {
        "memory": "encoder",
        "embedding": FEATURES,
        "blocks": [{"cross": ATTENTION, "wiring": ["x = cross(x)"]}],
        "final_norm": False,
    }
    spec = {"d_model": D, "stacks": {"encoder": encoder, "decoder": decoder}, "head": "none"}
    ours = built(
        spec,
        theirs,
        {
            "encoder.embedding.project.*": "widen.0.*",
            "encoder.blocks.0.ffn.up_proj.*": "widen.1.*",
            "encoder.blocks.0.ffn.down_proj.*": "widen.3.*",
            "decoder.embedding.project.*": "project.*",
            "decoder.blocks.0.cross.o_proj.*": "attend.out_proj.*",
            "decoder.blocks.0.cross.*_proj.weight": "attend.*_proj_weight",
            "decoder.blocks.0.cross.q_proj.bias": part("attend.in_proj_bias", 0, 3),
            "decoder.blocks.0.cross.k_proj.bias": part("attend.in_proj_bias", 1, 3),
            "decoder.blocks.0.cross.v_proj.bias": part("attend.in_proj_bias", 2, 3),
        },
    )
    memory = torch.randn(2, 11, 3, dtype=torch.float64)
    x, mask = features(), padded(11, 6, length=11)
    expected = theirs(x, memory=memory, key_padding_mask=~mask)
    assert_same(ours(memory, x), theirs(x, memory=memory))
    assert_same(ours(memory, x, encoder_mask=mask), expected)
    assert_same(decoded(ours, x, memory, encoder_mask=mask), expected)


def layers(ours: str, theirs: str, norms: int = 2) -> Rules:
    """The layers of an encoder or, with three norms, of a decoder."""
    cross = attention(f"{ours}.blocks.*.cross", f"{theirs}.layers.*.multihead_attn") if norms == 3 else {}
    return {
        **{f"{ours}.blocks.*.norm{n}.*": f"{theirs}.layers.*.norm{n}.*" for n in range(1, norms + 1)},
        **attention(f"{ours}.blocks.*.mixer", f"{theirs}.layers.*.self_attn"),
        **cross,
        f"{ours}.blocks.*.ffn.up_proj.*": f"{theirs}.layers.*.linear1.*",
        f"{ours}.blocks.*.ffn.down_proj.*": f"{theirs}.layers.*.linear2.*",
        f"{ours}.norm.*": f"{theirs}.norm.*",
    }


def one_stack(rules: Rules) -> Rules:
    """Names of a model with a single stack."""
    return {ours.removeprefix("model."): theirs for ours, theirs in rules.items()}


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
@torch.no_grad()
def test_encoder_layers(norm_first: bool, activation: str) -> None:
    layer = nn.TransformerEncoderLayer(D, HEADS, D_FF, 0.0, activation, 1e-5, batch_first=True, norm_first=norm_first)
    theirs = Reference(
        lambda m, x, **k: m.stack(x, **k),
        stack=nn.TransformerEncoder(layer, 2, nn.LayerNorm(D), enable_nested_tensor=False),
    )
    block = {
        "repeat": 2,
        "mixer": ATTENTION,
        "ffn": {"kind": "mlp", "d_ff": D_FF, "activation": activation, "bias": True},
        "wiring": "pre" if norm_first else "post",
    }
    spec = {"d_model": D, "mask": "bidirectional", "norm": LAYERNORM, "embedding": FEATURES, "blocks": [block]}
    rules = {**BEFORE, **one_stack(layers("model", "stack"))}
    ours = built({**spec, "final_norm": True, "head": "none"}, theirs, rules)
    x, mask = features(), padded(TOKENS, 9)
    assert_same(ours(x), theirs(x))
    assert_same(ours(x, mask=mask)[mask], theirs(x, src_key_padding_mask=~mask)[mask])


@pytest.mark.parametrize("norm_first", [False, True])
@torch.no_grad()
def test_encoder_and_decoder_layers(norm_first: bool) -> None:
    def run(m: nn.Module, x: Tensor, source: Tensor, mask: Tensor) -> Tensor:
        memory = m.encoder(m.project_source(source), src_key_padding_mask=~mask)
        return m.decoder(x, memory, tgt_mask=later(x.shape[1]), memory_key_padding_mask=~mask)

    sizes = {"dim_feedforward": D_FF, "activation": "gelu", "batch_first": True, "norm_first": norm_first}
    one, other = nn.TransformerEncoderLayer(D, HEADS, **sizes), nn.TransformerDecoderLayer(D, HEADS, **sizes)
    theirs = Reference(
        run,
        project_source=nn.Linear(D_IN, D),
        encoder=nn.TransformerEncoder(one, 2, nn.LayerNorm(D), enable_nested_tensor=False),
        decoder=nn.TransformerDecoder(other, 3, nn.LayerNorm(D)),
    )
    mlp = {"kind": "mlp", "d_ff": D_FF, "activation": "gelu", "bias": True}
    stack = {"embedding": FEATURES, "final_norm": True}
    encoder = {**stack, "mask": "bidirectional", "blocks": [{"repeat": 2, "mixer": ATTENTION, "ffn": mlp}]}
    block = {"repeat": 3, "mixer": ATTENTION, "cross": ATTENTION, "ffn": mlp}
    decoder = {**stack, "memory": "encoder", "blocks": [block]}
    ours = built(
        {
            "d_model": D,
            "norm": LAYERNORM,
            "wiring": "pre" if norm_first else "post",
            "stacks": {"encoder": encoder, "decoder": decoder},
            "head": "none",
        },
        theirs,
        {
            "encoder.embedding.project.*": "project_source.*",
            "decoder.embedding.project.*": "project.*",
            **layers("encoder", "encoder"),
            **layers("decoder", "decoder", 3),
        },
    )
    source, target, mask = features(), features(1, 12), padded(TOKENS, 9)
    expected = theirs(target, source=source, mask=mask)
    assert_same(ours(source, target, encoder_mask=mask), expected)
    assert_same(decoded(ours, target, source, encoder_mask=mask), expected)


RECURRENT = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", RECURRENT)
@torch.no_grad()
def test_recurrent_networks(kind: str, bidirectional: bool) -> None:
    net = RECURRENT[kind](D, 24, num_layers=2, batch_first=True, bidirectional=bidirectional)
    theirs = Reference(lambda m, x: m.out(m.net(x)[0]), net=net, out=nn.Linear(48 if bidirectional else 24, D))
    component = {"kind": kind, "d_hidden": 24, "depth": 2, "bidirectional": bidirectional}
    rules = {**BEFORE, "blocks.0.mixer.out_proj.*": "out.*", f"blocks.0.mixer.{kind}.*": "net.*"}
    ours = built(alone("mixer", component), theirs, rules)
    x = features()
    assert_same(ours(x), theirs(x))
    if not bidirectional:
        assert_same(decoded(ours, x), theirs(x))


class Tokens(nn.Module):
    """A table of tokens, any module of torch.nn, and logits."""

    def __init__(self, run: Callable[..., Tensor], tied: bool = False, **modules: nn.Module):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, D)
        for name, module in modules.items():
            self.add_module(name, module)
        self.out = nn.Linear(D, VOCAB, bias=not tied)
        self.run = run
        randomise(self).double().eval()
        if tied:
            self.out.weight = self.embed.weight

    def forward(self, *inputs: Tensor, **more: Any) -> Tensor:
        return self.out(self.run(self, *inputs, **more))


@torch.no_grad()
def test_published_lstm_language_model() -> None:
    theirs = Tokens(lambda m, x: m.net(m.embed(x))[0], net=nn.LSTM(D, D, 2, batch_first=True))
    rules: Rules = {
        "embedding.token.weight": "embed.weight",
        **{f"blocks.{i}.mixer.lstm.*_l0": f"net.*_l{i}" for i in range(2)},
        "head.proj.*": "out.*",
    }
    ours = built("lstm_lm", theirs, rules, (f"d_model={D}", f"vocab_size={VOCAB}"))
    assert_same(ours(tokens()), theirs(tokens()))
    assert_same(decoded(ours, tokens()), theirs(tokens()))


def without_biases(model: nn.Module) -> tuple[str, ...]:
    """Set the biases of all attentions to zero; their names."""
    names = [n for n, _ in model.named_parameters() if "attn" in n and n.endswith("bias")]
    for name in names:
        nn.init.zeros_(model.get_parameter(name))
    return tuple(names)


@torch.no_grad()
def test_published_teaching_bert() -> None:
    layer = nn.TransformerEncoderLayer(D, HEADS, 2 * D, 0.0, "gelu", 1e-5, batch_first=True)
    theirs = Tokens(
        lambda m, x, **k: m.stack(m.embed(x) + m.position_embed.weight[: x.shape[1]], **k),
        position_embed=nn.Embedding(20, D),
        stack=nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
    )
    rules: Rules = {
        "embedding.token.weight": "embed.weight",
        "embedding.position.table.weight": "position_embed.weight",
        **one_stack(layers("model", "stack")),
        "head.proj.*": "out.*",
    }
    settings = (f"d_model={D}", f"vocab_size={VOCAB}", "max_seq_len=20", f"blocks[0].mixer.n_heads={HEADS}")
    ours = built("bert_tiny", theirs, rules, settings, without_biases(theirs))
    x, mask = tokens(), padded(TOKENS, 9)
    assert_same(ours(x, mask=mask)[mask], theirs(x, src_key_padding_mask=~mask)[mask])


def sinusoids(length: int) -> Tensor:
    """Sines, then cosines, of wavelengths from 2 pi to 10000 * 2 pi, both ends included."""
    angles = torch.arange(length).unsqueeze(1) / torch.logspace(0, 4, D // 2, dtype=torch.float64)
    return torch.cat((angles.sin(), angles.cos()), dim=1)


@torch.no_grad()
def test_published_original_transformer() -> None:
    def run(m: nn.Module, source: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        source, target = (m.embed(x) * D**0.5 + sinusoids(x.shape[1]) for x in (source, target))
        memory = m.encoder(source, src_key_padding_mask=~mask)
        return m.decoder(target, memory, tgt_mask=later(target.shape[1]), memory_key_padding_mask=~mask)

    sizes = {"dim_feedforward": 4 * D, "dropout": 0.0, "layer_norm_eps": 1e-6, "batch_first": True}
    theirs = Tokens(
        run,
        tied=True,
        encoder=nn.TransformerEncoder(nn.TransformerEncoderLayer(D, HEADS, **sizes), 2, enable_nested_tensor=False),
        decoder=nn.TransformerDecoder(nn.TransformerDecoderLayer(D, HEADS, **sizes), 2),
    )
    rules: Rules = {
        "encoder.embedding.token.weight": "embed.weight",
        **layers("encoder", "encoder"),
        **layers("decoder", "decoder", 3),
    }
    settings = (
        f"d_model={D}",
        f"vocab_size={VOCAB}",
        f"define.enc.mixer.n_heads={HEADS}",
        f"define.dec.cross.n_heads={HEADS}",
        "stacks.encoder.blocks=enc x2",
        "stacks.decoder.blocks=dec x2",
    )
    ours = built("transformer_base", theirs, rules, settings, without_biases(theirs))
    source, target, mask = tokens(), tokens(2, 13), padded(TOKENS, 9)
    expected = theirs(source, target, mask=mask)
    assert_same(ours(source, target, encoder_mask=mask), expected)
    assert_same(decoded(ours, target, source, encoder_mask=mask), expected)
