"""Multi-head latent attention against transformers' DeepSeek-V2 and V3, and its absorbed form against the expanded."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import DeepseekV2Config, DeepseekV3Config
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2Attention, DeepseekV2RotaryEmbedding
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention, DeepseekV3RotaryEmbedding

from archspec.errors import SpecError
from archspec.language.resolve import make
from archspec.layers.ops import Run
from archspec.layers.registry import find
from archspec.modules import submodule

EXAMPLES = find("mixer", "mla").examples
BASE = {"n_heads": 4, "kv_lora_rank": 8, "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 5}
ROPE = {"kind": "rope", "interleaved": True}
YARN = {"kind": "yarn", "factor": 8.0, "original_max_seq_len": 16, "mscale": 1.0, "mscale_all_dim": 0.7}
PAIRS = {
    "v2": (DeepseekV2Config, DeepseekV2Attention, DeepseekV2RotaryEmbedding),
    "v3": (DeepseekV3Config, DeepseekV3Attention, DeepseekV3RotaryEmbedding),
}
NAMES = {"kv_a_proj_with_mqa": "kv_a_proj", "q_a_layernorm": "q_a_norm", "kv_a_layernorm": "kv_a_norm"}


def config(**fields: Any) -> Any:
    return make("mixer", {"kind": "mla", **BASE, **fields}, d_model=16, max_seq_len=32)


def module(**fields: Any) -> Any:
    torch.manual_seed(0)
    return submodule(config(**fields)).double().eval()


def tokens(T: int = 7, B: int = 2) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(B, T, 16, dtype=torch.double)


def theirs(version: str, q_lora_rank: int | None, bias: bool, yarn: bool) -> Any:
    """A float32 attention layer of transformers with random weights, and its table of rotations."""
    make_config, attention, rotary = PAIRS[version]
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0}
    if yarn:
        rope |= {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16}
        rope |= {"mscale": 1.0, "mscale_all_dim": 0.7, "beta_fast": 32, "beta_slow": 1}
    hf_config = make_config(
        hidden_size=16,
        num_attention_heads=4,
        num_key_value_heads=4,
        q_lora_rank=q_lora_rank,
        kv_lora_rank=8,
        qk_nope_head_dim=6,
        qk_rope_head_dim=4,
        v_head_dim=5,
        attention_bias=bias,
        max_position_embeddings=128,
        rope_parameters=rope,
        attn_implementation="eager",
    )
    torch.manual_seed(2)
    layer = attention(hf_config, 0).eval()
    for p in layer.parameters():
        nn.init.normal_(p, std=0.5)
    return layer, rotary(hf_config)


@pytest.mark.parametrize("version", PAIRS)
@pytest.mark.parametrize(
    ("q_lora_rank", "bias", "yarn"), [(None, False, False), (12, True, False), (12, False, True)], ids=str
)
def test_is_deepseeks(version: str, q_lora_rank: int | None, bias: bool, yarn: bool) -> None:
    hf, rotary = theirs(version, q_lora_rank, bias, yarn)
    m = module(q_lora_rank=q_lora_rank, bias=bias, position=ROPE | ({"scaling": YARN} if yarn else {})).float()
    renamed = {".".join(NAMES.get(part, part) for part in n.split(".")): w for n, w in hf.state_dict().items()}
    m.load_state_dict(renamed)
    x = tokens(20).float()
    mask = torch.full((20, 20), -torch.inf).triu(1)
    table = rotary(x, torch.arange(20).unsqueeze(0))
    expected = hf(x, position_embeddings=table, attention_mask=mask[None, None])[0]
    torch.testing.assert_close(m(x), expected, rtol=1e-5, atol=1e-5)
    state: dict[str, Any] = {}
    decoded = torch.cat([m(t, state) for t in x.split(1, dim=1)], dim=1)
    torch.testing.assert_close(decoded, expected, rtol=1e-5, atol=2e-5)


def test_yarn_corrects_the_scale_of_the_softmax() -> None:
    c = config(position=ROPE | {"scaling": YARN})
    mscale = 0.1 * 0.7 * math.log(8.0) + 1.0
    assert c.softmax_scale == pytest.approx(10**-0.5 * mscale**2, rel=1e-12)
    assert config(position=ROPE).softmax_scale == 10**-0.5
    assert config(scale=0.5).softmax_scale == 0.5


@pytest.mark.parametrize("fields", EXAMPLES, ids=range(len(EXAMPLES)))
@pytest.mark.parametrize("pieces", [(1,) * 9, (4, 5), (1, 7, 1)])
def test_absorbed_is_expanded(fields: dict[str, Any], pieces: tuple[int, ...]) -> None:
    m, x = module(**fields), tokens(9)
    whole = m(x)
    state: dict[str, Any] = {}
    parts = torch.cat([m(piece, state) for piece in x.split(pieces, dim=1)], dim=1)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-10)
    with torch.no_grad():
        state = {}
        parts = torch.cat([m(piece, state) for piece in x.split(pieces, dim=1)], dim=1)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-10)


def test_absorbed_has_the_gradients_of_expanded() -> None:
    m, x = module(position=ROPE), tokens(6)
    state: dict[str, Any] = {}
    parts = torch.cat([m(piece, state) for piece in x.split((3, 3), dim=1)], dim=1)
    g = torch.randn_like(parts)
    for a, b in zip(*(torch.autograd.grad(y, list(m.parameters()), g) for y in (m(x), parts)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_the_state_holds_only_latents() -> None:
    m, x = module(position=ROPE), tokens(9)
    with torch.no_grad():
        state: dict[str, Any] = {}
        for t in x.split(1, dim=1):
            m(t, state)
    tensors = {k: v for k, v in state.items() if isinstance(v, Tensor)}
    per_token = sum(t.shape[1] * t.shape[3] for t in tensors.values())
    assert per_token == sum(k.per_token() for op in m.c.ops() for k in op.kept) == 8 + 4
    calls = []
    m.kv_b_proj.register_forward_hook(lambda *_: calls.append(1))
    m(tokens(1), state)
    assert not calls  # keys and values of earlier tokens are never made


def test_is_its_equation() -> None:
    """Head by head in float64, without a position."""
    m, x = module(q_lora_rank=12), tokens(6, 1)
    q = m.q_b_proj(m.q_a_norm(m.q_a_proj(x)))[0].view(6, 4, 10)
    latent, k_rope = m.kv_a_proj(x)[0].split((8, 4), dim=-1)
    kv = m.kv_b_proj(m.kv_a_norm(latent)).view(6, 4, 11)
    heads = []
    for h in range(4):
        k = torch.cat((kv[:, h, :6], k_rope), dim=-1)
        scores = (q[:, h] @ k.T / math.sqrt(10)).masked_fill(torch.ones(6, 6).triu(1).bool(), -torch.inf)
        heads.append(scores.softmax(-1) @ kv[:, h, 6:])
    torch.testing.assert_close(m(x)[0], m.o_proj(torch.cat(heads, dim=-1)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("fields", EXAMPLES, ids=range(len(EXAMPLES)))
def test_ops_are_the_module(fields: dict[str, Any]) -> None:
    c = config(**fields)
    with torch.device("meta"):
        m = submodule(c).eval()
    assert [(p.name, p.shape) for op in c.ops() for p in op.params] == [
        (n, tuple(p.shape)) for n, p in m.named_parameters()
    ]
    names = ["x"]
    for op in c.ops():
        assert set(op.inputs) <= set(names)
        names.append(op.name)


@pytest.mark.parametrize(("seen", "T"), [(0, 9), (0, 1), (8, 1), (5, 3)])
def test_flops_are_those_of_the_form_that_runs(seen: int, T: int) -> None:
    m = module(position=ROPE)
    state: dict[str, Any] = {}
    with torch.no_grad(), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        if seen:
            m(tokens(seen), state)
        with FlopCounterMode(display=False) as counter:
            m(tokens(T), state)
    assert sum(op.flops(Run(B=2, T=T, S=seen + T)) for op in m.c.ops()) == counter.get_total_flops()


def test_dropout_is_that_of_the_probabilities() -> None:
    m, x = module(dropout=0.5), tokens(1, 1)
    whole = m.eval()(x)
    many = m.train()(x.expand(4000, 1, 16)).detach()
    torch.testing.assert_close(many.mean(0), whole[0], rtol=0, atol=0.1)
    assert (many - many[0]).abs().max() > 0.01


def test_compiles() -> None:
    m, x = module(position=ROPE, q_lora_rank=12), tokens()
    torch.testing.assert_close(torch.compile(m, fullgraph=True)(x), m(x))


def test_refuses() -> None:
    with pytest.raises(SpecError, match="head_dim = 8 must be qk_rope_head_dim = 4"):
        config(head_dim=8)
    with pytest.raises(SpecError, match="'alibi' does not rotate"):
        config(position="alibi")
    with pytest.raises(SpecError, match="needs kv_lora_rank"):
        make("mixer", {"kind": "mla", "n_heads": 2, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4}, d_model=16)
