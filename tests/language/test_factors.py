"""Numbers of a wiring: sizes, fractions and arithmetic, the same in every answer and exact in float64."""

import math
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import archspec
from archspec.errors import Fault, SpecError
from archspec.graph import graph
from archspec.language.factors import with_factors
from archspec.language.load import loads
from archspec.language.model import Spec
from archspec.language.show import show
from archspec.language.wiring import parse_wiring
from archspec.modules.model import eager
from archspec.passes.count import count

SIZES = {"alpha": Fraction(22, 100), "depth": Fraction(4), "third": Fraction(1, 3)}
SPEC = """\
d_model: 4
vocab_size: 7
sizes: {{alpha: 0.22, depth: 4, third: 1/3}}
define:
  one: {{ffn: {{kind: mlp, d_ff: 4}}, wiring: ["x = {}"]}}
  two: {{ffn: {{kind: mlp, d_ff: 4}}, wiring: ["x = {}"]}}
blocks: one two
head: lm
"""


def spec(one: str, two: str = "x + ffn(norm1(x))") -> Spec:
    return loads(SPEC.format(one, two))


def filled(line: str) -> str:
    def size(name: str) -> int | Fraction:
        return SIZES[name]

    return with_factors(parse_wiring([line]), SIZES, size).lines()[0]


@pytest.mark.parametrize(
    ("line", "numbers"),
    [
        ("x = x + alpha * ffn(x)", "x = x + 0.22 * ffn(x)"),
        ("x = x + 1/3 * ffn(x)", "x = x + 0.3333333333333333 * ffn(x)"),
        ("x = sqrt(0.5) * x", "x = 0.7071067811865476 * x"),
        ("x = x * (alpha + third) - -depth * x", "x = x * 0.5533333333333333 - -4 * x"),
        ("x = 2 * 3 * x", "x = 6 * x"),
        ("x = 2 * x * 3", "x = 2 * x * 3"),
        ("x = (depth * 3)**-0.5 * x", "x = 0.28867513459481287 * x"),
        ("x = max(alpha, third) * x", "x = 0.3333333333333333 * x"),
        ("x = round_up(depth, 3) * x", "x = 6 * x"),
        ("x = 3 * third * x", "x = 1 * x"),
        ("x = -(1/4) * x", "x = -0.25 * x"),
        ("x = 0.5 * x", "x = 0.5 * x"),
        ("x = depth // 3 % 2 * x", "x = 1 * x"),
    ],
)
def test_numbers_are_put_in(line: str, numbers: str) -> None:
    assert filled(line) == numbers
    assert parse_wiring([numbers]).lines() == (numbers,)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("x = x + alpha / 0 * ffn(x)", "line 1: `alpha / 0` divides by zero"),
        ("x = x + 1/beta * ffn(x)", "no size 'beta' is known here"),
        ("x = x + alhpa * ffn(x)", "reads 'alhpa', which no earlier line defines; did you mean the size 'alpha'?"),
        ("x = x + (alpha - 0.22) * ffn(x)", "line 1: the factor 0 leaves nothing of ffn(x)"),
        ("x = x + ffn(x) / 2", "so write 1/2 * ffn(x) (see: archspec layers wiring)"),
        ("x = x + sqrt(x) * ffn(x)", "which is no module of the block; sqrt of numbers and sizes is a number"),
        ("x = x + 10**40 * ffn(x)", "is too large"),
        ("x = x + ffn(alpha)", "line 1 gives 'ffn' a number; a module needs a tensor"),
    ],
)  # fmt: skip
def test_what_has_no_value_is_told_at_its_line(line: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec(line.removeprefix("x = "))
    assert words in str(caught.value)


def test_a_line_may_not_assign_a_size() -> None:
    with pytest.raises(Fault, match="line 1: assigns 'alpha', which is the name of a size; choose another name"):
        filled("alpha = x")


def test_blocks_with_other_values_are_not_one() -> None:
    found = spec("x + alpha * ffn(norm1(x))", "x + third * ffn(norm1(x))")
    assert [segment.repeat for segment in found.main.segments] == [1, 1]
    same = spec("x + 0.25 * ffn(norm1(x))", "x + 1/depth * ffn(norm1(x))")
    assert [segment.repeat for segment in same.main.segments] == [2]
    other = loads(SPEC.format("x + alpha * ffn(norm1(x))", "x + ffn(norm1(x))"), set="sizes.alpha=0.3")
    assert other.main.layers[0].block != found.main.layers[0].block
    assert other.digest != loads(SPEC.format("x + alpha * ffn(norm1(x))", "x + ffn(norm1(x))")).digest


def test_every_answer_shows_the_value(tmp_path: Path) -> None:
    found = spec("x + alpha * ffn(norm1(x))")
    assert loads(show(found)) == found
    assert "x = x + 0.22 * ffn(norm1(x))" in show(found)
    assert "0.22 * self.ffn(self.norm1(x))" in archspec.generate(found)
    assert "0.22" in archspec.render(found, tmp_path / "picture.dot").read_text(encoding="utf-8")
    assert any(getattr(node.op, "fn", "") == "* 0.22" for node in graph(found).nodes)


def test_the_depth_of_a_stack_is_a_size() -> None:
    found = spec("x + 1/sqrt(2 * n_layers) * ffn(norm1(x))")
    assert found.main.layers[0].block.wiring.lines() == ("x = x + 0.5 * ffn(norm1(x))",)


def test_a_size_that_only_a_wiring_reads_is_used() -> None:
    assert not [w for w in spec("x + alpha * third * depth * ffn(norm1(x))").warnings if "alpha" in w.path]


# Arithmetic and the tensors around it, with the same in plain Python; sizes are exact, and rounded once

ATOMS = st.sampled_from([*SIZES.items(), ("0.5", Fraction(1, 2)), ("3", Fraction(3))])


def joined(pair: tuple[tuple[str, Fraction], tuple[str, Fraction]], sign: str) -> tuple[str, Fraction]:
    (left, a), (right, b) = pair
    value = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else Fraction(0)}[sign]
    return (f"({left} {sign} {right})", value) if b or sign != "/" else (f"({left} + {right})", a + b)


NUMBERS = st.recursive(
    ATOMS, lambda inner: st.builds(joined, st.tuples(inner, inner), st.sampled_from("+-*/")), max_leaves=6
)


@settings(max_examples=12, deadline=None)
@given(NUMBERS, NUMBERS)
def test_eager_and_generated_agree_with_a_hand_evaluation(one: tuple[str, Fraction], two: tuple[str, Fraction]) -> None:
    (a, first), (b, second) = one, two
    if not first or not second or max(abs(first), abs(second)) > 100 or len(a + b) > 100:
        return
    found = spec(f"{a} * x + ffn(norm1(x)) * {b}")
    factors = [math.copysign(float(abs(value)), value) for value in (first, second)]
    for model in (archspec.build(found, seed=0), eager(found)):
        model = model.double()
        block = model.blocks[0]
        x = torch.linspace(-2, 2, 12, dtype=torch.float64).view(1, 3, 4)
        with torch.no_grad():
            assert torch.equal(block(x), factors[0] * x + block.ffn(block.norm1(x)) * factors[1])
        assert count(found).total == sum(p.numel() for p in model.parameters())
