"""The figure: nothing overlaps or is cut off for any spec, the text is always the same, and Graphviz draws it."""

import re
import shutil
import subprocess
import time
from itertools import combinations, pairwise
from pathlib import Path
from random import Random

import pytest

from archspec.diagram.dot import escape, rounded, to_dot
from archspec.diagram.figure import draw
from archspec.diagram.flow import SINK, SOURCE, Flow, bare, box, circle
from archspec.diagram.footer import pieces
from archspec.diagram.place import Placed
from archspec.diagram.render import diagram, render
from archspec.diagram.scene import Path as Way
from archspec.diagram.scene import Scene, Shape
from archspec.diagram.text import Line, extent, measure, shorten, wrap
from archspec.diagram.words import amount, byte_size, share
from archspec.errors import RenderError
from archspec.graph import graph
from archspec.language.load import load, loads
from archspec.language.model import Spec
from archspec.layers.registry import everything, find
from archspec.passes.count import count

SPECS = sorted((Path(__file__).parents[2] / "specs").glob("*.yaml"))
TOUCH = 0.6  # points that neighbours may share

HEADER = """
name: {name}
d_model: 512
vocab_size: 32000
max_seq_len: 4096
head: {{kind: lm, tied: true}}
"""
ATTN = "{kind: attention, n_heads: 8, n_kv_heads: 2, position: {kind: rope}}"
CROSS = "{kind: attention, n_heads: 8, mask: cross}"
GLU = "{kind: gated_mlp, d_ff: 1408}"
MOE = "{kind: moe, n_experts: 64, top_k: 6, d_ff: 256, n_shared: 2}"

BODIES = {
    "parallel with scaling": f"""
blocks:
  - repeat: 6
    mixer: {ATTN}
    ffn: {GLU}
    modules: {{ssm: {{kind: mamba}}}}
    wiring:
      - h = norm1(x)
      - x = x + 0.5 * mixer(h) + 0.5 * ssm(h) + ffn(norm2(x))
""",
    "nested residuals": f"""
blocks:
  - repeat: 2
    mixer: {ATTN}
    ffn: {GLU}
    modules: {{ssm: {{kind: mamba}}}}
    wiring:
      - y = x + mixer(norm1(x))
      - z = y + ssm(norm2(y))
      - x = norm4(x + 0.25 * (z + ffn(norm3(z))))
""",
    "negations and differences": f"""
blocks:
  - mixer: {ATTN}
    ffn: {GLU}
    wiring: [h = mixer(norm1(x)), g = ffn(norm2(x)), x = x - h * g + -h]
""",
    "three kinds of layers": f"""
define:
  ssm: {{mixer: {{kind: mamba}}, ffn: none}}
  local: {{mixer: {{kind: attention, n_heads: 8, window: 256}}, ffn: {GLU}}}
  full: {{mixer: {ATTN}, ffn: {MOE}}}
blocks: [{{repeat: 4, pattern: [ssm, ssm, local, ssm, ssm, full]}}, local]
""",
    "every layer another": f"""
define:
  a: {{mixer: {{kind: mamba}}, ffn: {GLU}}}
  b: {{mixer: {ATTN}, ffn: {GLU}}}
  c: {{mixer: {{kind: lstm}}, ffn: {MOE}}}
blocks: "a b a a b c a b b a c c a b a c b a c a b c b a a c c b a b c a a a c b c b a b"
""",
    "only attention": f"blocks: [{{repeat: 3, mixer: {ATTN}, ffn: none}}]",
    "sandwich with layer scale": f"""
blocks: [{{repeat: 3, mixer: {ATTN}, ffn: {GLU}, wiring: sandwich}}, {{mixer: {ATTN}, ffn: {GLU}, wiring: layer_scale}}]
""",
    "gated attention with everything": """
blocks:
  - mixer: {kind: attention, n_heads: 8, gate: elementwise, qk_norm: head, sinks: true, softcap: 30.0, window: 128,
            position: {kind: rope}}
    ffn: {kind: moe, n_experts: 8, top_k: 2, d_ff: 64, n_shared: 1, shared_gate: true}
    wiring: parallel
""",
    "shared weights": f"blocks: [{{repeat: 12, share: true, pattern: [{{mixer: {ATTN}, ffn: {GLU}}}]}}]",
    "deep recurrence": "blocks: [{mixer: {kind: lstm, depth: 4, bidirectional: true}, ffn: none}]",
    "expert choice of many": """
blocks: [{repeat: 2, mixer: {kind: mamba2}, ffn: {kind: moe, n_experts: 1024, top_k: 4, d_ff: 64}}]
""",
}
CUSTOM = {name: HEADER.format(name=name.replace(" ", "_")) + body for name, body in BODIES.items()}
CUSTOM["hostile names"] = CUSTOM["only attention"].replace(
    "only_attention", "'<b>&]; } {x} \u00e9\u4e16 a very long name of a model that nobody would choose <!-- --> ' "
)
ALL = {path.stem: path.read_text() for path in SPECS} | CUSTOM


