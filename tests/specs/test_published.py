"""The numbers that papers and checkpoints give, as literals, against what the specs count to."""

from functools import cache
from pathlib import Path

import pytest

from archspec.graph import graph, lower, problems
from archspec.language.load import load
from archspec.passes.count import Count, cache_bytes, count
from archspec.passes.expect import check

SPECS = Path(__file__).parents[2] / "specs"
NAMES = sorted(path.stem for path in SPECS.glob("*.yaml"))
GIB = 2**30

# The sum of the tensors of the released checkpoint, to the unit; tied tensors once.
TOTALS = {
    "bert_base": 109_514_298,  # google-bert/bert-base-uncased with its masked-LM head, without pooler
    "bert_pretraining": 110_106_428,  # google-bert/bert-base-uncased whole, as BertForPreTraining
    "xlm_15": 249_071_384,  # FacebookAI/xlm-mlm-tlm-xnli15-1024
    "gpt2": 124_439_808,  # openai-community/gpt2
    "llama2_7b": 6_738_415_616,  # meta-llama/Llama-2-7b-hf
    "llama3_8b": 8_030_261_248,  # meta-llama/Meta-Llama-3-8B
    "mistral_7b": 7_241_732_096,  # mistralai/Mistral-7B-v0.1
    "gemma2_2b": 2_614_341_888,  # google/gemma-2-2b
    "mixtral_8x7b": 46_702_792_704,  # mistralai/Mixtral-8x7B-v0.1
    "qwen1_5_moe_a2_7b": 14_315_784_192,  # Qwen/Qwen1.5-MoE-A2.7B
    "deepseek_v2_lite": 15_706_484_224,  # deepseek-ai/DeepSeek-V2-Lite
    "deepseek_v3": 671_026_404_352,  # deepseek-ai/DeepSeek-V3 without multi-token prediction
    "t5_small": 60_506_624,  # google-t5/t5-small
    "switch_base_8": 619_339_008,  # google/switch-base-8
    "mamba_130m": 129_135_360,  # state-spaces/mamba-130m
    "mamba2_130m": 128_989_632,  # state-spaces/mamba2-130m
    "rwkv4_169m": 169_342_464,  # RWKV/rwkv-4-169m-pile
    "falcon_mamba_7b": 7_272_665_088,  # tiiuae/falcon-mamba-7b
    "jamba_v0_1": 51_570_323_328,  # ai21labs/Jamba-v0.1
    "vit_base": 86_567_656,  # google/vit-base-patch16-224
    "hyenadna_tiny": 436_096,  # LongSafari/hyenadna-tiny-1k-seqlen, as HazyResearch/hyena-dna builds it
    "hyena_small": 3_277_568,  # LongSafari/hyenadna-small-32k-seqlen, the same
    "hyenadna_medium": 6_550_528,  # LongSafari/hyenadna-medium-160k-seqlen, the same
    "dnabert_6mer": 89_196_549,  # zhihan1996/DNA_bert_6 with its masked-LM head, without pooler
}

# What papers give in rounded form: (spec, what is counted, the number, half of its last digit).
ROUNDED = [
    ("bert_base", "total", 110e6, 5e6),  # Devlin et al. 2019, section 3
    ("mixtral_8x7b", "total", 46.7e9, 0.05e9),  # Mistral AI 2023, "Mixtral of experts"
    ("mixtral_8x7b", "active", 12.9e9, 0.05e9),  # the same
    ("qwen1_5_moe_a2_7b", "total", 14.3e9, 0.05e9),  # Qwen Team 2024, "Qwen1.5-MoE"
    ("qwen1_5_moe_a2_7b", "active", 2.7e9, 0.05e9),  # the same
    ("deepseek_v2_lite", "total", 15.7e9, 0.05e9),  # DeepSeek-AI 2024 (V2), appendix B
    ("deepseek_v3", "total", 671e9, 0.5e9),  # DeepSeek-AI 2024 (V3), abstract
    ("switch_c", "total", 1571e9, 0.5e9),  # Fedus et al. 2022, table 9
    ("glam_64b_64e", "total", 1.2e12, 0.05e12),  # Du et al. 2022, table 4
    ("glam_64b_64e", "active", 96.6e9, 0.05e9),  # the same
    ("jamba_v0_1", "total", 52e9, 0.5e9),  # Lieber et al. 2024, table 1
    ("jamba_v0_1", "active", 12e9, 0.5e9),  # the same
    ("striped_hyena", "total", 7.65e9, 0.005e9),  # model card of togethercomputer/StripedHyena-Hessian-7B
    ("lstm_lm", "total", 66e6, 0.5e6),  # Zaremba et al. 2014, "large", as Zoph and Le 2017 count it
]

