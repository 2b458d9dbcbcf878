"""Figures of parts and wholes against `cost`, classes against the textbooks and the counter, forms, and kinds."""

from functools import partial
from itertools import pairwise
from math import log2, prod
from pathlib import Path
from typing import Literal

import pytest
import torch
from flop_oracle import counted
from formula_cases import SPECS, spec_of, tokens

from archspec import CostError, loads
from archspec.graph import graph
from archspec.language.model import Spec
from archspec.language.resolve import make
from archspec.layers.base import Component, MixerComponent
from archspec.layers.fields import Size as SizeOf
from archspec.layers.fields import Tokens, Width, derived, field, inherited
from archspec.layers.ops import Kept, Op, Run, Scan, linear
from archspec.layers.registry import find, kinds
from archspec.modules import by_itself
from archspec.passes.complexity import Complexity, complexity
from archspec.passes.cost import cost
from archspec.passes.count import kept
from archspec.passes.kinds import SIZES, KindRow, complexity_of_kinds, of_component
from archspec.passes.memory import memory

FOUND: dict[Path, Complexity] = {}
MANY = 10**6  # a max_seq_len that forbids nothing


def of(path: Path) -> Complexity:
    return FOUND.setdefault(path, complexity(spec_of(path)))


def workloads(spec: Spec) -> list[dict[str, int]]:
    most = spec.max_seq_len or MANY
    every = [{"batch": 1 + i % 3, "seq": T} for i, T in enumerate(tokens(spec)) if most >= T]
    several = len(spec.stacks) > 1
    return [w | ({"memory": min(most, 3 * w["seq"])} if several else {}) for w in every][::2] or every


