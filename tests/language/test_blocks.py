"""The language of layers: named blocks, patterns, repeats, sharing, overrides, wiring, sizes, defaults and stacks."""

from typing import Any

import pytest

from archspec.errors import SpecError
from archspec.language.load import loads
from archspec.language.model import Spec, Stack
from archspec.language.places import MOST_EXTENDS
from archspec.passes.count import count

TOP = "d_model: 64\nvocab_size: 100\nmax_seq_len: 32\n"
DEFINE = """
define:
  a: {ffn: {kind: mlp, d_ff: 8}}
  b: {ffn: {kind: mlp, d_ff: 16}}
  c: {mixer: {kind: attention, n_heads: 4}}
"""


def spec(text: str) -> Spec:
    return loads(TOP + text)


def refused(text: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        spec(text)
    return [f"{p.path}: {p.message}" for p in caught.value.problems]


def widths(stack: Stack) -> list[int | None]:
    return [getattr(layer.block.part("ffn"), "d_ff", None) for layer in stack.layers]


def part(found: Spec, name: str, layer: int = 0) -> Any:
    return found.main.layers[layer].block.part(name)


# Patterns and repeats


@pytest.mark.parametrize(
    ("blocks", "found"),
    [
        ("a b c", [8, 16, None]),
        ('"(a b)x2, c"', [8, 16, 8, 16, None]),
        ("[a, b, c]", [8, 16, None]),
        ("[a x2, (b c)x2]", [8, 8, 16, None, 16, None]),
        ("[{repeat: 2, pattern: a b}, c]", [8, 16, 8, 16, None]),
        ("[{repeat: 2, pattern: [a, b x2]}, c]", [8, 16, 16, 8, 16, 16, None]),
        ("[{pattern: [{repeat: 2, pattern: [a, b]}, c]}]", [8, 16, 8, 16, None]),
        ("[{repeat: 2, pattern: [a, {ffn: {kind: mlp, d_ff: 3}}]}, b, c]", [8, 3, 8, 3, 16, None]),
        ("[{repeat: 2, ffn: {kind: mlp, d_ff: 3}}, a, b, c]", [3, 3, 8, 16, None]),
        ("[a, b, c, {ffn: {kind: mlp, d_ff: 3}}]", [8, 16, None, 3]),
    ],
)
def test_every_way_to_write_layers(blocks: str, found: list[int | None]) -> None:
    assert widths(spec(DEFINE + f"blocks: {blocks}\n").main) == found


def test_repeats_are_folded_however_they_are_written() -> None:
    ways = [
        "(a b c)x4",
        "[a, b, c, a, b, c, a, b, c, a, b, c]",
        "[{repeat: 4, pattern: [a, b, c]}]",
        "(a b c)x2 (a b c)x2",
    ]
    found = [spec(DEFINE + f"blocks: {way}\n") for way in ways]
    assert {s.main.segments for s in found} == {found[0].main.segments}
    assert [(len(s.layers), s.repeat) for s in found[0].main.segments] == [(3, 4)]


def test_sharing_is_one_set_of_weights() -> None:
    alone = spec("blocks: [{ffn: {kind: mlp, d_ff: 8}}]")
    shared = spec("blocks: [{repeat: 6, share: true, ffn: {kind: mlp, d_ff: 8}}]")
    assert shared.main.n_layers == 6
    assert [s.shared for s in shared.main.segments] == [True]
    assert count(shared).total == count(alone).total


def test_groups_that_share_do_not_share_with_one_another() -> None:
    item = "{repeat: 2, share: true, pattern: a}"
    found = spec(f"define: {{a: {{ffn: {{kind: mlp, d_ff: 8}}}}}}\nblocks: [{item}, {item}, a]\n")
    assert [(s.repeat, s.shared) for s in found.main.segments] == [(2, True), (2, True), (1, False)]


# Named blocks


def test_a_block_changes_the_one_that_it_extends() -> None:
    text = """
define:
  base: {mixer: {kind: attention, n_heads: 4, position: {kind: rope, theta: 500}}, ffn: {kind: mlp, d_ff: 8}}
  more: {extends: base, ffn: {d_ff: 16}}
  most: {extends: more, mixer: {n_heads: 8, position: {fraction: 0.5}}}
  other: {extends: base, mixer: {kind: mamba}, ffn: none}
blocks: base more most other
"""
    found = spec(text)
    assert widths(found.main) == [8, 16, 16, None]
    assert [part(found, "mixer", i).position.theta for i in range(3)] == [500, 500, 500]
    assert part(found, "mixer", 2).position.fraction == 0.5
    assert part(found, "mixer", 3).kind == "mamba"


def test_blocks_may_be_defined_in_any_order() -> None:
    assert widths(spec("define: {b: {extends: a}, a: {ffn: {kind: mlp, d_ff: 8}}}\nblocks: b a\n").main) == [8, 8]


def test_a_chain_of_blocks_has_a_limit() -> None:
    chain = [f"  b{i}: {{extends: b{i - 1}}}\n" for i in range(1, MOST_EXTENDS + 1)]
    text = "define:\n  b0: {ffn: {kind: mlp, d_ff: 8}}\n" + "".join(reversed(chain))
    assert widths(spec(text + f"blocks: b{MOST_EXTENDS}\n").main) == [8]


# Overrides


@pytest.mark.parametrize(
    ("at", "changed"),
    [
        ("layers[0]", [0]),
        ("layers[5]", [5]),
        ("layers[-1]", [5]),
        ("layers[-6]", [0]),
        ("layers[:]", [0, 1, 2, 3, 4, 5]),
        ("layers[1:3]", [1, 2]),
        ("layers[:2]", [0, 1]),
        ("layers[4:]", [4, 5]),
        ("layers[-2:]", [4, 5]),
        ("layers[::2]", [0, 2, 4]),
        ("layers[1::2]", [1, 3, 5]),
        ("layers[::-3]", [5, 2]),
        ("layers[ 1 : 2 ]", [1]),
        ("layers[2:100]", [2, 3, 4, 5]),
    ],
)
def test_overrides_choose_like_python(at: str, changed: list[int]) -> None:
    found = spec(
        "define: {a: {ffn: {kind: mlp, d_ff: 8, activation: relu}}}\nblocks: a x6\n"
        f'overrides: [{{at: "{at}.ffn", set: {{d_ff: 3}}}}]\n'
    )
    assert widths(found.main) == [3 if i in changed else 8 for i in range(6)]
    assert {part(found, "ffn", i).activation for i in range(6)} == {"relu"}


@pytest.mark.parametrize(
    ("override", "d_ff", "activation"),
    [
        ('{at: "layers[0].ffn", set: {d_ff: 3}}', 3, "relu"),
        ('{at: "layers[0].ffn.d_ff", set: 3}', 3, "relu"),
        ('{at: "layers[0]", set: {ffn: {d_ff: 3}}}', 3, "relu"),
        ('{at: "layers[0].ffn", set: {__replace__: true, kind: mlp, d_ff: 3}}', 3, "gelu"),
        ('{at: "layers[0].ffn", replace: {kind: mlp, d_ff: 3}}', 3, "gelu"),
        ('{at: "layers[0]", replace: {ffn: {kind: mlp, d_ff: 3}}}', 3, "gelu"),
        ('{at: "layers[0].ffn", set: {kind: gated_mlp, d_ff: 3}}', 3, "silu"),
        ('{at: "layers[0].ffn", set: none}', None, None),
    ],
)
def test_set_merges_and_replace_replaces(override: str, d_ff: int | None, activation: str | None) -> None:
    define = "define: {a: {mixer: mamba, ffn: {kind: mlp, d_ff: 8, activation: relu}}}\nblocks: a x2\n"
    found = spec(define + f"overrides: [{override}]\n")
    assert getattr(part(found, "ffn"), "d_ff", None) == d_ff
    assert getattr(part(found, "ffn"), "activation", None) == activation
    assert part(found, "ffn", 1).activation == "relu"
    assert (part(found, "mixer") is None) == ("replace: {ffn" in override)


def test_an_override_may_name_a_defined_block() -> None:
    define = "define: {a: {ffn: {kind: mlp, d_ff: 8}}, b: {ffn: {kind: mlp, d_ff: 3}}}\n"
    text = define + 'blocks: a x3\noverrides: [{at: "layers[1]", replace: b}]\n'
    assert widths(spec(text).main) == [8, 3, 8]
    for wrong, message in {
        "replace: c": "overrides[0].replace: no block 'c' is defined",
        "replace: 3": "overrides[0].replace: must be a block (mixer, ffn, ...) or the name of a defined one, not a",
        "set: b": "overrides[0].set: a whole block takes the place of a layer: write replace: b",
    }.items():
        with pytest.raises(SpecError) as caught:
            spec(text.replace("replace: b", wrong))
        assert message in str(caught.value)


def test_later_overrides_come_over_earlier_ones() -> None:
    first, second = '{at: "layers[:3].ffn", set: {d_ff: 3}}', '{at: "layers[1:].ffn", set: {d_ff: 5}}'
    found = spec(f"blocks: [{{repeat: 4, ffn: {{kind: mlp, d_ff: 8}}}}]\noverrides: [{first}, {second}]\n")
    assert widths(found.main) == [3, 5, 5, 5]


def test_layers_that_are_changed_alike_are_folded() -> None:
    found = spec(
        'blocks: [{repeat: 9, ffn: {kind: mlp, d_ff: 8}}]\noverrides: [{at: "layers[:3].ffn", set: {d_ff: 4}}]\n'
    )
    assert [(s.start, s.repeat) for s in found.main.segments] == [(0, 3), (3, 6)]


# Sizes


@pytest.mark.parametrize(
    ("sizes", "d_ff", "found"),
    [
        ("{}", "4 * d_model", 256),
        ("{}", "{of: 8/3 * d_model, multiple_of: 64}", 192),
        ("{}", "{of: 100}", 100),
        ("{}", "'round_up(8/3 * d_model, 256)'", 256),
        ("{expand: 2}", "expand * d_model", 128),
        ("{a: 2 * b, b: c + 1, c: 3}", "a", 8),
        ("{wide: d_model * n, n: 3}", "wide", 192),
        ("{ratio: 8/3}", "{of: ratio * d_model, multiple_of: 2}", 172),
        ("{ratio: 2.5}", "ratio * d_model", 160),
        ("{}", "vocab_size - max_seq_len", 68),
        ("{d_ff: 40}", "40", None),
    ],
)
def test_sizes_are_arithmetic(sizes: str, d_ff: str, found: int | None) -> None:
    text = f"sizes: {sizes}\nblocks: [{{ffn: {{kind: mlp, d_ff: {d_ff}}}}}]\n"
    if found is None:
        told = [(w.path, w.message) for w in spec(text).warnings]
        assert told == [("sizes.d_ff", "no arithmetic names it, so it has no effect")]
    else:
        assert widths(spec(text).main) == [found]


def test_fields_may_name_later_ones_and_those_around_them() -> None:
    found = spec("blocks: [{mixer: {kind: attention, n_heads: v_head_dim / 2, head_dim: 16, v_head_dim: head_dim}}]")
    assert (part(found, "mixer").n_heads, part(found, "mixer").v_head_dim) == (8, 16)


def test_the_top_may_name_a_size() -> None:
    text = "sizes: {w: 32}\nd_model: 2 * w\nvocab_size: d_model + 1\nblocks: [{ffn: {kind: mlp, d_ff: 4}}]\n"
    assert loads(text).vocab_size == 65


def test_the_number_of_layers_is_a_size() -> None:
    found = spec("blocks: [{repeat: 8, ffn: {kind: mlp, d_ff: 2 * n_layers}}]")
    assert widths(found.main) == [16] * 8


def test_derived_sizes_follow_what_is_given() -> None:
    mixer = part(spec("blocks: [{mixer: {kind: attention, n_heads: 8}}]"), "mixer")
    assert (mixer.n_kv_heads, mixer.head_dim, mixer.v_head_dim, mixer.scale) == (8, 8, 8, 8**-0.5)
    mixer = part(spec("blocks: [{mixer: {kind: attention, n_heads: 8, head_dim: 16, n_kv_heads: 2}}]"), "mixer")
    assert (mixer.n_kv_heads, mixer.head_dim, mixer.v_head_dim, mixer.scale) == (2, 16, 16, 0.25)


# Defaults and how far they reach


def test_the_norm_of_the_top_is_every_norm_below() -> None:
    found = spec(
        "norm: {kind: layernorm, eps: 1.0e-3}\n"
        "blocks: [{mixer: {kind: attention, n_heads: 4, qk_norm: head}, ffn: {kind: mlp, d_ff: 8}}]\n"
    )
    norms = [part(found, "norm1"), part(found, "norm2"), part(found, "mixer").norm, found.main.final_norm]
    assert {(type(norm).__name__, norm.eps) for norm in norms} == {("LayerNorm", 1e-3)}


def test_a_norm_below_changes_the_one_above() -> None:
    found = spec(
        "norm: {kind: layernorm, eps: 1.0e-3}\n"
        "blocks: [{ffn: {kind: mlp, d_ff: 8}, norm: {bias: false}}, {ffn: {kind: mlp, d_ff: 8}, norm: rmsnorm}]\n"
        "final_norm: {eps: 1.0e-2}\n"
    )
    first, second, last = part(found, "norm1"), part(found, "norm1", 1), found.main.final_norm
    assert (first.eps, first.bias) == (1e-3, False)
    assert type(second).__name__ == "RMSNorm"
    assert last is not None
    assert (type(last).__name__, last.eps, last.bias) == ("LayerNorm", 1e-2, True)


@pytest.mark.parametrize(
    ("around", "mixer", "block", "embedding", "branch", "attention"),
    [
        ("dropout: 0.1", "", "", 0.1, 0.1, 0.1),
        ("dropout: 0.1", "", ", dropout: 0.2", 0.1, 0.2, 0.2),
        ("dropout: 0.1", ", dropout: 0.0", "", 0.1, 0.1, 0.0),
        ("dropout: 0.1\nembedding: {kind: token, dropout: 0.3}", "", "", 0.3, 0.1, 0.1),
        ("dropout: 0.1", "", ", wiring: [x = x + mixer(norm1(x))]", 0.1, 0.0, 0.1),
        ("name: toy", "", ", dropout: 0.2, wiring: [x = x + mixer(x)]", 0.0, 0.0, 0.2),
    ],
)
def test_where_dropout_reaches(
    around: str, mixer: str, block: str, embedding: float, branch: float, attention: float
) -> None:
    text = f"{around}\nblocks: [{{mixer: {{kind: attention, n_heads: 4{mixer}}}{block}}}]\n"
    found = spec(text)
    assert found.main.embedding.dropout == embedding  # type: ignore[attr-defined]
    assert found.main.layers[0].block.dropout == branch
    assert part(found, "mixer").dropout == attention
    assert ("dropout" in found.main.layers[0].block.wiring.calls()) == (branch > 0)


def test_the_mask_of_a_stack_is_the_mask_of_its_attention() -> None:
    found = spec("""
mask: bidirectional
blocks:
  - {mixer: {kind: attention, n_heads: 4}}
  - {mixer: {kind: attention, n_heads: 4, mask: causal}}
""")
    assert [part(found, "mixer", i).mask for i in range(2)] == ["bidirectional", "causal"]


@pytest.mark.parametrize(
    ("wiring", "final"),
    [
        ("pre", True),
        ("post", False),
        ("sandwich", True),
        ("deepnorm", False),
        ("none", True),
        ("[x = norm1(ffn(x))]", False),
    ],
)
def test_a_final_norm_stands_where_the_wiring_leaves_x_without_one(wiring: str, final: bool) -> None:
    assert (spec(f"wiring: {wiring}\nblocks: [{{ffn: {{kind: mlp, d_ff: 8}}}}]").main.final_norm is not None) == final


@pytest.mark.parametrize(("said", "there"), [("true", True), ("false", False), ("none", False), ("layernorm", True)])
def test_a_final_norm_can_be_said(said: str, there: bool) -> None:
    for wiring in ("pre", "post"):
        found = spec(f"wiring: {wiring}\nblocks: [{{ffn: {{kind: mlp, d_ff: 8}}}}]\nfinal_norm: {said}\n")
        assert (found.main.final_norm is not None) == there


# Wiring and modules


@pytest.mark.parametrize(
    ("wiring", "lines"),
    [
        ("pre", ("x = x + mixer(norm1(x))", "x = x + ffn(norm2(x))")),
        ("post", ("x = norm1(x + mixer(x))", "x = norm2(x + ffn(x))")),
        ("sandwich", ("x = x + norm2(mixer(norm1(x)))", "x = x + norm4(ffn(norm3(x)))")),
        ("inner_post", ("x = x + norm1(mixer(x))", "x = x + norm2(ffn(x))")),
        ("parallel", ("h = norm1(x)", "x = x + mixer(h) + ffn(h)")),
        ("parallel_two_norms", ("x = x + mixer(norm1(x)) + ffn(norm2(x))",)),
        ("none", ("x = x + mixer(x)", "x = x + ffn(x)")),
        ("[h = norm1(x), x = x + mixer(h) + 0.5 * ffn(h)]", ("h = norm1(x)", "x = x + mixer(h) + 0.5 * ffn(h)")),
        ("|\n  h = norm1(x)\n  x = ffn(mixer(h))", ("h = norm1(x)", "x = ffn(mixer(h))")),
    ],
)
def test_wirings_built_in_and_own(wiring: str, lines: tuple[str, ...]) -> None:
    found = spec(f"wiring: {wiring}\nblocks: [{{mixer: mamba, ffn: {{kind: mlp, d_ff: 8}}}}]\n")
    assert found.main.layers[0].block.wiring.lines() == lines


def test_the_wiring_of_a_block_comes_over_that_of_the_top() -> None:
    found = spec("wiring: post\nblocks: [{mixer: mamba, wiring: pre}, {mixer: mamba}]\n")
    assert [la.block.wiring.lines() for la in found.main.layers] == [
        ("x = x + mixer(norm1(x))",),
        ("x = norm1(x + mixer(x))",),
    ]


def test_deepnorm_knows_the_depth() -> None:
    found = spec("wiring: deepnorm\nblocks: [{repeat: 8, ffn: {kind: mlp, d_ff: 8}}]\n")
    assert found.main.layers[0].block.wiring.lines() == ("x = norm1(2.0 * x + ffn(x))",)


def test_further_modules_can_be_named_in_a_wiring() -> None:
    found = spec("""
blocks:
  - mixer: {kind: attention, n_heads: 4}
    ffn: {kind: mlp, d_ff: 8}
    modules: {ssm: mamba, gate: {kind: layer_scale}, last: {kind: layernorm}}
    wiring:
      - h = norm1(x)
      - x = x + mixer(h) + gate(ssm(h))
      - x = last(x + ffn(x))
""")
    names = [name for name, _ in found.main.layers[0].block.parts]
    assert names == ["norm1", "mixer", "ssm", "gate", "ffn", "last"]
    assert found.main.final_norm is None


# Several stacks


ENCODER_DECODER = """
dropout: 0.1
stacks:
  encoder: {mask: bidirectional, norm: layernorm, d_model: 32, blocks: [{mixer: {kind: attention, n_heads: 4}}]}
  decoder:
    memory: encoder
    blocks:
      - repeat: 2
        mixer: {kind: attention, n_heads: 4}
        cross: {kind: attention, n_heads: 8}
        ffn: {kind: mlp, d_ff: 8}
head: {kind: lm, tied: true}
"""


def test_a_decoder_reads_the_memory_of_its_encoder() -> None:
    found = spec(ENCODER_DECODER)
    encoder, decoder = found.stacks
    cross = decoder.layers[0].block.part("cross")
    assert (encoder.d_model, decoder.d_model, decoder.memory) == (32, 64, "encoder")
    assert (cross.mask, cross.d_memory, cross.d_model) == ("cross", 32, 64)  # type: ignore[union-attr]
    assert decoder.layers[0].block.wiring.lines() == tuple(
        f"x = x + dropout({name}(norm{i}(x)))" for i, name in enumerate(("mixer", "cross", "ffn"), 1)
    )
    assert found.main is decoder
    assert found.causal


def test_defaults_of_a_stack_stay_in_it() -> None:
    encoder, decoder = spec(ENCODER_DECODER).stacks
    assert [type(s.final_norm).__name__ for s in (encoder, decoder)] == ["LayerNorm", "RMSNorm"]
    assert [s.layers[0].block.part("mixer").mask for s in (encoder, decoder)] == ["bidirectional", "causal"]  # type: ignore[union-attr]


def test_tables_can_be_tied_across_stacks() -> None:
    text = ENCODER_DECODER.replace("d_model: 32, ", "")
    apart = spec(text)
    tied = spec(text.replace("memory: encoder", "memory: encoder\n    tie_embedding: encoder"))
    assert count(apart).total - count(tied).total == 100 * 64
    assert tied.ties == (
        ("decoder.embedding.token.weight", "encoder.embedding.token.weight"),
        ("head.proj.weight", "encoder.embedding.token.weight"),
    )


def test_overrides_may_name_their_stack() -> None:
    override = '    overrides: [{at: "decoder.layers[1].ffn", set: {d_ff: 3}}]\n'
    assert widths(spec(ENCODER_DECODER.replace("head:", override + "head:")).main) == [8, 3]


# One mistake, one message


@pytest.mark.parametrize(
    "text",
    [
        "define: {a: {ffn: {kind: mlp, dff: 8}}}\nblocks: a x12\nhead: {kind: lm, tied: true}\n",
        "define: {a: {extends: b, ffn: none}}\nblocks: a x12\n",
        "norm: {kind: rmsnorm, eps: -1}\nblocks: [{repeat: 4, ffn: {kind: mlp, d_ff: 8}}]\n",
        "wiring: pree\nblocks: [{ffn: {kind: mlp, d_ff: 8}}, {ffn: {kind: mlp, d_ff: 9}}]\n",
        "sizes: {a: 1/0}\nblocks: [{ffn: {kind: mlp, d_ff: a}}, {ffn: {kind: mlp, d_ff: 2 * a}}]\n",
        "embedding: {kind: token, position: {kind: learned, n_positions: -1}}\nblocks: [{ffn: {kind: mlp, d_ff: 8}}]\n",
        "blocks: [{mixer: {kind: attention, n_head: 4, position: alibi}}]\n",
        "blocks: [{mixer: {kind: attention, n_heads: -4, position: rope}}]\n",
        "block: [{ffn: {kind: mlp, d_ff: 8}}]\nhead: {kind: lm, tied: true}\n",
    ],
)
def test_one_mistake_is_told_once(text: str) -> None:
    assert len(refused(text)) == 1


def test_residual_branches_are_counted_for_inits_that_scale_by_depth() -> None:
    found = spec("blocks: [{repeat: 3, ffn: {kind: mlp}}, {mixer: {kind: mamba}, ffn: {kind: mlp}}]\nhead: lm")
    assert found.main.n_branches == 3 + 2
