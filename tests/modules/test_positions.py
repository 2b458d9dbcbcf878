import math

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, T5Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.glm.modeling_glm import apply_rotary_pos_emb as apply_interleaved
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb
from transformers.models.t5.modeling_t5 import T5Attention

from archspec.errors import SpecError
from archspec.language.resolve import make
from archspec.modules import submodule

SHORT, LONG = [1.0, 1.0, 1.1, 1.5, 2.0, 2.5, 3.0, 4.0], [1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 7.0, 8.0]
SCALINGS = {
    "linear": ({"factor": 4.0}, {}),
    "dynamic": ({"factor": 4.0, "original_max_seq_len": 64}, {}),
    "yarn": ({"factor": 8.0, "original_max_seq_len": 64}, {"original_max_position_embeddings": 64}),
    "yarn-deepseek": (
        {"factor": 8.0, "original_max_seq_len": 64, "mscale": 0.707, "mscale_all_dim": 1.0, "beta_fast": 16.0},
        {"original_max_position_embeddings": 64},
    ),
    "yarn-gpt-oss": (
        {"factor": 8.0, "original_max_seq_len": 64, "truncate": False, "beta_slow": 2.0, "attention_factor": 1.5},
        {"original_max_position_embeddings": 64},
    ),
    "llama3": (
        {"factor": 8.0, "original_max_seq_len": 32, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
        {"original_max_position_embeddings": 32},
    ),
    "longrope": (
        {"original_max_seq_len": 32, "short_factor": SHORT, "long_factor": LONG},
        {"original_max_position_embeddings": 32, "factor": 2.0},
    ),
    "proportional": ({"fraction": 0.5, "factor": 2.0}, {"partial_rotary_factor": 0.5}),
}


def rope(max_seq_len: int = 64, head_dim: int = 16, **fields: object) -> nn.Module:
    return submodule(make("position", {"kind": "rope", **fields}, head_dim=head_dim, max_seq_len=max_seq_len))


def heads(T: int, head_dim: int = 16, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, 4, T, head_dim, dtype=dtype), torch.randn(2, 2, T, head_dim, dtype=dtype)


def theirs(rope_type: str, parameters: dict, theta: float, length: int = 64) -> LlamaConfig:
    rope_parameters = {"rope_type": rope_type, "rope_theta": theta, **parameters}
    return LlamaConfig(
        hidden_size=64,
        num_attention_heads=4,
        head_dim=16,
        max_position_embeddings=length,
        rope_parameters=rope_parameters,
    )


def hugging_face(
    config: LlamaConfig, q: torch.Tensor, k: torch.Tensor, start: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    positions = torch.arange(start, start + q.shape[2])[None]
    cos, sin = LlamaRotaryEmbedding(config)(q, positions)
    return apply_rotary_pos_emb(q, k, cos, sin)


@pytest.mark.parametrize("start", [0, 7])
def test_rope_is_llamas(start):
    q, k = heads(9)
    for ours, wanted in zip(
        rope(theta=500.0)(q, k, start), hugging_face(theirs("default", {}, 500.0), q, k, start), strict=True
    ):
        assert torch.equal(ours, wanted)


@pytest.mark.parametrize("T", [20, 64, 100])
@pytest.mark.parametrize("name", SCALINGS)
def test_scaled_rope_is_hugging_faces(name, T):
    kind = name.partition("-")[0]
    fields, parameters = SCALINGS[name]
    shared = {k: v for k, v in fields.items() if k not in ("original_max_seq_len", "fraction")}
    q, k = heads(T)
    ours = rope(theta=1000.0, scaling={"kind": kind, **fields})(q, k)
    config = theirs(kind, shared | parameters, 1000.0)
    for found, wanted in zip(ours, hugging_face(config, q, k), strict=True):
        torch.testing.assert_close(found, wanted, atol=3e-5, rtol=1e-5)


@pytest.mark.parametrize("name", SCALINGS)
def test_frequencies_and_factors_are_those_of_rope_init_functions(name):
    kind = name.partition("-")[0]
    fields, parameters = SCALINGS[name]
    shared = {k: v for k, v in fields.items() if k not in ("original_max_seq_len", "fraction")}
    module = rope(theta=1000.0, scaling={"kind": kind, **fields})
    wanted, factor = ROPE_INIT_FUNCTIONS[kind](theirs(kind, shared | parameters, 1000.0), seq_len=None)
    found = module.bits.view(torch.float32)
    torch.testing.assert_close(found[0] if kind == "longrope" else found, wanted, rtol=5e-7, atol=0)
    assert module.c.attention_factor == pytest.approx(factor, rel=1e-12)


def test_dynamic_scaling_decodes_as_hugging_face_does():
    config = theirs("dynamic", {"factor": 4.0}, 1000.0, length=8)
    rotary, ours = LlamaRotaryEmbedding(config), rope(8, theta=1000.0, scaling={"kind": "dynamic", "factor": 4.0})
    for t in range(20):
        q, k = heads(1)
        wanted = apply_rotary_pos_emb(q, k, *rotary(q, torch.tensor([[t]])))
        torch.testing.assert_close(ours(q, k, t), wanted, atol=1e-5, rtol=1e-5)


def test_interleaved_and_partial_rope_is_glms():
    q, k = heads(9)
    config = LlamaConfig(hidden_size=32, num_attention_heads=4, head_dim=8)
    cos, sin = LlamaRotaryEmbedding(config)(q, torch.arange(9)[None])
    wanted = apply_interleaved(q, k, cos, sin)
    torch.testing.assert_close(rope(interleaved=True, fraction=0.5)(q, k), wanted, atol=1e-6, rtol=1e-6)


def test_ntk_is_a_larger_base():
    q, k = heads(9)
    ours = rope(theta=100.0, scaling={"kind": "ntk", "factor": 3.0})(q, k)
    wanted = rope(theta=100.0 * 3.0 ** (16 / 14))(q, k)
    torch.testing.assert_close(ours, wanted)


def test_deepseeks_factors():
    def m(s: float) -> float:
        return 0.1 * s * math.log(40) + 1

    fields = {"kind": "yarn", "factor": 40.0, "original_max_seq_len": 4096, "mscale": 1.0, "mscale_all_dim": 0.5}
    c = rope(scaling=fields).c
    assert c.attention_factor == pytest.approx(m(1.0) / m(0.5))
    assert c.score_factor == pytest.approx(m(0.5) ** 2)
    assert rope().c.score_factor == rope().c.attention_factor == 1.0


def test_scores_depend_on_distance_alone():
    q, k = heads(1, dtype=torch.float64)
    for module in (rope(), rope(interleaved=True), rope(scaling={"kind": "linear", "factor": 2.0})):
        scores = [module(q, q, t + 5)[0][:, :2] * module(k, k, t)[1] for t in (0, 3, 50)]
        for s in scores[1:]:
            torch.testing.assert_close(s.sum(-1), scores[0].sum(-1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("scaling", [None, {"kind": "yarn", "factor": 4.0, "original_max_seq_len": 16}])
def test_one_by_one_is_all_at_once(scaling):
    module, (q, k) = rope(scaling=scaling), heads(10, dtype=torch.float64)
    steps = [module(q[:, :, t : t + 1], k[:, :, t : t + 1], t) for t in range(10)]
    for i, whole in enumerate(module(q, k)):
        assert torch.equal(torch.cat([s[i] for s in steps], dim=2), whole)


def test_casting_the_model_leaves_frequencies_exact():
    q, k = heads(50)
    module = rope()
    wanted = module(q, k)
    for found, w in zip(module.bfloat16()(q, k), wanted, strict=True):
        assert torch.equal(found, w)
    assert module(q.bfloat16(), k.bfloat16())[0].dtype == torch.bfloat16
    assert module.double()(q.double(), k.double())[0].dtype == torch.float64
    assert not module.state_dict()


@pytest.mark.parametrize("kind", ["rope", "alibi"])
def test_built_on_meta(kind):
    c = make("position", kind, head_dim=16, n_heads=6, max_seq_len=64)
    with torch.device("meta"):
        module = submodule(c)
    module = module.to_empty(device="cpu")
    assert torch.equal(module.bits, submodule(c).bits)


@pytest.mark.parametrize("scaling", [None, *({"kind": n.partition("-")[0], **f} for n, (f, _) in SCALINGS.items())])
def test_compiles(scaling):
    module, (q, k) = rope(scaling=scaling), heads(9)
    torch._dynamo.reset()  # every scaling is another graph of the same forward
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(q, k, 3), module(q, k, 3))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fraction": 0.3}, "fraction = 0.3 of head_dim = 16 is 5 rotated channels"),
        ({"theta": 1.0}, "theta = 1.0 must be a number above 1"),
        ({"fraction": 0.125, "scaling": {"kind": "ntk", "factor": 2.0}}, "needs at least 4 rotated channels, found 2"),
        (
            {
                "scaling": {
                    "kind": "longrope",
                    "original_max_seq_len": 32,
                    "short_factor": SHORT,
                    "long_factor": LONG[:3],
                }
            },
            "scaling.long_factor has 3 numbers; it needs one for each pair of rotated channels, 8",
        ),
        (
            {"scaling": {"kind": "yarn", "original_max_seq_len": 32, "mscale": 1.0}},
            "mscale and mscale_all_dim go together",
        ),
        (
            {"scaling": {"kind": "yarn", "original_max_seq_len": 6}},
            "original_max_seq_len = 6 must be above 2 pi beta_slow = 6.3",
        ),
        (
            {"scaling": {"kind": "llama3", "factor": 2.0, "original_max_seq_len": 32, "low_freq_factor": 5.0}},
            "high_freq_factor = 4 must be above low_freq_factor = 5",
        ),
    ],
)
def test_what_a_rope_refuses(fields, message):
    with pytest.raises(SpecError) as error:
        rope(**fields)
    assert message in str(error.value)


@pytest.mark.parametrize("n_heads", [1, 4, 6, 12])
def test_alibi_is_blooms(n_heads):
    module = submodule(make("position", "alibi", n_heads=n_heads))
    wanted = build_alibi_tensor(torch.ones(1, 2), n_heads, torch.float32)[:, 0, 1]  # the bias at distance 1
    slopes = module()
    torch.testing.assert_close(slopes, wanted, rtol=2e-7, atol=0)
    assert torch.equal(module.bfloat16()(), slopes)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_t5_bias_is_hugging_faces(bidirectional):
    fields = {"kind": "t5", "n_buckets": 8, "max_distance": 20, "bidirectional": bidirectional}
    c = make("position", fields, n_heads=3)
    ours = submodule(c)
    config = T5Config(
        relative_attention_num_buckets=8,
        relative_attention_max_distance=20,
        num_heads=3,
        d_kv=4,
        d_model=12,
        is_decoder=not bidirectional,
    )
    attention = T5Attention(config, has_relative_attention_bias=True, layer_idx=0)
    attention.relative_attention_bias.weight.data = ours.table.weight.data
    for T, S in ((30, 30), (1, 30), (4, 30)):
        wanted = attention.compute_bias(S, S)[:, :, -T:]
        assert torch.equal(ours(torch.zeros(1, T, 12), state={"seen": S - T}), wanted)
    assert [(p.name, p.shape) for p in c.ops()[0].params] == [("table.weight", (8, 3))]


def test_what_t5_refuses():
    with pytest.raises(SpecError, match="n_buckets = 6 must be a multiple of 4 when bidirectional"):
        make("position", {"kind": "t5", "n_buckets": 6, "bidirectional": True}, n_heads=3)
    with pytest.raises(SpecError, match="max_distance = 16 must be above 16"):
        make("position", {"kind": "t5", "max_distance": 16}, n_heads=3)
