"""`archspec complexity` and `archspec explain`: what they print, in each format, and how they fail."""

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from archspec.cli import main

SEPARATE: dict[str, Any] = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}
GPT2, TINY = "specs/gpt2.yaml", "specs/bert_tiny.yaml"


def run(*arguments: str) -> Result:
    result = CliRunner(**SEPARATE).invoke(main, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def lines(*arguments: str) -> list[str]:
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    return result.stdout.splitlines()


MIXER = """\
mixer: Multi-head attention, in layers 0-11
  d_model 768, n_heads 12, head_dim 64
  training  O(T^2 d + T d^2)  14 B T^2 n_heads head_dim + 24 B T d_model n_heads head_dim
  prefill   O(T^2 d + T d^2)  4 B T^2 n_heads head_dim + 8 B T d_model n_heads head_dim
  needed    O(T^2 d + T d^2)  2 B T^2 n_heads head_dim + 2 B T n_heads head_dim (4 d_model + 1)
  decoding  O(S d + d^2)      4 B S n_heads head_dim + 8 B d_model n_heads head_dim
  state     O(S d)            2 B S n_heads head_dim
  steps     O(1)              3
"""


def test_complexity_prints_formulas_classes_and_crossings() -> None:
    found = lines("complexity", GPT2)
    assert MIXER in "\n".join(found)
    assert "  from T = 6,144 on  Multi-head attention > MLP, gelu_tanh   (beyond max_seq_len = 1,024)" in found
    assert "            129,024 B T^2 + 741,192,192 B T" in found
    assert found[-1] == "classes: d = d_model (and widths of a mixer that are a multiple of it), V = vocab_size"


def test_what_does_not_decode_is_told_in_one_line() -> None:
    found = lines("complexity", TINY)
    assert found[0] == "bert_tiny, 2 layers: B sequences of T tokens"
    assert [line for line in found if "decod" in line] == ["bert_tiny does not decode: attention sees later tokens"]
    assert not [line for line in found if line.strip().startswith(("state", "decoding"))]


def test_several_specs_follow_one_another() -> None:
    found = lines("complexity", TINY, GPT2)
    assert [line.partition(",")[0] for line in found if " layers: B sequences" in line] == ["bert_tiny", "gpt2"]
    records = json.loads("\n".join(lines("complexity", TINY, GPT2, "--format", "json")))
    assert [record["name"] for record in records] == ["bert_tiny", "gpt2"]


def test_complexity_as_json_says_all_of_it() -> None:
    found = json.loads("\n".join(lines("complexity", "specs/mistral_7b.yaml", "--format", "json")))
    assert found["whole"]["prefill"] == {
        "class": "O(T^2 d + T d^2 + T d d_ff + T d V)",
        "formula": "524,288 B T^2 + 14,220,787,712 B T",
    }
    mixer = found["parts"][0]
    assert (mixer["kind"], mixer["times"], mixer["sizes"]["window"]) == ("attention", 32, 4096)
    assert [piece["where"] for piece in mixer["figures"]["needed"]["pieces"]] == ["T <= 4,096", "beyond"]
    assert found["crossings"][0] == {
        "length": "T", "at": 1000, "more": "Grouped-query attention, window 4096", "less": "LM head",
    }  # fmt: skip


def test_complexity_as_markdown_is_a_table() -> None:
    found = lines("complexity", GPT2, "--format", "markdown")
    assert found[:3] == ["## gpt2", "", "| layers | part | cost | class | formula |"]
    assert {line.count("|") for line in found if line.startswith("|")} == {6}


def test_kinds_are_compared() -> None:
    found = lines("complexity", "--kinds")
    cells = {line.split("  ")[0]: [cell.strip() for cell in line.split("  ") if cell] for line in found}
    assert cells["mamba"] == [
        "mamba", "O(T d N)", "O(T d^2)", "O(T d)", "O(T d N)", "O(log T)", "O(d N)", "O(d N)", "inherent",
    ]  # fmt: skip
    assert "rnn, bidirectional" in cells
    records = json.loads("\n".join(lines("complexity", "--kinds", "--format", "json")))
    assert next(r for r in records if r["kind"] == "lstm")["steps"] == "O(T)"
    assert lines("complexity", "--kinds", "--format", "markdown")[1].startswith("|---")


def test_settings_change_the_formulas() -> None:
    found = lines("complexity", GPT2, "--set", "blocks[0].mixer.n_kv_heads=1")
    assert "  state     O(S p)            2 B S head_dim" in found


def test_explain_puts_numbers_in() -> None:
    found = lines("explain", GPT2, "--seq", "512")
    assert found[0] == "gpt2: FLOPs of a training step, B = 1, T = 512"
    assert "    up_proj    forward   2 B T d_model d_ff  = 2 x 1 x 512 x 768 x 3,072  = 2,415,919,104" in found
    assert "  12 layers 294,742,130,688 = 12 x 24,561,844,224" in found
    assert "total 413,313,269,760 FLOPs = 294,742,130,688 + 118,571,139,072" in found


def test_explain_of_one_layer_has_no_total_of_the_model() -> None:
    found = lines("explain", "specs/jamba_v0_1.yaml", "--what", "params", "--layer", "4")
    assert "    k_proj.weight  n_kv_heads head_dim x d_model  = 1,024 x 4,096   = 4,194,304" in found
    assert not [line for line in found if line.startswith("total")]


def test_explain_of_a_cache_is_that_of_decoding() -> None:
    found = lines("explain", "specs/deepseek_v3.yaml", "--what", "cache", "--context", "4096", "--batch", "2")
    assert found[0] == "deepseek_v3: bytes of the state, B = 2, S = 4,096"
    record = json.loads("\n".join(lines("explain", GPT2, "--what", "cache", "--context", "8", "--format", "json")))
    assert record["total"] == 8 * 36_864
    assert record["chapters"][0]["sections"][0]["terms"][0]["substituted"] == "2 x 1 x 8 x 12 x 64"


def test_explain_of_memory_names_each_tensor_and_its_reader() -> None:
    found = lines("explain", GPT2, "--what", "memory", "--seq", "512", "--batch", "8", "--attention", "flash")
    assert found[0] == "gpt2: bytes kept for the backward pass of a training step, B = 8, T = 512"
    lse = next(line for line in found if line.split()[:2] == ["attention", "lse"])
    assert " ".join(lse.split()) == "attention lse 4 B T n_heads = 4 x 8 x 512 x 12 = 196,608"


def test_explain_as_markdown_is_a_table() -> None:
    found = lines("explain", TINY, "--what", "params", "--format", "markdown")
    assert "| 0-1 | ffn | up_proj.weight |  | d_ff x d_model = 16 x 8 = 128 |" in found
    assert found[-1] == "|  |  |  | total | 1,253 parameters |"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["explain", GPT2, "--layer", "12"], 1, "layer = '12' is none of gpt2; known: 0 to 11"),
        (["explain", TINY, "--phase", "decode"], 1, "bert_tiny does not decode: attention sees later tokens"),
        (["explain", TINY, "--what", "cache"], 1, "bert_tiny does not decode: attention sees later tokens"),
        (["explain", GPT2, "--seq", "2000"], 1, "seq = 2,000 is beyond max_seq_len = 1,024 of gpt2"),
        (["explain", GPT2, "--batch", "0"], 2, "0 is not in the range x>=1"),
        (["complexity"], 2, "name a SPEC, or ask for --kinds"),
        (["complexity", GPT2, "--kinds"], 2, "--kinds compares kinds by themselves; leave out SPEC and --set"),
        (["complexity", "no_such.yaml"], 1, "no_such.yaml: no such file"),
    ],
)
def test_mistakes_are_one_clear_line(arguments: list[str], code: int, words: str) -> None:
    result = run(*arguments)
    assert result.exit_code == code
    assert result.stdout == ""
    assert words in result.stderr.splitlines()[-1 if code == 2 else 0]


def test_warnings_are_mistakes_where_asked(tmp_path: Path) -> None:
    path = tmp_path / "wide.yaml"
    path.write_text("{d_model: 16, vocab_size: 9, max_seq_len: 8, head: lm,"
                    " blocks: [{mixer: {kind: attention, n_heads: 2, window: 9}}]}")  # fmt: skip
    assert run("complexity", str(path)).exit_code == run("explain", str(path)).exit_code == 0
    assert run("complexity", str(path), "--strict").exit_code == run("explain", str(path), "--strict").exit_code == 1


@pytest.mark.parametrize("arguments", [["complexity", GPT2], ["complexity", "--kinds"], ["explain", GPT2]])
def test_nothing_heavy_is_imported(arguments: list[str]) -> None:
    script = (
        f"import sys\nfrom archspec.cli import main\nmain({arguments!r}, standalone_mode=False)\n"
        "print('loaded:', *(m for m in ('torch', 'numpy', 'sympy', 'networkx', 'libcst') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.rpartition("loaded:")[2].split() == []
