"""The graph of ops: dataflow, repeats, and what it says of itself."""

import networkx as nx
import pytest

from archspec import load, loads
from archspec.graph import lower, problems

BASE = """
d_model: 16
vocab_size: 11
blocks:
  - {{repeat: 3, mixer: {{kind: attention, n_heads: 4}}, ffn: {{kind: mlp}}, wiring: {wiring}}}
head: {{kind: lm}}
"""


@pytest.mark.parametrize("name", ["bert_tiny", "jamba_v0_1", "t5_small", "deepseek_v3", "vit_base", "gemma2_2b"])
def test_graphs_are_whole(name: str) -> None:
    graph = lower(load(f"specs/{name}.yaml"))
    assert problems(graph) == []
    assert nx.is_weakly_connected(graph) or name == "t5_small"


def test_a_residual_edge_goes_round_the_branch() -> None:
    graph = lower(loads(BASE.format(wiring="pre")))
    assert list(graph.successors("embedding.token")) == ["blocks.0.norm1", "blocks.0.add1"]
    assert set(graph.predecessors("blocks.0.add2")) == {"blocks.0.add1", "blocks.0.ffn.down_proj"}


def test_a_custom_wiring_is_the_graph() -> None:
    lines = '["h = norm1(x)", "x = x + mixer(h) + 0.5 * ffn(h)"]'
    graph = lower(loads(BASE.format(wiring=lines)))
    assert set(graph.successors("blocks.0.norm1")) >= {"blocks.0.mixer.q_proj", "blocks.0.ffn.up_proj"}
    scaled = next(s for s in (graph.nodes[n]["node"] for n in graph) if s.op.name.startswith("blocks.0.multiply"))
    assert getattr(scaled.op, "fn", "") == "* 0.5"


def test_repeats_are_folded_and_remembered() -> None:
    graph = lower(loads(BASE.format(wiring="pre")))
    places = {s.op.name: (s.repeat, s.copies) for s in (graph.nodes[n]["node"] for n in graph) if s.segment >= 0}
    assert set(places.values()) == {(3, 3)}
    assert not any("blocks.1" in name for name in places)


def test_memory_flows_from_the_encoder_to_every_cross_attention() -> None:
    graph = lower(load("specs/t5_small.yaml"))
    assert set(graph.successors("encoder.norm")) == {
        "decoder.blocks.0.cross.k_proj",
        "decoder.blocks.0.cross.v_proj",
    }
