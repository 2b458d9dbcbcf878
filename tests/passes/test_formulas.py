"""Formulas in named sizes are what the same rules give for numbers; their text says what they are."""

from math import floor
from pathlib import Path
from typing import Any

import pytest
from formula_cases import LENGTHS, SPECS, component, computed, examples, lengths, ops, spec_of, tokens

from archspec.formulas import Formula, Size
from archspec.formulas.functions import ceil_div, least, levels, log, named
from archspec.formulas.writing import written
from archspec.graph import graph
from archspec.language.model import Spec
from archspec.layers.ops import How, Op, Run
from archspec.passes.named import named_component, named_sizes, named_spec
from archspec.passes.work import Line, lines
from archspec.passes.workload import Phase, Workload

FIGURES = ("forward", "backward", "needed", "arithmetic", "read", "written", "steps")
NAMES = dict(zip("BTSM", map(named, "BTSM"), strict=True))


def lined(spec: Spec, phase: Phase, B: Any, T: Any, S: Any, M: Any) -> list[Line]:
    asked = Workload(phase, B, 1, S, M) if phase == "decode" else Workload(phase, B, T, T, M)
    return lines(graph(spec), asked.runs(spec), How(), phase)


def sizes(spec: Spec, line: Line) -> dict[str, int]:
    width = next(stack.d_model for stack in spec.stacks if stack.name == line.node.stack)
    return {"d_model": width, **named_sizes(line.node.component)}


@pytest.mark.parametrize("phase", ["train", "decode"])
@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_every_line_of_every_spec_with_numbers_put_in_is_the_number(path: Path, phase: Phase) -> None:
    spec = spec_of(path)
    if phase == "decode" and not spec.causal:
        pytest.skip("does not decode")
    formulas = lined(named_spec(spec), phase, **NAMES)
    for i, T in enumerate(tokens(spec)[::2]):
        found = {"B": 1 + i, "T": T, "S": LENGTHS[i], "M": 3 + 70 * i}
        for formula, number in zip(formulas, lined(spec, phase, **found), strict=True):
            put = found | sizes(spec, number)
            for figure in FIGURES:
                value = Formula.of(getattr(formula, figure)).value(put)
                assert value == getattr(number, figure), (number.node.name, figure)


@pytest.mark.parametrize(("role", "kind", "number"), examples())
def test_every_rule_of_every_kind(role: str, kind: str, number: int) -> None:
    c = component(role, kind, number)
    every = zip(ops(named_component(c), Size.of(16, "width")), ops(c, 16), strict=True)
    for formula, op in every:
        for put in lengths():
            text, token = Run(put["B"], put["T"], put["T"], put["M"]), Run(put["B"], 1, put["S"], put["M"], True)
            B, T, S, M = NAMES.values()
            known = {**put, "width": 16, **named_sizes(c)}
            check(formula, op, Run(B, T, T, M), text, known)
            check(formula, op, Run(B, 1, S, M, True), token, known)


def check(formula: Op, op: Op, run: Run, numbers: Run, known: dict[str, int]) -> None:
    for learns in (True, False):
        how = How(input_learns=learns)
        costs = ("flops", "needed_flops", "arithmetic", "steps", "weights_read")
        pairs = [(getattr(formula, cost)(run), getattr(op, cost)(numbers)) for cost in costs]
        pairs.append((formula.backward_flops(run, how), op.backward_flops(numbers, how)))
        for k, j in zip(formula.kept, op.kept, strict=True):
            pairs += zip(k.needed(run), j.needed(numbers), strict=True)
        for p, q in zip(formula.params, op.params, strict=True):
            pairs += zip(p.shape, q.shape, strict=True)
        for found, wanted in pairs:
            assert Formula.of(found).value(known) == wanted, op.name


@pytest.mark.parametrize(("role", "kind", "number"), examples())
def test_a_named_component_is_the_component(role: str, kind: str, number: int) -> None:
    c = component(role, kind, number)
    assert named_component(c) == c
    assert ops(named_component(c), 16) == ops(c, 16)


# Text


a, b, c, T = map(named, ("a", "b", "c", "T"))
TEXTS = {
    "0": a - a,
    "7": Formula({(): 7}),
    "a": a,
    "2 T a": T * 2 * a,
    "T a (2 a + b)": T * a * (a * 2 + b),
    "T^2 a + T b": T * T * a + T * b,
    "T a (b - 1)": T * a * b - T * a,
    "T a (b + 2) + 3 a": T * a * b + 2 * T * a + 3 * a,
    "T (a (b + c) + 2 b c)": T * a * b + T * a * c + 2 * T * b * c,
    "T a - b": T * a - b,
    "-T (a + b)": 0 - T * a - T * b,
    "b min(T, a)^2": b * least(T, a) * least(a, T),
    "b ceil(T / a)": b * ceil_div(T, a),
    "ceil(T / min(T, a))": ceil_div(T, least(T, a)),
    "ceil(2 T / (a b))": ceil_div(T * 2, a * b),
    "3 T a log2(2 T) + T b": 3 * T * a * log(2 * T) + T * b,
    "ceil log2(T) + 1": levels(T) + 1,
}


@pytest.mark.parametrize("text", TEXTS)
def test_a_formula_reads_as_people_write_it(text: str) -> None:
    assert written(Formula.of(TEXTS[text]), ("a", "b", "c")) == text


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("size", [(3, 5, 7, 4), (9, 2, 1, 1200)])
def test_text_and_formula_come_to_the_same(text: str, size: tuple[int, ...]) -> None:
    numbers = dict(zip(("a", "b", "c", "T"), size, strict=True))
    formula = Formula.of(TEXTS[text])
    assert floor(computed(text, numbers)) == formula.value(numbers)
    assert floor(computed(written(formula, ("a", "b", "c"), numbers), {})) == formula.value(numbers)


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_the_text_of_every_line_comes_to_its_number(path: Path) -> None:
    spec = spec_of(path)
    for line in lined(named_spec(spec), "train", **NAMES):
        known = {"B": 2, "T": 515, "S": 515, "M": 9, **sizes(spec, line)}
        for value in (line.forward, line.needed):
            formula = Formula.of(value)
            texts = (written(formula, tuple(known)), written(formula, tuple(known), known))
            assert {floor(computed(text, known)) for text in texts} == {formula.value(known)}


def test_a_size_that_repeats_another_goes_by_its_name() -> None:
    mha, gqa = component("mixer", "attention", 0), component("mixer", "attention", 1)
    k = {
        c: next(op for op in named_component(c).ops() if op.name == "k_proj").flops(Run(*map(named, "BTSM")))
        for c in (mha, gqa)
    }
    assert written(Formula.of(k[mha]), ("d_model", "n_heads", "head_dim")) == "2 B T d_model n_heads head_dim"
    assert written(Formula.of(k[gqa]), ("d_model", "n_kv_heads", "head_dim")) == "2 B T d_model n_kv_heads head_dim"