# Against cost


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_the_whole_is_what_it_costs(path: Path) -> None:
    spec, whole = spec_of(path), of(path).whole
    for asked in workloads(spec):
        put = {"B": asked["batch"], "T": asked["seq"], "M": asked.get("memory")}
        train = cost(spec, **asked)  # type: ignore[arg-type]
        assert whole["training"].value(**put) == train.flops_forward + train.flops_backward
        assert whole["prefill"].value(**put) == train.flops_forward
        assert whole.get("needed", whole["prefill"]).value(**put) == train.flops_needed
        assert whole["steps"].value(**put) == train.sequential_steps


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_a_decoded_token_is_what_it_costs(path: Path) -> None:
    spec, found = spec_of(path), of(path)
    if found.silent:
        assert not {"decoding", "state"} & found.whole.keys()
        with pytest.raises(CostError, match="does not decode"):
            cost(spec, phase="decode", seq=3)
        return
    every = [n for n in graph(spec).nodes if n.stack == spec.main.name]
    for asked in workloads(spec):
        batch, seen, memory = asked["batch"], asked["seq"], asked.get("memory", 0)
        token = cost(spec, phase="decode", **asked)  # type: ignore[arg-type]
        assert found.whole["decoding"].value(B=batch, S=seen, M=memory) == token.flops_forward
        run = Run(batch, 1, seen, memory)
        numbers = sum(n.repeat * prod(k.needed(run)) for n, k in kept(every))
        assert found.whole["state"].value(B=batch, S=seen, M=memory) == numbers


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_the_whole_keeps_what_memory_says(path: Path) -> None:
    spec, kept_bytes = spec_of(path), of(path).whole["memory"]
    for asked in workloads(spec):
        batch, T, M = asked["batch"] + 1, asked["seq"], asked.get("memory")
        wanted = memory(spec, batch=batch, seq=T, memory_tokens=M, attention="flash")
        assert kept_bytes.value(B=batch, T=T, M=M) == wanted.saved_bytes


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_parts_add_up_to_the_whole(path: Path) -> None:
    found = of(path)
    for name in ("training", "prefill", "decoding", "state"):
        for T in (3, 64, 5000):
            parts = [p.times * p.figures[name].value(B=2, T=T, M=T + 1) for p in found.parts if name in p.figures]
            assert sum(parts) == (found.whole[name].value(B=2, T=T, M=T + 1) if name in found.whole else 0)


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_every_form_holds_from_its_first_length_to_its_last(path: Path) -> None:
    for part in of(path).parts:
        for f in part.figures.values():
            assert f.forms[0][0] == 1
            assert f.forms[-1][1] is None
            for first, last, form in f.forms:
                for n in {first, (last or 2 * first + 9), ((last or 3 * first) + first) // 2}:
                    lengths = dict.fromkeys(("T", "S", "M"), n)
                    assert form.value({**f.sizes, **lengths, "B": 3}) == f.formula.value({**f.sizes, **lengths, "B": 3})


def test_a_window_has_two_forms_and_its_ranges_are_told() -> None:
    mixer = of(Path("specs/mistral_7b.yaml")).parts[0]
    assert [when for when, _ in mixer.figures["needed"].pieces] == ["T <= 4,096", "beyond"]
    assert [when for when, _ in mixer.figures["decoding"].pieces] == ["S <= 4,096", "beyond"]
    assert [when for when, _ in mixer.figures["state"].pieces] == ["S <= 4,095", "beyond"]
    assert mixer.figures["state"].pieces[0][1] == "2 B S n_kv_heads head_dim"
    assert mixer.figures["state"].pieces[1][1] == "2 B n_kv_heads head_dim (window - 1)"


def test_layers_that_are_alike_stand_once() -> None:
    found = of(Path("specs/jamba_v0_1.yaml"))
    assert [(p.part, p.kind, p.times) for p in found.parts] == [
        ("mixer", "mamba", 28),
        ("ffn", "gated_mlp", 16),
        ("ffn", "moe", 16),
        ("mixer", "attention", 4),
        ("head", "lm", 1),
    ]
    assert found.parts[3].layers == (4, 12, 20, 28)


def test_equal_names_of_other_sizes_are_kept_apart() -> None:
    spec = loads(
        "{d_model: 16, vocab_size: 9, max_seq_len: 99, define: {a: {ffn: {kind: mlp, d_ff: 24}}, "
        "b: {ffn: {kind: mlp, d_ff: 40}}}, blocks: a b a}"
    )
    found = complexity(spec)
    ffns = [p for p in found.parts if p.part == "ffn"]
    assert [(p.layers, p.sizes["d_ff"]) for p in ffns] == [((0, 2), 24), ((1,), 40)]
    assert found.whole["prefill"].value(T=5) == cost(spec, seq=5).flops_forward


# Classes

PARTS = {
    ("gpt2", "attention"): ("O(T^2 d + T d^2)", "O(S d + d^2)", "O(S d)", "O(1)"),
    ("mistral_7b", "attention"): ("O(T w d + T d^2)", "O(w d + d^2)", "O(w h_kv p)", "O(1)"),
    ("mamba_130m", "mamba"): ("O(T d N + T d^2)", "O(d N + d^2)", "O(d N)", "O(log T)"),
    ("mamba2_130m", "mamba2"): ("O(T d N + T d^2)", "O(d N + d^2)", "O(d N)", "O(T/Q)"),
    ("hyena_small", "hyena"): ("O(T log T d + T d^2)", "O(S d + d^2)", "O(S d)", "O(log T)"),
    ("lstm_lm", "lstm"): ("O(T d^2)", "O(d^2)", "O(d)", "O(T)"),
    ("mixtral_8x7b", "moe"): ("O(T k d d_ff)", "O(k d d_ff)", "", "O(1)"),
    ("deepseek_v3", "mla"): ("O(T^2 h p + T h d p)", "O(S h r + h d p)", "O(S r)", "O(1)"),
    ("gpt2", "lm"): ("O(T d V)", "O(d V)", "", "O(1)"),
}


@pytest.mark.parametrize(("name", "kind"), PARTS)
def test_classes_of_parts_are_those_of_the_field(name: str, kind: str) -> None:
    part = next(p for p in of(Path(f"specs/{name}.yaml")).parts if p.kind == kind)
    f = part.figures
    state = f["state"].order if "state" in f else ""
    assert (f.get("needed", f["prefill"]).order, f["decoding"].order, state, f["steps"].order) == PARTS[name, kind]


KINDS = {(row.kind, row.setting): row for row in complexity_of_kinds().lines}
TEXTBOOK = {
    ("rnn", ""): ("O(T d^2)", "O(T)", "O(d^2)", "O(d)", "inherent"),
    ("lstm", ""): ("O(T d^2)", "O(T)", "O(d^2)", "O(d)", "inherent"),
    ("gru", ""): ("O(T d^2)", "O(T)", "O(d^2)", "O(d)", "inherent"),
    ("attention", ""): ("O(T^2 d)", "O(1)", "O(S d)", "O(S d)", "by its mask"),
    ("attention", "window"): ("O(T w d)", "O(1)", "O(w d)", "O(w d)", "inherent"),
    ("attention", "mask bidirectional"): ("O(T^2 d)", "O(1)", "", "", "needs positions"),
    ("attention", "mask cross"): ("O(T M d)", "O(1)", "O(M d)", "O(M d)", "needs positions"),
    ("mamba", ""): ("O(T d N)", "O(log T)", "O(d N)", "O(d N)", "inherent"),
    ("mamba2", ""): ("O(T d N)", "O(T/Q)", "O(d N)", "O(d N)", "inherent"),
    ("hyena", ""): ("O(T log T d)", "O(log T)", "O(S d)", "O(S d)", "inherent"),
    ("moe", ""): ("O(T k d d_ff)", "O(1)", "O(k d d_ff)", "", ""),
    ("mlp", ""): ("O(T d d_ff)", "O(1)", "O(d d_ff)", "", ""),
}


@pytest.mark.parametrize("kind", TEXTBOOK)
def test_the_table_of_kinds_is_that_of_the_textbooks(kind: tuple[str, str]) -> None:
    row = KINDS[kind]
    assert (row.work, row.steps, row.decoding, row.state, row.order) == TEXTBOOK[kind]


def test_online_softmax_does_the_same_work_in_memory_that_grows_with_the_text_alone() -> None:
    rows = [KINDS["attention", setting] for setting in ("", "mask bidirectional", "mask cross")]
    assert [(row.written, row.unfused) for row in rows] == [("O(T d)", "O(T^2 h)")] * 2 + [("O(T d)", "O(T M h)")]
    assert (KINDS["mamba", ""].written, KINDS["mamba", ""].unfused) == ("O(T d)", "O(T d N)")


MEMORY = {
    ("gpt2", "attention"): ("O(T d)", "2 B T (n_heads (5 head_dim + 2) + d_model)"),
    ("lstm_lm", "lstm"): ("O(T d)", "20 B T d_model"),
    ("t5_small", "attention"): ("O(M^2 h)", "2 M^2 n_heads + 2 B M (n_heads (5 head_dim + 2) + d_model)"),
    ("gpt2", "mlp"): ("O(T d_ff)", "2 B T (d_model + 2 d_ff)"),
    ("mamba2_130m", "mamba2"): ("O(T d N/Q)", ""),
    ("gpt2", "lm"): ("O(T d)", "2 B T d_model"),
}


@pytest.mark.parametrize(("name", "kind"), MEMORY)
def test_a_part_keeps_what_its_ops_need(name: str, kind: str) -> None:
    figure = next(p for p in of(Path(f"specs/{name}.yaml")).parts if p.kind == kind).figures["memory"]
    order, text = MEMORY[name, kind]
    assert figure.order == order
    assert not text or figure.text() == text


def test_memory_of_kinds_is_that_of_the_textbooks() -> None:
    for kind in ("attention", "mla", "hyena", "mamba", "rnn", "lstm", "gru"):
        assert KINDS[kind, ""].memory == "O(T d)"
    assert KINDS["attention", "mask cross"].memory == "O(T d)"
    assert KINDS["mlp", ""].memory == "O(T d_ff)"


@pytest.mark.parametrize("role", ["mixer", "ffn"])
def test_every_kind_has_a_line(role: str) -> None:
    assert {row.kind for row in KINDS.values() if row.role == role} == set(kinds(role))


def test_experts_that_a_token_does_not_run_cost_nothing() -> None:
    row: KindRow = KINDS["moe", ""]
    work = next(f for f in row.figures if f.name == "training")
    assert "n_experts" not in {
        n for p in work.formula.leading().terms for a, _ in p for n in a.names() if "d_ff" in str(p)
    }
    assert "top_k" in work.formula.names()


class LinearAttention(MixerComponent):
    """A mixer that is nowhere in the registry: a matrix state a head, in chunks."""

    kind: Literal["linear_attention"] = "linear_attention"
    d_model: Width = inherited("width")
    n_heads: SizeOf = field("heads")
    head_dim: Width = derived("channels of a head", "d_model / n_heads")
    chunk: Tokens = field("tokens of a chunk", 64)

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("state",)

    def ops(self) -> tuple[Op, ...]:
        width = self.n_heads * self.head_dim
        scan = Scan(
            name="memory", shape=("B", "T", self.n_heads, self.head_dim), inputs=("qkv",), width=width,
            d_state=self.head_dim, chunk=self.chunk, shared=width,
            kept=(Kept("s", ("B", self.n_heads, self.head_dim, self.head_dim)),),
        )  # fmt: skip
        return linear("qkv", self.d_model, 3 * width), scan, linear("o", width, self.d_model, inputs=("memory",))


@pytest.mark.parametrize("chunk", [16, 64, 256])
def test_a_new_mixer_has_its_classes_from_its_ops(chunk: int) -> None:
    found = of_component(LinearAttention(d_model=1024, n_heads=16, head_dim=64, chunk=chunk))
    orders = [found[name].order for name in ("prefill", "decoding", "state", "steps")]
    assert orders == ["O(T d p + T d^2)", "O(d p + d^2)", "O(d p)", "O(T/Q)"]


def narrow(kind: str) -> Component:
    """A mixer whose width is small against a text, so that what mixes tokens is most of its work."""
    return make("mixer", {"kind": kind, **find("mixer", kind).examples[0]}, **SIZES | {"d_model": 16, "d_memory": 16})


@pytest.mark.parametrize("kind", kinds("mixer"))
def test_the_counter_sees_work_grow_as_the_class_says(kind: str) -> None:
    c = narrow(kind)
    f = of_component(c)["prefill"]
    power = f.numeric.put(B=1).growth().power
    T = 16 if power == 1 else 256  # where the square is most of it
    with torch.device("meta"):
        m = by_itself(c)
        seen = [counted(partial(m, torch.empty(2, n, 16)))[0] for n in (T, 2 * T, 4 * T)]
    slopes = [log2(b / a) for a, b in pairwise(seen)]
    assert all(abs(slope - power) < 0.15 for slope in slopes), (slopes, power)
    assert slopes[1] >= slopes[0] - 1e-9


def test_html_has_every_row() -> None:
    found = of(Path("specs/t5_small.yaml"))
    html = found._repr_html_()
    assert html.count("<tr>") == len(found.rows)
    assert "O(T^2 d + T d^2)" in html
    assert complexity_of_kinds()._repr_html_().count("<tr>") == len(complexity_of_kinds().rows)


@pytest.mark.parametrize("lengths", [{"B": 0}, {"T": 0}, {"S": -1}])
def test_no_cost_for_no_text(lengths: dict[str, int]) -> None:
    with pytest.raises(CostError, match="must be at least 1"):
        of(Path("specs/gpt2.yaml")).whole["training"].value(**lengths)


def test_what_is_no_spec_is_told() -> None:
    with pytest.raises(TypeError, match=r"archspec\.load"):
        complexity("specs/gpt2.yaml")  # type: ignore[arg-type]
