"""Counting: shares, ties, active experts, decoding state, and the names of all tensors."""

import re
from typing import Any

import pytest

from archspec import CostError, load, loads
from archspec.graph import graph
from archspec.passes.cost import cost
from archspec.passes.count import cache_bytes, count

BASE = """
d_model: 16
vocab_size: 10
max_seq_len: 100
define:
  a: {mixer: {kind: attention, n_heads: 4, n_kv_heads: 2}, ffn: none}
  w: {mixer: {kind: attention, n_heads: 4, n_kv_heads: 2, window: 8}, ffn: none}
  e: {mixer: none, ffn: {kind: moe, n_experts: 4, top_k: 1, d_ff: 8}}
  m: {mixer: {kind: mamba}, ffn: none}
"""
ATTENTION = 16 * 16 + 2 * 16 * 8 + 16 * 16 + 16  # q, k and v, o, norm


def spec(blocks: str, rest: str = "") -> object:
    names = re.findall(r"\b[a-z]\b", blocks)
    used = [line for line in BASE.splitlines() if not line.startswith("  ") or line.split(":")[0].strip() in names]
    return loads("\n".join(used) + f"\nblocks: {blocks}\n{rest}")


def test_by_hand() -> None:
    assert count(spec('"a x3"')).total == 160 + 3 * ATTENTION + 16


def test_shared_layers_count_once_and_run_often() -> None:
    found = count(spec("[{repeat: 3, pattern: [a], share: true}]"))
    assert found.total == 160 + ATTENTION + 16
    assert found.layers == 3
    assert found.kv_bytes_per_token == 3 * 2 * 2 * 8 * 2 // 2
    assert [t.name for t in found.tensors if "blocks" in t.name and not t.name.startswith("blocks.0")] == []


def test_tied_tensors_count_once() -> None:
    found = count(spec('"a"', "head: {kind: lm, tied: true}"))
    assert found.total == 160 + ATTENTION + 16
    assert found.tied == 160
    assert "head.proj.weight" not in [t.name for t in found.tensors]


def test_active_is_the_share_that_the_router_picks() -> None:
    found = count(spec('"e"'))
    experts = 4 * 3 * 8 * 16
    assert found.total - found.active == experts * 3 // 4


def test_cache_grows_with_tokens_up_to_the_window_and_states_do_not_grow() -> None:
    every = list(graph(spec('"a w m"')).nodes)
    per_token = 2 * (2 * 4 + 2 * 4)
    fixed = 32 * 16 * 4 + 3 * 32 * 2
    for tokens in (1, 8, 9, 100):
        assert (
            cache_bytes(every, tokens) == per_token * tokens + per_token * min(tokens, 7) + fixed
        )  # a window of 8 keeps 7 for the next token


def test_names_run_through_the_period() -> None:
    names = [t.name for t in count(spec('"(a m)x2"')).tensors if t.name.endswith("norm1.weight")]
    assert names == [f"blocks.{i}.norm1.weight" for i in range(4)]


def test_buffers_are_apart() -> None:
    found = count(load("specs/deepseek_v3.yaml"))
    assert found.buffers == 58 * 256
    assert sum(t.count for t in found.tensors if not t.buffer) == found.total


@pytest.mark.parametrize("blocks", ['"a"', '"(a m e)x2 a"', "[{repeat: 2, pattern: [a, m], share: true}, e]"])
def test_rows_tensors_and_totals_agree(blocks: str) -> None:
    found = count(spec(blocks, "head: {kind: lm, bias: true}"))
    assert sum(row.total for row in found.rows) == found.total + found.buffers
    assert sum(t.count for t in found.tensors) == found.total + found.buffers


def test_cross_attention_keeps_keys_and_values_of_the_memory() -> None:
    # transformers' cache of T5-small holds 6 layers x (self + cross) x (k + v) x 512 channels in bfloat16
    found = count(load("specs/t5_small.yaml"))
    assert found.kv_bytes_per_token + found.memory_bytes_per_token == 6 * 2 * 2 * 512 * 2
    assert found.cache_bytes == 24_576 * 512


@pytest.mark.parametrize(
    ("blocks", "weights"),
    [
        ("[{repeat: 2, share: true, pattern: a a a}]", 3),  # equal layers of one period are three layers
        ("[{repeat: 2, pattern: [{repeat: 3, share: true, pattern: a}]}]", 2),  # each repeat has a set of its own
        ("[{repeat: 2, share: true, pattern: a}, {repeat: 2, share: true, pattern: a}]", 2),
    ],
)
def test_what_is_shared_is_the_place_in_the_period(blocks: str, weights: int) -> None:
    assert count(spec(blocks)).total == 160 + weights * ATTENTION + 16


def test_only_the_main_stack_decodes() -> None:
    """Earlier stacks run once for a sequence; what they could keep is never kept."""
    causal = {"blocks": [{"mixer": "mamba"}, {"mixer": {"kind": "attention", "n_heads": 4}}]}
    cross = {"mixer": {"kind": "attention", "n_heads": 4}, "cross": {"kind": "attention", "n_heads": 4}}
    sizes = {"d_model": 16, "vocab_size": 10, "max_seq_len": 100}
    found = count(load({**sizes, "stacks": {"a": causal, "b": {"memory": "a", "blocks": [cross]}}, "head": "lm"}))
    assert (found.kv_bytes_per_token, found.memory_bytes_per_token, found.state_bytes) == (64, 64, 0)
    assert found.cache_bytes == 128 * 100
    assert found.total == sum(t.count for t in found.tensors)


@pytest.mark.parametrize("name", ["gpt2", "jamba_v0_1", "gemma2_2b", "mamba_130m", "t5_small"])
@pytest.mark.parametrize("asked", [{}, {"batch": 3, "dtype": "float32"}, {"batch": 2, "seq": 100, "dtype": "fp8"}])
def test_decoding_state_is_that_of_a_cost(name: str, asked: dict[str, Any]) -> None:
    model = load(f"specs/{name}.yaml")
    found = count(model, **asked)
    context = {"seq": "context"}
    price = cost(model, phase="decode", **{context.get(key, key): value for key, value in asked.items()})
    assert (found.cache_bytes, found.state_bytes) == (price.cache_bytes, price.state_bytes)
    assert found.held_bytes is not None
    assert found.held_bytes >= price.cache_bytes + price.state_bytes


def test_a_memory_of_another_length() -> None:
    model = load("specs/t5_small.yaml")
    found, longer = count(model, seq=10, memory=20), count(model, seq=10, memory=21)
    assert (found.seq, found.memory) == (10, 20)
    assert found.cache_bytes is not None
    assert longer.cache_bytes == found.cache_bytes + found.memory_bytes_per_token
    assert count(model).memory == 512


def test_without_a_length_the_cache_is_not_known() -> None:
    found = count(load({"d_model": 8, "vocab_size": 5, "blocks": [{"mixer": "mamba"}], "head": "lm"}), batch=2)
    assert (found.seq, found.cache_bytes, found.held_bytes) == (None, None, None)
    assert found.state_bytes > 0
    assert count(load("specs/vit_base.yaml")).seq == 197


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"batch": 0}, "batch = 0 must be a whole number, at least 1"),
        ({"seq": 2000}, "seq = 2,000 is beyond max_seq_len = 1,024 of gpt2"),
        ({"memory": 3}, "memory = 3: gpt2 has one stack"),
        ({"dtype": "int3"}, "dtype = 'int3' is unknown"),
    ],
)
def test_sizes_that_are_none_are_refused(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(CostError, match=re.escape(words)):
        count(load("specs/gpt2.yaml"), **asked)
