"""Keys and values that layers share: YOCO by its equations in float64, Gemma 3n by the library's own attention."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import archspec
from archspec.modules.model import eager

TOKENS = torch.randint(0, 23, (2, 19), generator=torch.Generator().manual_seed(0))
SELF = {"kind": "attention", "n_heads": 4, "n_kv_heads": 2, "window": 5}
CROSS = {"kind": "attention", "n_heads": 4, "n_kv_heads": 2}
FFN = {"kind": "gated_mlp", "d_ff": 24, "activation": "silu"}
GIVES, READS = {"k": "mixer.keys", "v": "mixer.values"}, {"mixer.keys": "k", "mixer.values": "v"}
YOCO = {
    "name": "yoco",
    "d_model": 16,
    "vocab_size": 23,
    "define": {
        "local": {"mixer": SELF, "ffn": FFN},
        "first": {"mixer": CROSS, "ffn": FFN, "gives": GIVES},
        "later": {"mixer": CROSS, "ffn": FFN, "reads": READS},
    },
    "blocks": "local x2 first later x2",
    "head": {"kind": "lm", "tied": True},
}


def redrawn(model: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for p in model.parameters():
        nn.init.normal_(p, std=0.4 if p.dim() > 1 else 1.0)
    return model.double().eval()


def norm(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    """One query of one head at a time, as the equation has it."""
    _, T, H, d = q.shape
    y = torch.zeros_like(q)
    for t in range(T):
        first = 0 if window is None else max(0, t - window + 1)
        for h in range(H):
            at = h // (H // k.shape[2])
            scores = torch.einsum("bd,bsd->bs", q[:, t, h], k[:, first : t + 1, at]) / math.sqrt(d)
            y[:, t, h] = torch.einsum("bs,bsd->bd", scores.softmax(-1), v[:, first : t + 1, at])
    return y.flatten(2)


def yoco(w: dict[str, Tensor], tokens: Tensor) -> Tensor:
    """Sun et al. 2024 (arXiv:2405.05254), section 2: a self-decoder with windows, one K and V of its output for all
    layers of the cross-decoder, SwiGLU after each."""
    x = w["embedding.token.weight"][tokens]
    keys = values = torch.empty(0)
    for i in range(5):
        own = {name.removeprefix(f"blocks.{i}."): p for name, p in w.items() if name.startswith(f"blocks.{i}.")}
        h = norm(x, own["norm1.weight"])
        q = (h @ own["mixer.q_proj.weight"].T).unflatten(-1, (4, 4))
        if i <= 2:  # those of layer 2, whose input is what the self-decoder gives, serve all after it
            keys = (h @ own["mixer.k_proj.weight"].T).unflatten(-1, (2, 4))
            values = (h @ own["mixer.v_proj.weight"].T).unflatten(-1, (2, 4))
        x = x + softmax_attention(q, keys, values, 5 if i < 2 else None) @ own["mixer.o_proj.weight"].T
        h = norm(x, own["norm2.weight"])
        gate = torch.nn.functional.silu(h @ own["ffn.gate_proj.weight"].T)
        x = x + (gate * (h @ own["ffn.up_proj.weight"].T)) @ own["ffn.down_proj.weight"].T
    return norm(x, w["norm.weight"]) @ w["embedding.token.weight"].T


def test_yoco_is_its_equations() -> None:
    spec = archspec.load(YOCO)
    model = redrawn(archspec.build(spec))
    expected = yoco(dict(model.state_dict()), TOKENS)
    torch.testing.assert_close(model(TOKENS), expected, rtol=1e-11, atol=1e-11)
    state: dict[str, Any] = {}
    pieces = [model(piece, state=state) for piece in TOKENS.split([7, 1, 1, 10], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), expected, rtol=1e-11, atol=1e-11)
    layers = [layer for key, layer in state.items() if str(key).isdigit()]
    assert ["k" in layer.get("mixer", {}) for layer in layers] == [True, True, True, False, False]


def test_yoco_keeps_one_cache_that_grows() -> None:
    """Their claim: O((N + L) D) memory, where N tokens are kept once and windows by each layer."""
    held = [archspec.count(archspec.load(YOCO), seq=n).cache_bytes or 0 for n in (1000, 1001)]
    assert held[1] - held[0] == 2 * 2 * 2 * 4  # keys and values of 2 heads of 4, at 2 bytes, of one layer


@pytest.mark.parametrize("standalone", ["plain", "fast"])
def test_standalone_files_give_the_same(standalone: str) -> None:
    spec = archspec.load(YOCO)
    model = redrawn(archspec.build(spec))
    names: dict[str, Any] = {}
    exec(compile(archspec.generate(spec, standalone=standalone), "yoco.py", "exec"), names)  # type: ignore[arg-type]
    alone = names["Model"]().double().eval()
    alone.load_state_dict(model.state_dict())
    torch.testing.assert_close(alone(TOKENS), model(TOKENS), rtol=1e-11, atol=1e-11)


def test_every_check_of_verify_holds() -> None:
    report = archspec.verify(archspec.load(YOCO))
    assert report.passed, str(report)


# Gemma 3n: the last local and the last global layer before the shared ones give keys and values to all of their kind

TYPES = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
GEMMA = {"kind": "attention", "n_heads": 4, "n_kv_heads": 2, "head_dim": 8, "qk_norm": "head", "scale": 1.0}


def gemma_layer(local: bool, **links: Any) -> dict[str, Any]:
    position = {"kind": "rope", "theta": 10_000.0 if local else 1_000_000.0}
    mixer = {**GEMMA, "position": position, **({"window": 6} if local else {})}
    return {"mixer": mixer, "wiring": "none", **links}


def test_gemma3n_shares_as_the_library_does() -> None:
    """Layer by layer in the library's own attention; its norm of values, which has no weight, is left out of both."""
    transformers = pytest.importorskip("transformers")
    from transformers.models.gemma3n import modeling_gemma3n as theirs

    names = {True: {"mixer.keys": "lk", "mixer.values": "lv"}, False: {"mixer.keys": "gk", "mixer.values": "gv"}}
    blocks = [gemma_layer(local, gives={v: k for k, v in names[local].items()}) for local in (True, False)]
    blocks += [gemma_layer(local, reads=names[local]) for local in (True, False)]
    spec = archspec.load({"name": "g", "d_model": 32, "vocab_size": 23, "blocks": blocks, "final_norm": False})
    model = redrawn(eager(spec))
    config = transformers.Gemma3nTextConfig(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=8, vocab_size=23,
        num_kv_shared_layers=2, layer_types=TYPES, sliding_window=6, attn_implementation="eager",
        intermediate_size=[16] * 4, activation_sparsity_pattern=[0.0] * 4,
    )  # fmt: skip
    layers = [theirs.Gemma3nTextAttention(config, i).double().eval() for i in range(4)]
    x = model.embedding(TOKENS)  # type: ignore[operator]
    shared: dict[str, Any] = {}
    T = TOKENS.shape[1]
    back = torch.arange(T)[:, None] - torch.arange(T)
    for i, layer in enumerate(layers):
        local = TYPES[i] == "sliding_attention"
        own = dict(model.blocks[i].mixer.state_dict())  # type: ignore[index, union-attr]
        layer.v_norm = nn.Identity()
        missing, unexpected = layer.load_state_dict(own, strict=False)
        assert not unexpected
        assert not missing
        turn = torch.arange(4, dtype=torch.float64)
        angle = torch.arange(T)[:, None] * (10_000.0 if local else 1_000_000.0) ** (-turn / 4)
        angle = torch.cat((angle, angle), dim=-1)[None]
        seen = (back >= 0) & ((back < 6) | (not local))
        hidden = torch.zeros(T, T, dtype=torch.float64).masked_fill(~seen, -torch.inf)
        x = x + layer(x, (angle.cos(), angle.sin()), hidden[None, None], shared_kv_states=shared)[0]
    near = 2e-6 * float(x.abs().max())  # their norms and angles are float32
    torch.testing.assert_close(model(TOKENS), x, rtol=0, atol=near)
    state: dict[str, Any] = {}
    pieces = [model(piece, state=state) for piece in TOKENS.split([7, 1, 1, 10], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), x, rtol=0, atol=near)
