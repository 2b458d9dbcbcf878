"""What a figure says: names, numbers, factors, streams, state."""

import re

import pytest
from diagram_faults import faults
from diagram_specs import ALL, ATTN, CROSS, CUSTOM, GLU, HEADER, named, words

from archspec.diagram.figure import draw
from archspec.diagram.footer import pieces
from archspec.diagram.render import diagram
from archspec.diagram.words import share
from archspec.graph import graph
from archspec.language.load import loads
from archspec.language.model import Spec
from archspec.passes.count import count


def test_jamba_shows_what_it_is() -> None:
    text = re.sub(r"&#(\d+);", lambda m: chr(int(m[1])), diagram(named("jamba_v0_1")))
    for part in ("51.57 B params", "12.11 B active / token", "\u00d7 4", "\u00d728", "KV cache 4 KiB / token / layer"):
        assert part in text
    for part in ("selective scan", "16 SwiGLU experts", "gate weights", "MoE 87.4 %", "pre-norm residual"):
        assert part in text


@pytest.mark.parametrize("name", ALL)
def test_the_totals_are_those_of_count(name: str) -> None:
    spec = named(name)
    counted = count(spec)
    found = pieces(graph(spec).nodes)
    assert (sum(p.total for p in found), sum(p.active for p in found)) == (counted.total, counted.active)


def test_custom_wiring_is_drawn_as_it_is() -> None:
    found = draw(loads(CUSTOM["parallel with scaling"]))
    shown = [line.text for s in found.shapes for line in s.lines]
    assert shown.count("\u00d7 0.5") == 2
    assert shown.count("+") == 3
    assert "custom wiring" in shown
    assert "h = norm1(x)" in shown


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_deepnorm_is_known_and_its_factor_is_short(dropout: float) -> None:
    block = f"{{repeat: 3, mixer: {ATTN}, ffn: {GLU}, wiring: deepnorm}}"
    found = words(loads(HEADER.format(name="deep") + f"dropout: {dropout}\nblocks: [{block}]\n"))
    assert "post-norm residual, DeepNorm" in found
    assert "\u00d7 1.565" in found
    assert not [w for w in found if "1.5650" in w]


def test_factors_of_custom_wiring_are_short() -> None:
    lines = "[x = x + 0.123456789 * mixer(norm1(x)), x = x - -1.0 * ffn(x)]"
    found = words(loads(HEADER.format(name="custom") + f"blocks: [{{mixer: {ATTN}, ffn: {GLU}, wiring: {lines}}}]\n"))
    assert {"\u00d7 0.1235", "x = x + 0.1235 * mixer(norm1(x))"} <= set(found)


@pytest.mark.parametrize("name", ALL)
def test_every_piece_of_a_bar_has_its_name(name: str) -> None:
    spec = named(name)
    found = pieces(graph(spec).nodes)
    shown = " ".join(words(spec))
    for values in ([p.total for p in found], [p.active for p in found]):
        for piece, value in zip(found, values, strict=True):
            assert not value or f"{piece.name} {share(value, sum(values))}" in shown


def test_factors_and_bounds_are_shown() -> None:
    text = HEADER.replace("tied: true", "tied: true, scale: 0.0625, softcap: 30.0").format(name="scaled")
    ffn = "{kind: moe, n_experts: 8, top_k: 2, d_ff: 64, routed_scale: 2.5}"
    for scale, shown in ((512**0.5, "sqrt(512)"), (12.0, "12")):
        body = f"embedding: {{kind: token, scale: {scale!r}}}\nblocks: [{{mixer: {ATTN}, ffn: {ffn}}}]\n"
        found = words(loads(text + body))
        assert f"rows \u00d7 {shown}" in found
        assert "logits \u00d7 0.0625, soft-cap 30" in found
        assert "gate weights \u00d7 2.5" in found


@pytest.mark.parametrize(("order", "names"), [(2, ["v", "x1", "x0"]), (3, ["v", "x2", "x1", "x0"])])
def test_hyena_names_the_streams_of_its_short_convolution(order: int, names: list[str]) -> None:
    found = words(loads(HEADER.format(name="hyena") + f"blocks: [{{mixer: {{kind: hyena, order: {order}}}}}]\n"))
    assert [w for w in found if w in names] == names


def two_stacks(encoder: str) -> Spec:
    stacks = f"""
stacks:
  reader: {{blocks: [{{repeat: 2, mixer: {encoder}, ffn: {GLU}}}]}}
  writer: {{memory: reader, blocks: [{{repeat: 3, mixer: {ATTN}, cross: {CROSS}}}]}}
"""
    return loads(HEADER.format(name="two") + stacks)