KINDS = [
    (role, kind, number)
    for role in ("mixer", "ffn")
    for kind, component in everything()[role].items()
    for number in range(len(component.examples))
]


def example(role: str, kind: str, number: int) -> Spec:
    """A model of one block with one of the examples that a component gives."""
    settings = find(role, kind).examples[number]
    cross = settings.get("mask") == "cross"
    block = {"cross" if cross else role: {"kind": kind, **settings}}
    top = {"name": kind, "d_model": 16, "vocab_size": 12, "max_seq_len": 32, "head": {"kind": "lm"}}
    if not cross:
        return load({**top, "blocks": [block]})
    encoder = {"blocks": [{"mixer": {"kind": "attention", "n_heads": 2, "mask": "bidirectional"}}]}
    return load({**top, "stacks": {"encoder": encoder, "decoder": {"memory": "encoder", "blocks": [block]}}})


def scene(name: str) -> Scene:
    path = next((p for p in SPECS if p.stem == name), None)
    return draw(load(path) if path is not None else loads(CUSTOM[name]))


def overlap(a: Shape, b: Shape) -> bool:
    return min(a.right, b.right) - max(a.left, b.left) > TOUCH and min(a.top, b.top) - max(a.bottom, b.bottom) > TOUCH


def inside(inner: Shape, outer: Shape) -> bool:
    return (
        inner.left >= outer.left - TOUCH
        and inner.right <= outer.right + TOUCH
        and inner.bottom >= outer.bottom - TOUCH
        and inner.top <= outer.top + TOUCH
    )


def crosses(way: Way, shape: Shape) -> bool:
    """Whether a right-angled line runs through the inside of a shape."""
    for (x0, y0), (x1, y1) in pairwise(way.points):
        low_x, high_x, low_y, high_y = min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)
        if (
            high_x > shape.left + 1.5
            and low_x < shape.right - 1.5
            and high_y > shape.bottom + 1.5
            and low_y < shape.top - 1.5
        ):
            return True
    return False


def told(shape: Shape) -> str:
    text = " / ".join(line.text for line in shape.lines)
    return f"{shape.form} {text!r} at {shape.x:.0f},{shape.y:.0f} of {shape.w:.0f} x {shape.h:.0f}"


def faults(found: Scene) -> list[str]:
    solids = [s for s in found.shapes if s.role == "solid"]
    frames = [s for s in found.shapes if s.role == "frame"]
    out = [f"{told(a)} overlaps {told(b)}" for a, b in combinations(solids, 2) if overlap(a, b)]
    out += [
        f"frames cross: {told(a)}, {told(b)}"
        for a, b in combinations(frames, 2)
        if overlap(a, b) and not inside(a, b) and not inside(b, a)
    ]
    panels = [f for f in frames if not any(inside(f, other) for other in frames if other is not f)]
    out += [f"{told(s)} leaves its panel" for s in solids if not any(inside(s, p) for p in panels)]
    for s in found.shapes:
        w, h = extent(s.lines)
        if s.lines and (w - 4 > s.w + TOUCH or h > s.h + 2 + TOUCH) and s.form != "circle":
            out.append(f"{told(s)} is too small for its text of {w:.0f} x {h:.0f}")
    opaque = [s for s in solids if s.form != "dot" and not s.dashed]
    out += [
        f"a line {way.points} runs through {told(s)}"
        for way in found.paths
        if not way.under
        for s in opaque
        if crosses(way, s)
    ]
    return out


