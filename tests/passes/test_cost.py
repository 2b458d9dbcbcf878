"""Costs against published and independently measured figures, their conventions, and what is refused."""

import csv
import io
import json
import subprocess
import sys
from typing import Any

import pytest
from click.testing import CliRunner

import archspec
from archspec.cli import main
from archspec.errors import CostError
from archspec.layers.ops import Attend
from archspec.passes.bill import bill
from archspec.passes.cost import cost
from archspec.passes.workload import PHASES
from archspec.report.cost import BY, FORMATS, rows

# FLOPs of a prefill of one sequence of 512 tokens (T5 with a memory of 512), attention over all pairs: transformers'
# models under PyTorch's counter, and closed forms written by hand
PREFILL = {
    "gpt2": 136_160_477_184,
    "llama2_7b": 6_903_086_186_496,
    "mixtral_8x7b": 13_191_992_049_664,
    "deepseek_v2_lite": 2_582_617_522_176,
    "mamba_130m": 132_101_701_632,
    "t5_small": 71_605_157_888,
    "deepseek_v3": 38_813_552_345_088,
}
# of one token that sees 256, in transformers' forms (which expand all latents at every step)
DECODE = {
    "llama2_7b": 13_348_372_480,
    "mixtral_8x7b": 25_631_391_744,
    "deepseek_v2_lite": 33_851_179_008,
}
# bytes of cache for each token, and of state for each sequence, in bfloat16
HELD = {
    "gpt2": (36_864, 0),
    "llama2_7b": (524_288, 0),
    "mixtral_8x7b": (131_072, 0),
    "deepseek_v2_lite": (31_104, 0),
    "t5_small": (24_576, 0),
    "mamba_130m": (0, 24 * (1536 * 3 * 2 + 1536 * 16 * 4)),  # transformers keeps a fourth column of the convolution
}


def spec(stem: str) -> Any:
    return archspec.load(f"specs/{stem}.yaml")


@pytest.mark.parametrize("stem", PREFILL)
def test_a_prefill(stem: str) -> None:
    found = cost(spec(stem), seq=512, phase="prefill")
    products = found.flops
    assert products == PREFILL[stem]
    assert found.flops_backward == found.flops_again == 0


@pytest.mark.parametrize("stem", [s for s in PREFILL if s != "mamba_130m"])
def test_a_training_step_with_kept_scores_is_three_forward_passes(stem: str) -> None:
    assert cost(spec(stem), seq=512, attention="eager").flops == 3 * PREFILL[stem]


@pytest.mark.parametrize("stem", DECODE)
def test_a_decoded_token(stem: str) -> None:
    latents = {"mla": "expanded"} if stem.startswith("deepseek") else {}
    assert cost(spec(stem), phase="decode", context=256, **latents).flops == DECODE[stem]


def test_latents_are_absorbed_unless_they_are_expanded() -> None:
    assert cost(spec("deepseek_v2_lite"), phase="decode", context=256).flops == 5_143_265_280


def test_checkpointed_blocks_stop_before_their_last_projection() -> None:
    found = cost(spec("llama2_7b"), seq=512, attention="eager", checkpoint="block")
    assert found.flops == 26_000_658_268_160
    assert found.flops_again == found.flops - 3 * PREFILL["llama2_7b"]


@pytest.mark.parametrize("stem", HELD)
def test_what_a_state_holds(stem: str) -> None:
    found = cost(spec(stem), batch=3, phase="decode", context=100, memory=100 if stem == "t5_small" else None)
    assert (found.cache_bytes, found.state_bytes) == tuple(3 * n for n in (100 * HELD[stem][0], HELD[stem][1]))