@pytest.mark.parametrize("encoder", [ATTN, "{kind: mamba}", "{kind: lstm}"])
def test_only_the_last_stack_keeps_state(encoder: str) -> None:
    spec = two_stacks(encoder)
    assert not faults(draw(spec))
    found = words(spec)
    assert found.count("KV cache") == 2
    assert not [w for w in found if "state" in w and w != "hidden states"]
    # 2 bytes x 4096 tokens x 3 layers x (2 x 2 x 64 of its own + 2 x 8 x 64 of the memory)
    assert "cache at T = 4096: KV 30 MiB" in found
    assert not [w for w in found if w.startswith("state ")]


def test_columns_have_names_and_inputs_have_shapes() -> None:
    found = words(two_stacks(ATTN))
    assert {"reader", "writer", "tokens [B, T]"} <= set(found)
    image = named("vit_base")
    assert "images [B, 3, 224, 224]" in words(image)
    assert [w for w in words(image) if "class token" in w]


def test_lines_say_what_they_take_of_a_projection() -> None:
    assert {"x, B, C", "dt", "z"} <= set(words(named("mamba2_130m")))
    assert {"latent", "k rope"} <= set(words(named("deepseek_v3")))
    assert {"x", "z", "dt, B, C \u00b7 4.46 M"} <= set(words(named("jamba_v0_1")))


def test_state_of_one_sequence_and_of_all_of_them_are_told_apart() -> None:
    text = "blocks: [{mixer: {kind: hyena, filter_len: 1024}}]\n"
    found = words(loads(HEADER.format(name="hyena") + text))
    # the last two of three taps of 3 x 512 channels, 2 bytes each; 1024 x 512 taps, 4 bytes each
    assert [w for w in found if "6 KiB / layer / sequence" in w]
    assert [w for w in found if "2 MiB / layer for all sequences" in w]


def test_every_layer_of_a_recurrence_shows_its_own_state() -> None:
    block = "{mixer: {kind: lstm, depth: 2, d_hidden: 24}}"
    found = words(loads(HEADER.format(name="deep") + f"blocks: [{block}]\n"))
    assert [w for w in found if w.startswith("LSTM l")] == ["LSTM l0", "LSTM l1"]
    assert found.count("state 48 numbers") == 2


def test_a_layer_shows_what_its_stack_gives_it() -> None:
    found = words(named("t5_small"))
    assert found.count("position bias") == 3  # one decoder layer, and both kinds of self-attention
    assert found.count("memory") == 2  # the encoder's output, and one decoder layer


@pytest.mark.parametrize(("name", "said"), [("pre", "pre-norm residual"), ("post", "post-norm residual"),
                                            ("none", "residual without norms")])  # fmt: skip
def test_a_wiring_is_called_as_it_was_written(name: str, said: str) -> None:
    block = f"{{mixer: {ATTN}, ffn: {GLU}, wiring: {name}}}"
    assert said in words(loads(HEADER.format(name="wired") + f"blocks: [{block}]\n"))


def test_kinds_of_one_name_are_told_apart_by_what_differs() -> None:
    blocks = f"[{{mixer: {ATTN}, ffn: {GLU}}}, {{mixer: {ATTN}, ffn: {GLU.replace('1408', '512')}}}]"
    found = words(loads(HEADER.format(name="two") + f"blocks: {blocks}\n"))
    assert {"SwiGLU (d_ff 1408)", "SwiGLU (d_ff 512)"} <= set(found)


def test_without_a_head_hidden_states_come_out() -> None:
    body = f"head: none\nblocks: [{{mixer: {ATTN}, ffn: {GLU}}}]\n"
    found = words(loads(HEADER.format(name="bare").replace("head: {kind: lm, tied: true}\n", "") + body))
    assert "hidden states [B, T, 512]" in found
    assert "No head" not in found


@pytest.mark.parametrize(("shared", "sums"), [(0, 0), (1, 1)])
def test_experts_that_choose_are_summed_once(shared: int, sums: int) -> None:
    ffn = f"{{kind: moe, n_experts: 8, top_k: 2, d_ff: 64, assignment: expert, n_shared: {shared}}}"
    found = words(loads(HEADER.format(name="choice") + f"blocks: [{{mixer: {ATTN}, ffn: {ffn}}}]\n"))
    assert found.count("\u03a3") == 1
    assert found.count("+") == 2 + sums  # the two residual paths of the layer, and the shared expert
    assert [w for w in found if w == "2 of 8 on average"]
