"""An explanation as a value: terms with their formulas, in sections of components, in chapters of layers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from archspec.formulas import Formula
from archspec.formulas.writing import written
from archspec.passes.html import html_table
from archspec.passes.places import ranges
from archspec.passes.workload import Phase

What = Literal["params", "flops", "cache", "steps", "memory"]
WHATS: tuple[str, ...] = get_args(What)
UNITS = {"params": "parameters", "flops": "FLOPs", "cache": "bytes", "steps": "steps", "memory": "bytes"}


@dataclass(frozen=True)
class Term:
    """One summand.

    Attributes:
        op: below its layer.
        what: of the op: a tensor, forward or backward; of memory the tensor that it needs.
        formula: in B, T, S, M and sizes.
        numbers: what the names stand for.
        value: the whole number.
        rule: what the rule says of itself.
        shape: of a tensor; nothing of what is none.
    """

    op: str
    what: str
    formula: Formula = field(repr=False)
    numbers: Mapping[str, int] = field(repr=False)
    value: int
    rule: str = field(default="", repr=False)
    shape: tuple[Formula, ...] = field(default=(), repr=False)

    @property
    def text(self) -> str:
        """`2 B T d_model d_ff`; of a tensor its shape, `d_ff x d_model`."""
        order = tuple(self.numbers)
        sides = [f"({text})" if "+" in (text := written(side, order)) else text for side in self.shape]
        return " x ".join(sides) if self.shape else written(self.formula, order)

    @property
    def substituted(self) -> str:
        """`2 x 1 x 512 x 768 x 3,072`; of a tensor `3,072 x 768`."""
        sides = [f"{side.value(self.numbers):,}" for side in self.shape]
        return " x ".join(sides) if self.shape else written(self.formula, tuple(self.numbers), self.numbers)

    @property
    def equation(self) -> str:
        """Formula, the numbers put in, and what they come to; what says nothing new is left out."""
        texts = dict.fromkeys((self.text, self.substituted, f"{self.value:,}"))
        return " = ".join(texts)


@dataclass(frozen=True)
class Section:
    """The terms of one component, with its name, where it is from and what is worth knowing of it."""

    part: str
    title: str
    source: str
    terms: tuple[Term, ...]
    remarks: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """Their sum."""
        return sum(term.value for term in self.terms)


@dataclass(frozen=True)
class Chapter:
    """A layer that stands in several places (or what stands outside of the layers), part by part."""

    stack: str
    part: str
    layers: tuple[int, ...]
    times: int
    sections: tuple[Section, ...]

    @property
    def one(self) -> int:
        """The sum of one of them."""
        return sum(section.total for section in self.sections)

    @property
    def total(self) -> int:
        """That of all."""
        return self.times * self.one


@dataclass(frozen=True)
class Explanation:
    """Where a number comes from.

    Attributes:
        what: params, flops, cache, steps or memory.
        lengths: the numbers for B, T, S and M; none where they do not matter.
        phase: train, prefill or decode.
        layer: the one that is explained; nothing for the whole.
        stacks: their names.
    """

    name: str
    what: What
    phase: Phase
    lengths: Mapping[str, int]
    layer: str
    stacks: tuple[str, ...]
    chapters: tuple[Chapter, ...]

    @property
    def unit(self) -> str:
        """What is counted."""
        return UNITS[self.what]

    @property
    def total(self) -> int:
        """The sum of all chapters."""
        return sum(chapter.total for chapter in self.chapters)

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """Layers, part, op, term and equation, after a header."""
        found: list[tuple[str, ...]] = [("layers", "part", "op", "term", "equation")]
        for chapter in self.chapters:
            for section in chapter.sections:
                where = (ranges(chapter.layers), section.part)
                found += [(*where, term.op, term.what, term.equation) for term in section.terms]
        return [*found, ("", "", "", "total", f"{self.total:,} {self.unit}")]

    def _repr_html_(self) -> str:
        return html_table(self.rows, f"{self.name}: {self.unit}")