@pytest.mark.parametrize("name", ALL)
def test_nothing_overlaps_or_is_cut_off(name: str) -> None:
    assert not faults(scene(name))


@pytest.mark.parametrize(("role", "kind", "number"), KINDS)
def test_nothing_overlaps_in_any_component(role: str, kind: str, number: int) -> None:
    assert not faults(draw(example(role, kind, number)))


def tangle(seed: int) -> Flow:
    """A random dataflow of boxes, circles and projections that give several tensors."""
    rng, flow = Random(seed), Flow()
    names = [flow.add(bare(SOURCE, "x")).name]
    for i in range(rng.randint(3, 14)):
        inputs = rng.sample(names, min(len(names), rng.choice((1, 1, 1, 2, 2, 3))))
        sign = len(inputs) == 2 and rng.random() < 0.5
        node = circle(f"n{i}", "+") if sign else box(f"n{i}", "op " * rng.randint(1, 6), ["sub"] * rng.randint(0, 2))
        node.split = rng.random() < 0.2
        node.late = rng.random() < 0.2
        names.append(flow.add(node, inputs).name)
    ends = [n for n in names if not flow.out_of(n)]
    flow.add(bare(SINK, "y"), [flow.add(box("last", "last"), ends).name])
    return flow


@pytest.mark.parametrize("seed", range(150))
def test_any_dataflow_is_drawn_without_overlaps(seed: int) -> None:
    found, placed = Scene(), Placed(tangle(seed))
    shapes = placed.paint(found, 0, 0, placed.width, placed.height + 50)
    found.add(Shape(placed.width / 2, placed.height / 2 + 25, placed.width, placed.height + 50, role="frame"))
    assert len(shapes) == len(placed.flow.nodes)
    assert not faults(found)


@pytest.mark.parametrize("name", ALL)
def test_every_line_is_right_angled(name: str) -> None:
    for way in scene(name).paths:
        for (x0, y0), (x1, y1) in pairwise(way.points):
            assert way.under or abs(x0 - x1) < 0.01 or abs(y0 - y1) < 0.01


@pytest.mark.parametrize("name", ALL)
def test_graphviz_draws_it_without_a_word(name: str) -> None:
    if shutil.which("neato") is None:
        pytest.skip("Graphviz is not installed: no neato on the PATH")
    text = to_dot(scene(name), name)
    done = subprocess.run(["neato", "-n2", "-Tsvg"], input=text.encode(), capture_output=True)
    assert (done.returncode, done.stderr.decode()) == (0, "")
    assert done.stdout.rstrip().endswith(b"</svg>")


def test_the_text_is_the_same_each_time() -> None:
    for name in ("three kinds of layers", "nested residuals"):
        spec = loads(CUSTOM[name])
        assert diagram(spec) == diagram(spec) == diagram(loads(CUSTOM[name]))
        assert diagram(spec).isascii()


def test_user_text_is_escaped() -> None:
    text = diagram(loads(CUSTOM["hostile names"]))
    assert "&lt;b&gt;&amp;]; }" in text
    assert "<b>" not in text
    assert escape("a\x00b \u00e9") == "a b &#233;"


def test_jamba_shows_what_it_is() -> None:
    (path,) = (p for p in SPECS if p.stem == "jamba_v0_1")
    text = re.sub(r"&#(\d+);", lambda m: chr(int(m[1])), diagram(load(path)))
    for part in ("51.57 B params", "12.11 B active / token", "\u00d7 4", "\u00d728", "KV cache 4 KiB / token / layer"):
        assert part in text
    for part in ("selective scan", "16 SwiGLU experts", "gate weights", "MoE 87.4 %", "pre-norm residual"):
        assert part in text


