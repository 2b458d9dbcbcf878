"""Counting: shares, ties, active experts, decoding state, and the names of all tensors."""

import re

import pytest

from archspec import load, loads
from archspec.graph import graph
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
    assert found.cache_bytes_at_max == 24_576 * 512


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
    assert found.cache_bytes_at_max == 128 * 100
    assert found.total == sum(t.count for t in found.tensors)
