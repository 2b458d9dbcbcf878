import pytest
import torch
from kernel_checks import assert_close, check, compiles, normal

from archspec.kernels import rope


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(("T", "R"), [(1, 4), (63, 3), (100, 1)])
def test_rotate(T, R, interleaved):
    positions, inv_freq = torch.arange(5, 5 + T), rope.default_frequencies(2 * R, 10000.0)
    cos, sin = ((positions.double()[:, None] * inv_freq.double()).cos(), (positions[:, None] * inv_freq.double()).sin())

    def naive(x):
        return rope.reference(x, positions, inv_freq, interleaved)

    check(lambda x: rope.rotate(x, cos, sin, interleaved), naive, [normal(2, 3, T, 8)])
    cos32, sin32 = rope.rope_tables(positions, inv_freq)
    assert_close(
        "tables", rope.rotate(torch.ones(1, 1, T, 8), cos32, sin32, interleaved), naive(torch.ones(1, 1, T, 8)), 2e-5
    )


def test_positions_may_differ_between_sequences():
    x, inv_freq = normal(2, 3, 7, 8), rope.default_frequencies(8, 100.0)
    positions = torch.stack((torch.arange(7), torch.arange(4, 11)))
    y = rope.rotate(x, *rope.rope_tables(positions, inv_freq))
    for b in range(2):
        assert torch.equal(y[b : b + 1], rope.rotate(x[b : b + 1], *rope.rope_tables(positions[b], inv_freq)))


def test_layouts_are_permutations_of_each_other():
    x = normal(1, 1, 9, 8)
    cos, sin = rope.rope_tables(torch.arange(9), rope.default_frequencies(8, 100.0))
    order = torch.tensor([0, 2, 4, 6, 1, 3, 5, 7])
    assert torch.equal(rope.rotate(x, cos, sin, True)[..., order], rope.rotate(x[..., order], cos, sin))


def test_rotate_is_that_of_llama_to_the_bit():
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    x = torch.randn(2, 3, 11, 16)
    cos, sin = rope.rope_tables(torch.arange(11), rope.default_frequencies(16, 10000.0))
    wanted, _ = llama.apply_rotary_pos_emb(x, x, torch.cat((cos, cos), -1)[None], torch.cat((sin, sin), -1)[None])
    assert torch.equal(rope.rotate(x, cos, sin), wanted)


DIM, THETA, LENGTH, ORIGINAL = 64, 500000.0, 4096, 1024
SHORT, LONG = [1.0 + 0.01 * i for i in range(DIM // 2)], [1.0 + i for i in range(DIM // 2)]
YARN = {"factor": 4.0, "original_max_position_embeddings": ORIGINAL}
CASES = [
    ("linear", {"factor": 4.0}, None, rope.linear_frequencies(DIM, THETA, 4.0), 1.0),
    ("dynamic", {"factor": 4.0}, 10000, rope.dynamic_frequencies(DIM, THETA, 4.0, LENGTH, 10000), 1.0),
    ("dynamic", {"factor": 4.0}, 100, rope.dynamic_frequencies(DIM, THETA, 4.0, LENGTH, 100), 1.0),
    ("yarn", YARN, None, rope.yarn_frequencies(DIM, THETA, 4.0, ORIGINAL), rope.yarn_attention_factor(4.0)),
    (
        "yarn",
        {**YARN, "beta_fast": 16, "beta_slow": 2, "truncate": False, "mscale": 0.7, "mscale_all_dim": 1.3},
        None,
        rope.yarn_frequencies(DIM, THETA, 4.0, ORIGINAL, 16, 2, truncate=False),
        rope.yarn_attention_factor(4.0, 0.7, 1.3),
    ),
    (
        "llama3",
        {**YARN, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
        None,
        rope.llama3_frequencies(DIM, THETA, 4.0, 1.0, 4.0, ORIGINAL),
        1.0,
    ),
    *(
        (
            "longrope",
            {**YARN, "short_factor": SHORT, "long_factor": LONG},
            length,
            rope.longrope_frequencies(DIM, THETA, SHORT, LONG, ORIGINAL, length),
            rope.longrope_attention_factor(4.0, ORIGINAL),
        )
        for length in (ORIGINAL, ORIGINAL + 1)
    ),
]


@pytest.mark.parametrize(("kind", "parameters", "length", "frequencies", "factor"), CASES)
def test_scalings_are_those_of_transformers(kind, parameters, length, frequencies, factor):
    transformers = pytest.importorskip("transformers")
    functions = pytest.importorskip("transformers.modeling_rope_utils").ROPE_INIT_FUNCTIONS
    config = transformers.LlamaConfig(
        hidden_size=4 * DIM,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        rope_parameters={"rope_type": kind, "rope_theta": THETA, **parameters},
    )
    wanted, attention_factor = functions[kind](config, "cpu", seq_len=length)
    assert_close(kind, frequencies, wanted, 1e-6)
    assert_close(f"{kind}, slowest pairs", frequencies.log(), wanted.log(), 1e-6)
    assert factor == pytest.approx(attention_factor, abs=1e-12)


def test_proportional_frequencies_are_those_of_transformers():
    functions = pytest.importorskip("transformers.modeling_rope_utils").ROPE_INIT_FUNCTIONS
    transformers = pytest.importorskip("transformers")
    parameters = {"rope_type": "proportional", "rope_theta": THETA, "partial_rotary_factor": 0.25, "factor": 2.0}
    config = transformers.LlamaConfig(hidden_size=4 * DIM, num_attention_heads=4, rope_parameters=parameters)
    wanted, _ = functions["proportional"](config, "cpu")
    assert_close("proportional", rope.proportional_frequencies(DIM, THETA, 0.25, 2.0), wanted, 1e-6)


def test_ntk_keeps_the_fastest_pair_and_divides_the_slowest_by_factor():
    plain, stretched = rope.default_frequencies(64, 1e4), rope.ntk_frequencies(64, 1e4, 8.0)
    assert stretched[0] == plain[0]
    assert stretched[-1].item() == pytest.approx(plain[-1].item() / 8, rel=1e-5)


def test_meta_and_16_bits():
    positions, inv_freq = torch.arange(9, device="meta"), rope.default_frequencies(8, 1e4).to("meta")
    cos, sin = rope.rope_tables(positions, inv_freq)
    assert cos.dtype == torch.float32
    y = rope.rotate(torch.empty(2, 3, 9, 12, device="meta", dtype=torch.bfloat16), cos, sin)
    assert (y.shape, y.dtype) == ((2, 3, 9, 12), torch.bfloat16)


def test_compile():
    def f(x):
        return rope.rotate(x, *rope.rope_tables(torch.arange(9), rope.default_frequencies(8, 1e4)), interleaved=True)

    compiles(f, torch.randn(2, 3, 9, 12))