@pytest.mark.parametrize("name", ALL)
def test_the_totals_are_those_of_count(name: str) -> None:
    path = next((p for p in SPECS if p.stem == name), None)
    spec = load(path) if path is not None else loads(CUSTOM[name])
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


def words(spec: Spec) -> list[str]:
    return [line.text for s in draw(spec).shapes for line in s.lines]


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
    path = next((p for p in SPECS if p.stem == name), None)
    spec = load(path) if path is not None else loads(CUSTOM[name])
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
    image = load(next(p for p in SPECS if p.stem == "vit_base"))
    assert "images [B, 3, 224, 224]" in words(image)
    assert [w for w in words(image) if "class token" in w]


def test_it_is_quick() -> None:
    spec = loads(CUSTOM["three kinds of layers"])
    diagram(spec)
    times = []
    for _ in range(5):
        start = time.process_time()
        diagram(spec)
        times.append(time.process_time() - start)
    assert min(times) < 0.1  # about 0.015 on an idle machine


def test_render_writes_each_format(tmp_path: Path) -> None:
    spec = loads(CUSTOM["only attention"])
    starts = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}
    assert render(spec, tmp_path / "a.dot").read_text() == diagram(spec)
    if shutil.which("neato") is None:
        pytest.skip("Graphviz is not installed: no neato on the PATH")
    for kind, start in starts.items():
        assert render(spec, str(tmp_path / f"a.{kind}")).read_bytes().startswith(start)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.dot", "a.pdf", "a.png", "a.svg"]


def test_without_graphviz_only_dot_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    spec = loads(CUSTOM["only attention"])
    with pytest.raises(RenderError, match=r"Graphviz is not installed.*apt install graphviz.*dot file"):
        render(spec, tmp_path / "a.svg")
    assert list(tmp_path.iterdir()) == []
    assert render(spec, tmp_path / "a.dot").exists()


def test_a_failing_graphviz_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "neato"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho broken pipe organ >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/bin:/usr/bin")
    target = tmp_path / "a.svg"
    target.write_text("old")
    with pytest.raises(RenderError, match="broken pipe organ"):
        render(loads(CUSTOM["only attention"]), target)
    assert target.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.svg", "bin"]


@pytest.mark.parametrize(("name", "words"), [("a.jpeg", "the suffix '.jpeg'"), ("a", "no suffix")])
def test_other_suffixes_are_refused(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(RenderError) as caught:
        render(loads(CUSTOM["only attention"]), tmp_path / name)
    assert str(caught.value) == f"{tmp_path / name} has {words}; supported are .dot, .svg, .png, .pdf"


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(RenderError, match="cannot be written: No such file or directory"):
        render(loads(CUSTOM["only attention"]), tmp_path / "no" / "a.dot")


def test_numbers_in_short() -> None:
    assert [amount(n) for n in (864, 1253, 9999, 10_000, 65_536, 999_999, 4_456_448, 2_818_572_288)] == [
        "864",
        "1,253",
        "9,999",
        "10.0 K",
        "65.5 K",
        "1.00 M",
        "4.46 M",
        "2.82 B",
    ]
    assert amount(51_570_323_328, 4) == "51.57 B"
    assert [byte_size(n) for n in (12, 4096, 589_824, 2**32, 1_100_000)] == [
        "12 B",
        "4 KiB",
        "576 KiB",
        "4 GiB",
        "1.05 MiB",
    ]


def test_texts_are_measured_and_broken() -> None:
    assert measure("aa", 10) == pytest.approx(11.12)
    assert measure("aa", 10, True) == pytest.approx(11.12)
    assert wrap("one two three", 10, 40) == ["one two", "three"]
    assert shorten("x" * 100, 10, 50).endswith("\u2026")
    assert measure(shorten("x" * 100, 10, 50), 10) <= 50
    assert extent((Line("a", 10),))[1] == pytest.approx(15)


def test_corners_are_round_and_ends_are_kept() -> None:
    curve = rounded([(0, 0), (0, 10), (10, 10)])
    assert (curve[0], curve[-1]) == ((0, 0), (10, 10))
    assert len(curve) % 3 == 1
