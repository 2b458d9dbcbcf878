import pytest
from kernel_checks import assert_close

from archspec.kernels.pointwise import rope_frequencies as frequencies

DIM, THETA, LENGTH, ORIGINAL = 64, 500000.0, 4096, 1024
SHORT, LONG = [1.0 + 0.01 * i for i in range(DIM // 2)], [1.0 + i for i in range(DIM // 2)]
YARN = {"factor": 4.0, "original_max_position_embeddings": ORIGINAL}
CASES = [
    ("linear", {"factor": 4.0}, None, frequencies.linear_frequencies(DIM, THETA, 4.0), 1.0),
    ("dynamic", {"factor": 4.0}, 10000, frequencies.dynamic_frequencies(DIM, THETA, 4.0, LENGTH, 10000), 1.0),
    ("dynamic", {"factor": 4.0}, 100, frequencies.dynamic_frequencies(DIM, THETA, 4.0, LENGTH, 100), 1.0),
    (
        "yarn",
        YARN,
        None,
        frequencies.yarn_frequencies(DIM, THETA, 4.0, ORIGINAL),
        frequencies.yarn_attention_factor(4.0),
    ),
    (
        "yarn",
        {**YARN, "beta_fast": 16, "beta_slow": 2, "truncate": False, "mscale": 0.7, "mscale_all_dim": 1.3},
        None,
        frequencies.yarn_frequencies(DIM, THETA, 4.0, ORIGINAL, 16, 2, truncate=False),
        frequencies.yarn_attention_factor(4.0, 0.7, 1.3),
    ),
    (
        "llama3",
        {**YARN, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
        None,
        frequencies.llama3_frequencies(DIM, THETA, 4.0, 1.0, 4.0, ORIGINAL),
        1.0,
    ),
    *(
        (
            "longrope",
            {**YARN, "short_factor": SHORT, "long_factor": LONG},
            length,
            frequencies.longrope_frequencies(DIM, THETA, SHORT, LONG, ORIGINAL, length),
            frequencies.longrope_attention_factor(4.0, ORIGINAL),
        )
        for length in (ORIGINAL, ORIGINAL + 1)
    ),
]


@pytest.mark.parametrize(("kind", "parameters", "length", "inv_freq", "factor"), CASES)
def test_scalings_are_those_of_transformers(kind, parameters, length, inv_freq, factor):
    transformers = pytest.importorskip("transformers")
    functions = pytest.importorskip("transformers.modeling_rope_utils").ROPE_INIT_FUNCTIONS
    config = transformers.LlamaConfig(
        hidden_size=4 * DIM,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        rope_parameters={"rope_type": kind, "rope_theta": THETA, **parameters},
    )
    wanted, attention_factor = functions[kind](config, "cpu", seq_len=length)
    assert_close(kind, inv_freq, wanted, 1e-6)
    assert_close(f"{kind}, slowest pairs", inv_freq.log(), wanted.log(), 1e-6)
    assert factor == pytest.approx(attention_factor, abs=1e-12)


def test_proportional_frequencies_are_those_of_transformers():
    functions = pytest.importorskip("transformers.modeling_rope_utils").ROPE_INIT_FUNCTIONS
    transformers = pytest.importorskip("transformers")
    parameters = {"rope_type": "proportional", "rope_theta": THETA, "partial_rotary_factor": 0.25, "factor": 2.0}
    config = transformers.LlamaConfig(hidden_size=4 * DIM, num_attention_heads=4, rope_parameters=parameters)
    wanted, _ = functions["proportional"](config, "cpu")
    assert_close("proportional", frequencies.proportional_frequencies(DIM, THETA, 0.25, 2.0), wanted, 1e-6)


def test_ntk_keeps_the_fastest_pair_and_divides_the_slowest_by_factor():
    plain, stretched = frequencies.default_frequencies(64, 1e4), frequencies.ntk_frequencies(64, 1e4, 8.0)
    assert stretched[0] == plain[0]
    assert stretched[-1].item() == pytest.approx(plain[-1].item() / 8, rel=1e-5)