# Bytes of keys and values for each token, 2 bytes an element: layers x (keys + values) x heads x width x 2.
KV_BYTES = {
    "gpt2": 36_864,  # 12 x 2 x 768 x 2
    "llama2_7b": 524_288,  # 32 x 2 x 4096 x 2
    "llama3_8b": 131_072,  # 32 x 2 x 1024 x 2
    "mistral_7b": 131_072,
    "gemma2_2b": 106_496,  # 26 x 2 x 1024 x 2, of which half the layers stop at their window
    "mixtral_8x7b": 131_072,
    "deepseek_v2_lite": 31_104,  # 27 x (512 + 64) x 2: the latent and the rotated slice
    "deepseek_v3": 70_272,  # Zhao et al. 2025 (arXiv 2505.09343), table 1: 70.272 KB
    "jamba_v0_1": 16_384,  # attention in 4 of 32 layers
    "t5_small": 12_288,  # 6 x 2 x 512 x 2 of the decoder; cross-attention holds as much for each input token
    "mamba_130m": 0,
    "mamba2_130m": 0,
    "rwkv4_169m": 0,
    "falcon_mamba_7b": 0,
    "lstm_lm": 0,
    "bert_base": 0,
    "vit_base": 0,
}


@cache
def counted(name: str) -> Count:
    return count(load(SPECS / f"{name}.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_the_graph_is_sound(name: str) -> None:
    assert problems(lower(load(SPECS / f"{name}.yaml"))) == []


@pytest.mark.parametrize("name", NAMES)
def test_what_the_author_expects_holds(name: str) -> None:
    spec = load(SPECS / f"{name}.yaml")
    assert "params" in dict(spec.expect)
    assert check(spec, counted(name)) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_tensors_add_up(name: str) -> None:
    tensors = counted(name).tensors
    assert len({t.name for t in tensors}) == len(tensors)
    assert sum(t.count for t in tensors if not t.buffer) == counted(name).total
    assert sum(t.count for t in tensors if t.buffer) == counted(name).buffers
    assert sum(row.total for row in counted(name).rows) == counted(name).total + counted(name).buffers


@pytest.mark.parametrize("name", NAMES)
def test_the_file_says_what_it_is(name: str) -> None:
    spec = load(SPECS / f"{name}.yaml")
    assert (spec.name, bool(spec.description), bool(spec.source)) == (name, True, True)


@pytest.mark.parametrize("name", TOTALS)
def test_total_is_that_of_the_checkpoint(name: str) -> None:
    assert counted(name).total == TOTALS[name]


@pytest.mark.parametrize(("name", "what", "number", "half"), ROUNDED)
def test_what_the_paper_says_in_round_numbers(name: str, what: str, number: float, half: float) -> None:
    assert abs(getattr(counted(name), what) - number) <= half


@pytest.mark.parametrize("name", KV_BYTES)
def test_bytes_of_cache_for_a_token(name: str) -> None:
    assert counted(name).kv_bytes_per_token == KV_BYTES[name]


def test_the_teaching_bert_by_hand() -> None:
    found = counted("bert_tiny")
    blocks = [sum(t.count for t in found.tensors if t.name.startswith(f"blocks.{i}.")) for i in range(2)]
    head = sum(t.count for t in found.tensors if t.name.startswith("head."))
    assert (found.embedding, blocks, head) == (40 + 32, [4 * 64 + 280 + 32] * 2, 40 + 5)
    assert found.total == 1253


def test_the_nucleotide_transformer_with_what_nothing_reads() -> None:
    # InstaDeepAI/nucleotide-transformer-v2-50m-multi-species: 55.9M with 2050 rows of positions that rotary ones
    # replace, and a probe of the maps of 12 x 16 heads
    assert round((counted("nucleotide_transformer_50m").total + 2050 * 512 + 12 * 16 + 1) / 1e6, 1) == 55.9


def test_evo_with_the_filters_of_its_release() -> None:
    # evo-design/evo and togethercomputer/stripedhyena: 8 poles and 8 residues a channel, complex, in 29 layers
    tensors = [t for t in counted("evo_1").tensors if t.name.startswith("blocks.0.mixer.")]
    network = sum(t.count for t in tensors if "filter_in" in t.name or "filter_out" in t.name or "freq" in t.name)
    assert counted("evo_1").total + 29 * (2 * 8 * 2 * 4096 - network) == 6_452_781_056


@pytest.mark.parametrize(
    ("name", "n_ids", "vocab_size"),
    [
        ("bert_tiny", 5, 5),
        ("hyenadna_tiny", 12, 16),
        ("dnabert_6mer", 4101, 4101),
        ("nucleotide_transformer_50m", 4107, 4107),
        ("evo_1", 256, 512),
    ],
)
def test_vocabularies_have_their_published_sizes(name: str, n_ids: int, vocab_size: int) -> None:
    spec = load(SPECS / f"{name}.yaml")
    assert spec.vocabulary is not None
    assert (spec.vocabulary.n_ids, spec.vocab_size) == (n_ids, vocab_size)


def test_active_parameters_to_the_unit() -> None:
    # all parameters, less the experts that a token does not run: layers x unused experts x 3 matrices
    assert counted("mixtral_8x7b").active == 46_702_792_704 - 32 * 6 * 3 * 4096 * 14336
    assert counted("qwen1_5_moe_a2_7b").active == 14_315_784_192 - 24 * 56 * 3 * 2048 * 1408
    assert counted("jamba_v0_1").active == 51_570_323_328 - 16 * 14 * 3 * 4096 * 14336
    assert counted("deepseek_v2_lite").active == 15_706_484_224 - 26 * 58 * 3 * 2048 * 1408
    assert counted("deepseek_v3").active == 671_026_404_352 - 58 * 248 * 3 * 7168 * 2048
    assert counted("switch_base_8").active == 619_339_008 - 12 * 7 * 2 * 768 * 3072


def test_deepseek_v3_activates_37_billion() -> None:
    # DeepSeek-AI 2024 (V3), abstract: 37B for each token, which leaves the input embedding out
    found = counted("deepseek_v3")
    assert round((found.active - found.embedding) / 1e9) == 37
    assert found.embedding == 129_280 * 7168
    assert found.buffers == 58 * 256  # one number an expert for balance, in the 58 layers with experts


def test_gemma_without_its_embedding() -> None:
    # Gemma Team 2024, table 2, 2B: 590,118,912 of embedding, with 256,128 rows, and 2,024,517,888 of everything else;
    # the checkpoint has 256,000 rows
    assert counted("gemma2_2b").total - counted("gemma2_2b").embedding == 2_024_517_888
    assert count(load(SPECS / "gemma2_2b.yaml", set=["vocab_size=256128"])).embedding == 590_118_912


def test_vit_without_its_classes() -> None:
    # Dosovitskiy et al. 2021, table 1: 86M, of which the head over 1000 classes is no part
    assert round((counted("vit_base").total - 1000 * (768 + 1)) / 1e6) == 86


def test_glam_by_hand() -> None:
    # Du et al. 2022, table 4: L 64, M 8192, H 32768, 128 heads of 128, E 64; every other layer has experts
    d, h, wide = 8192, 32768, 128 * 128
    attention = 64 * (4 * d * wide + 2 * d + 32 * 128)  # with two norms and 32 buckets a head
    dense, experts = 32 * 3 * d * h, 32 * (64 * 2 * d * h + 64 * d)
    assert counted("glam_64b_64e").total == 256_000 * d + attention + dense + experts + d


def test_the_original_transformer_is_close_to_its_paper() -> None:
    # Vaswani et al. 2017, table 3: 65M, from a vocabulary of "about 37000"; its sizes give 63.0M
    layer = 4 * 512 * 512, 2 * 512 * 2048 + 2048 + 512, 2 * 512
    encoder, decoder = layer[0] + layer[1] + 2 * layer[2], 2 * layer[0] + layer[1] + 3 * layer[2]
    assert counted("transformer_base").total == 37_000 * 512 + 6 * (encoder + decoder) == 63_045_632
    assert 0.96 < counted("transformer_base").total / 65e6 < 1


def test_the_lstm_has_two_biases_a_gate() -> None:
    # Zaremba et al. 2014 has one bias a gate; PyTorch's LSTM has two, so 2 x 4 x 1500 more
    one_bias = 2 * 10_000 * 1500 + 10_000 + 2 * (8 * 1500 * 1500 + 4 * 1500)
    assert counted("lstm_lm").total == one_bias + 2 * 4 * 1500


@pytest.mark.parametrize(
    ("depth", "number"),
    [(2, 1.6e6), (8, 6.6e6)],  # Nguyen et al. 2023; the small model stands between these two of its width
)
def test_other_depths_of_hyenadna(depth: int, number: float) -> None:
    found = count(load(SPECS / "hyena_small.yaml", set=[f"blocks[0].repeat={depth}"]))
    assert abs(found.total - number) <= 0.05e6


def test_the_hyena_operator_by_hand() -> None:
    # projections, short convolution, filter network with one frequency for each of its channels, skip, MLP, norms
    d = 256
    operator = (3 * d * d + 3 * d) + (d * d + d) + (3 * d * 3 + 3 * d) + d
    network = (5 * 64 + 64) + 2 * (64 * 64 + 64) + 64 * d + 64
    layer = operator + network + (8 * d * d + 5 * d) + 2 * 2 * d
    assert counted("hyena_small").total == 4 * layer + 16 * d + 2 * d


def test_striped_hyena_differs_from_the_release_in_its_filters_alone() -> None:
    # a layer of the release: poles and residues (2 states, complex) and a skip; ours: network, frequencies and a skip
    release = 4096 * 2 * 2 * 2 + 4096
    ours = (3 * 64 + 64) + 2 * (64 * 64 + 64) + 64 * 4096 + 64 + 4096
    projections = 4 * 4096 * 4096 + 4 * 4096 + 3 * 4096 * (3 + 1)
    attention = 2 * 4096 * 4096 + 2 * 4096 * 1024
    shared = 16 * (projections + attention) + 32 * (3 * 4096 * 14336 + 2 * 4096) + 2 * 32_000 * 4096 + 4096
    assert counted("striped_hyena").total == shared + 16 * ours
    assert round((shared + 16 * release) / 1e7) == 765


@pytest.mark.parametrize(
    ("name", "gib"), [("llama2_7b", 128), ("mistral_7b", 32), ("mixtral_8x7b", 32), ("jamba_v0_1", 4)]
)
def test_cache_at_256k_tokens(name: str, gib: int) -> None:
    # Lieber et al. 2024 (Jamba), table 1: cache of 256K tokens at 16 bits, without Mistral's window
    assert counted(name).kv_bytes_per_token * 256 * 1024 == gib * GIB


def test_windows_bound_the_cache() -> None:
    every = list(graph(load(SPECS / "mistral_7b.yaml")).nodes)
    assert [cache_bytes(every, n) for n in (1, 4096, 100_000)] == [
        131_072,
        131_072 * 4095,
        131_072 * 4095,
    ]  # between two tokens
    # Gemma 2 2B at 8192 tokens: 13 layers stop at 4095, 13 keep all; 4 heads of 256, keys and values
    assert counted("gemma2_2b").cache_bytes == 13 * (4095 + 8192) * 2 * 4 * 256 * 2


def test_states_do_not_grow() -> None:
    # float32 states of every channel, and the three last inputs of the convolution at 2 bytes
    assert counted("mamba_130m").state_bytes == 24 * (1536 * 16 * 4 + 1536 * 3 * 2)
    assert counted("mamba2_130m").state_bytes == 24 * (1536 * 128 * 4 + (1536 + 2 * 128) * 3 * 2)
    # both sums and their exponent, and the last tokens that both halves of a layer were given at 2 bytes
    assert counted("rwkv4_169m").state_bytes == 12 * (768 * 3 * 4 + 2 * 768 * 2)
    assert counted("lstm_lm").state_bytes == 2 * 2 * 1500 * 2
    assert counted("mamba_130m").cache_bytes == 0
    assert counted("mamba_130m").held_bytes == counted("mamba_130m").state_bytes