def test_dialects_of_utilisation() -> None:
    llama = cost(spec("llama2_7b"), seq=512)
    attention = 137_438_953_472  # of which Megatron counts half
    assert llama.mfu["megatron"] == 3 * (PREFILL["llama2_7b"] - attention // 2)
    assert llama.mfu["torchtitan"] == 3 * PREFILL["llama2_7b"] + 817_889_280  # 6 for each weight of a norm and token
    mixtral = cost(spec("mixtral_8x7b"), seq=512)
    routers = 3_221_225_472
    assert mixtral.mfu["megatron"] == 3 * (PREFILL["mixtral_8x7b"] - attention // 2) - routers


GPT3 = {
    "name": "gpt3", "d_model": 12288, "vocab_size": 50257, "max_seq_len": 2048, "norm": "layernorm",
    "embedding": {"kind": "token", "position": "learned"},
    "blocks": [{"repeat": 96, "mixer": {"kind": "attention", "n_heads": 96, "qkv_bias": True, "out_bias": True},
                "ffn": {"kind": "mlp", "d_ff": 49152, "bias": True}}],
    "head": {"kind": "lm", "tied": True},
}  # fmt: skip
PALM = {
    "name": "palm", "d_model": 18432, "vocab_size": 256_000, "max_seq_len": 2048,
    "norm": {"kind": "layernorm", "bias": False},
    "blocks": [{"repeat": 118, "wiring": "x = x + mixer(norm(x)) + ffn(norm(x))",
                "mixer": {"kind": "attention", "n_heads": 48, "n_kv_heads": 1, "head_dim": 256, "position": "rope"},
                "ffn": {"kind": "gated_mlp", "d_ff": 73728}}],
    "head": {"kind": "lm", "tied": True},
}  # fmt: skip
# Training FLOPs of a token as papers report or imply them, all by the rule 6 N with the active parameters: without
# attention's pairs; (spec, reported)
REPORTED = {
    "llama2_7b": 6 * 6.74e9,  # Touvron et al. 2023
    "llama3_8b": 6 * 8.03e9,  # Grattafiori et al. 2024
    "mixtral_8x7b": 6 * 12.9e9,  # Jiang et al. 2024
    "deepseek_v3": 6 * 37e9,  # DeepSeek-AI 2024
    "gpt3": 3.14e23 / 300e9,  # Brown et al. 2020, appendix D
    "palm": 2.5272e24 / 780e9,  # Chowdhery et al. 2022, table 20
}


@pytest.mark.parametrize("stem", REPORTED)
def test_reported_training_flops(stem: str) -> None:
    """Within 3.5%: figures are rounded to three digits. An input table that is not tied is in N, and takes no FLOPs."""
    loaded = archspec.loads(json.dumps({"gpt3": GPT3, "palm": PALM}[stem])) if stem in ("gpt3", "palm") else spec(stem)
    found = cost(loaded, seq=2048, attention="eager")
    pairs = sum(x.times * (x.forward + x.backward) for x in found.lines if isinstance(x.node.op, Attend))
    table = 0 if loaded.head.tied_shape else 6 * archspec.count(loaded).embedding
    assert (found.flops - pairs) / found.tokens + table == pytest.approx(REPORTED[stem], rel=0.035)


def test_palm_counts_attention_as_12_l_h_q_t() -> None:
    """Chowdhery et al. 2022, appendix B: 6 N + 12 L H Q T for a token, all pairs counted."""
    found = cost(archspec.loads(json.dumps(PALM)), seq=2048, attention="eager")
    pairs = sum(x.times * (x.forward + x.backward) for x in found.lines if isinstance(x.node.op, Attend))
    assert pairs == 12 * 118 * 48 * 256 * 2048 * found.tokens


# What is refused


@pytest.mark.parametrize(
    ("stem", "asked", "words"),
    [
        ("gpt2", {"batch": 0}, "batch = 0 must be a whole number, at least 1"),
        ("gpt2", {"batch": 1.5}, "batch = 1.5 must be"),
        ("gpt2", {"seq": 0}, "seq = 0 must be"),
        ("gpt2", {"seq": True}, "seq = True must be"),
        ("gpt2", {"seq": 1025}, "seq = 1,025 is beyond max_seq_len = 1,024 of gpt2"),
        ("gpt2", {"context": 5}, "context = 5 is for the phase decode"),
        ("gpt2", {"phase": "decode", "context": 2000}, "context = 2,000 is beyond"),
        ("gpt2", {"phase": "infer"}, "known: train, prefill, decode"),
        ("gpt2", {"memory": 5}, "memory = 5: gpt2 has one stack"),
        ("gpt2", {"dtype": "fp3"}, "dtype = 'fp3' is unknown; known: float64"),
        ("gpt2", {"attention": "fast"}, "known: flash, eager"),
        ("gpt2", {"checkpoint": "all"}, "known: none, block"),
        ("gpt2", {"mla": "naive"}, "known: absorbed, expanded"),
        ("gpt2", {"mla": "expanded"}, "mla = 'expanded' is for the phase decode"),
        (
            "gpt2",
            {"phase": "decode", "mla": "expanded"},
            "mla = 'expanded' has no effect: gpt2 has no latent attention",
        ),
        ("gpt2", {"phase": "decode", "optimizer": "sgd"}, "optimizer = 'sgd' is for the phase train"),
        ("gpt2", {"phase": "prefill", "checkpoint": "block"}, "checkpoint = 'block' is for the phase train"),
        ("gpt2", {"phase": "decode", "master_dtype": "float32"}, "master_dtype = 'float32' is for the phase train"),
        ("gpt2", {"phase": "decode", "seq": 4, "context": 5}, "give context"),
        ("gpt2", {"optimizer": []}, "optimizer = [] is unknown".replace("[", r"\[")),
        ("gpt2", {"master_dtype": "fp3"}, "master_dtype = 'fp3' is unknown"),
        ("bert_base", {"phase": "decode"}, "bert_base does not decode: attention sees later tokens"),
        ("vit_base", {"seq": 5}, "seq = 5: the patch embedding of vit_base makes 197 tokens"),
    ],
)
def test_what_has_no_cost_is_refused(stem: str, asked: dict[str, Any], words: str) -> None:
    with pytest.raises(CostError, match=words.replace("(", r"\(")):
        cost(spec(stem), **asked)


# Bills


@pytest.mark.parametrize(
    "stem", ["gpt2", "mistral_7b", "jamba_v0_1", "mamba2_130m", "t5_small", "deepseek_v2_lite", "lstm_lm"]
)
def test_a_bill_is_the_sum_of_its_tokens(stem: str) -> None:
    loaded = spec(stem)
    found = bill(loaded, prompt=20, generate=5, batch=2)
    kept = {"memory": 20} if stem == "t5_small" else {}
    each = [cost(loaded, batch=2, phase="decode", context=20 + i, **kept) for i in range(1, 5)]
    whole = [cost(loaded, batch=2, seq=20 + i, phase="prefill", **kept) for i in range(5)]
    assert found.flops_prefill == whole[0].flops
    assert found.flops_decode == sum(c.flops for c in each)
    assert (found.flops_first, found.flops_last) == (each[0].flops, each[-1].flops)
    assert found.flops_without_state == sum(c.flops for c in whole)
    assert found.bytes_decode == sum(c.bytes_moved for c in each)
    assert found.cache_bytes == each[-1].cache_bytes


def test_a_bill_of_one_token_is_its_prefill() -> None:
    found = bill(spec("gpt2"), prompt=10, generate=1)
    assert found.flops == found.flops_prefill == found.flops_without_state


@pytest.mark.parametrize(("prompt", "generate"), [(0, 5), (5, 0), (1020, 5), (5, 2.5)])
def test_what_has_no_bill(prompt: int, generate: int) -> None:
    with pytest.raises(CostError):
        bill(spec("gpt2"), prompt=prompt, generate=generate)


def test_a_step_moves_the_weights_and_the_state() -> None:
    """The table of a tied head is read again; a state that does not grow is read and written."""
    tied, apart = spec("gpt2"), archspec.load("specs/gpt2.yaml", set=["head.tied=false", "expect=null"])
    assert cost(tied, phase="decode").bytes_moved == cost(apart, phase="decode").bytes_moved > cost(tied).weight_bytes
    for stem in ("mamba2_130m", "hyena_small", "lstm_lm", "mistral_7b"):
        step = cost(spec(stem), phase="decode")
        weights = step.weight_bytes - 2 * archspec.count(spec(stem)).embedding
        assert step.bytes_moved > weights + step.cache_bytes + step.state_bytes // 2
    absorbed, expanded = (
        cost(spec("deepseek_v3"), phase="decode", context=4096, mla=m) for m in ("absorbed", "expanded")
    )
    assert expanded.bytes_moved - absorbed.bytes_moved == 61 * 2 * 2 * 4096 * 128 * (128 + 128)


# Tables


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("stem", ["jamba_v0_1", "t5_small", "vit_base", "gemma2_2b"])
def test_rows_add_up(stem: str, by: str) -> None:
    for phase in PHASES if stem not in ("vit_base",) else PHASES[:2]:
        found = cost(spec(stem), phase=phase, checkpoint="block" if phase == "train" else "none")  # type: ignore[arg-type]
        table = rows(found, by)
        assert sum(row.forward for row in table) == found.flops_forward
        assert sum(row.total for row in table) == found.flops
        assert sum(row.bytes_moved for row in table) == found.bytes_moved


def test_products_add_up_by_class() -> None:
    found = cost(spec("gpt2"), seq=64, phase="prefill")
    assert found.by_class["matmul"] == found.flops_forward
    assert set(cost(spec("mamba_130m"), seq=64).estimates) >= {"by_class.scan", "bytes_moved"}
    assert "flops" in cost(spec("hyena_small"), seq=64).estimates


@pytest.mark.parametrize("form", FORMATS)
def test_the_command(form: str) -> None:
    done = CliRunner().invoke(main, ["cost", "specs/gpt2.yaml", "--seq", "512", "--format", form, "--phase", "prefill"])
    assert done.exit_code == 0, done.output
    assert ("136160477184" if form != "csv" else "blocks.0-11,12,96636764160,0,") in (
        done.output if form == "csv" else done.output.replace(",", "")
    )


def test_json_has_every_figure() -> None:
    done = CliRunner().invoke(main, ["cost", "specs/gpt2.yaml", "--batch", "2", "--format", "json"])
    found = json.loads(done.stdout)
    names = (
        "flops_forward",
        "flops_backward",
        "flops",
        "weight_bytes",
        "cache_bytes",
        "state_bytes",
        "sequential_steps",
    )
    assert all(isinstance(found[name], int) for name in names)
    assert found["work"]["batch"] == 2
    held = ("weight_bytes", "buffer_bytes", "optimizer_bytes", "saved_bytes", "loss_bytes")
    assert found["peak_bytes"] == sum(found[k] for k in held) + 2 + 2 * found["output_bytes"]
    assert all(name.partition(".")[0] in found for name in found["estimates"])
    assert found["flops"] == sum(row["flops"] for row in found["layers"])


@pytest.mark.parametrize(
    "words",
    [
        ["--batch", "0"],
        ["--generate", "5"],
        ["--generate", "5", "--prompt", "5", "--seq", "3"],
        ["--generate", "5", "--prompt", "5", "--by", "op"],
    ],
)
def test_wrong_use(words: list[str]) -> None:
    done = CliRunner().invoke(main, ["cost", "specs/gpt2.yaml", *words])
    assert done.exit_code == 2
    assert "Error" in done.output


def test_notebooks_show_every_figure() -> None:
    found, answer = cost(spec("gpt2"), seq=512), bill(spec("gpt2"), prompt=5, generate=5)
    assert f"<td>{found.flops:,}</td>" in found._repr_html_()
    assert f"<td>{answer.flops_decode:,}</td>" in answer._repr_html_()
    assert found._repr_html_().count("estimate") == len([name for name in found.numbers if name in found.estimates])


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, archspec; archspec.cost(archspec.load('specs/gpt2.yaml')); archspec.bill(archspec.load('specs/gpt2.yaml'), prompt=5, generate=5); print(*(m for m in ('torch', 'numpy', 'sympy', 'networkx') if m in sys.modules))"  # fmt: skip  # noqa: E501
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_bill_in_every_format_has_the_same_figures() -> None:
    command = ["cost", "specs/gpt2.yaml", "--prompt", "20", "--generate", "5", "--format"]
    texts = {form: CliRunner().invoke(main, [*command, form]) for form in ("csv", "json", "markdown", "table")}
    assert all(found.exit_code == 0 for found in texts.values())
    rows = {row["figure"]: row for row in csv.DictReader(io.StringIO(texts["csv"].stdout))}
    figures = {name: n for name, n in json.loads(texts["json"].stdout).items() if isinstance(n, int)}
    assert {name: int(row["value"]) for name, row in rows.items()} == figures
    assert rows["bytes_last"]["estimate"] == "True"
    assert f"{figures['flops_prefill']:,}" in texts["table"].stdout
