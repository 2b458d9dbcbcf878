"""A cost as a formula, with the numbers behind its names, its class and its pieces."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

from archspec.errors import CostError
from archspec.formulas import Formula
from archspec.formulas.writing import written
from archspec.layers.base import Component, MixerComponent
from archspec.layers.ops import Linear, Op, Scan
from archspec.passes.orders import Reading, joined
from archspec.passes.work import Line

LENGTHS = ("T", "S", "M")
Terms = tuple[tuple[int, Formula], ...]
Costs = Callable[[Line], Sequence[Any]]  # what a line adds to a cost, each rounded by itself


@dataclass(frozen=True)
class Figure:
    """A cost of some ops together.

    Attributes:
        name: what it is: training, prefill, needed, decoding, state, steps, memory.
        length: the length that its class speaks of: T, S or M.
        terms: what ops cost, and how often; each is rounded by itself where it holds a logarithm.
        sizes: what the names in it stand for, in the order in which they are written.
        order: its class, `O(T^2 d + T d^2)`.
    """

    name: str
    length: str
    terms: Terms = field(repr=False)
    sizes: Mapping[str, int] = field(repr=False)
    order: str

    @cached_property
    def formula(self) -> Formula:
        """The sum of its terms in B, lengths and sizes."""
        return sum((formula * times for times, formula in self.terms), start=Formula({}))

    @cached_property
    def numeric(self) -> Formula:
        """The same with numbers for its sizes."""
        return self.formula.put(**self.sizes)

    def value(self, *, B: int = 1, T: int = 1, S: int | None = None, M: int | None = None) -> int:
        """What it comes to for B sequences of T tokens that see S, over a memory of M (both T unless given).

        Raises:
            CostError: a size is none.
        """
        for name, given in (("B", B), ("T", T), ("S", S)):
            if given is not None and given < 1:
                raise CostError(f"{name} = {given} must be at least 1")
        numbers = {**self.sizes, "B": B, "T": T, "S": T if S is None else S, "M": T if M is None else M}
        return sum(times * formula.value(numbers) for times, formula in self.terms)

    def text(self) -> str:
        """The formula in its names."""
        return written(self.formula, tuple(self.sizes))

    @cached_property
    def bends(self) -> list[int]:
        """The last length before its form changes, for each change."""
        alone = {name: Formula.named(self.length) for name in LENGTHS if name != self.length}
        return self.numeric.put(**alone).bends(self.length)

    @property
    def forms(self) -> list[tuple[int, int | None, Formula]]:
        """Its forms, each with the first and the last length for which it holds; None where it holds for all longer."""
        ends = [0, *self.bends]
        lasts = [*self.bends, None]
        # decided within a range, not at its end, where two forms have the same value
        inside = [*(max(b - 1, a + 1) for a, b in pairwise(ends)), 2 * ends[-1] + 2]
        return [(a + 1, b, self._decided(at)) for a, b, at in zip(ends, lasts, inside, strict=True)]

    @property
    def pieces(self) -> list[tuple[str, str]]:
        """Its forms as text, each with the lengths for which it holds; nothing is said of a single form."""
        return [(self._where(a, b), written(form, tuple(self.sizes))) for a, b, form in self.forms]

    def _where(self, first: int, last: int | None) -> str:
        if last is None:
            return "beyond" if first > 1 else ""
        return f"{self.length} <= {last:,}" if first == 1 else f"to {last:,}"

    def _decided(self, at: int) -> Formula:
        return (
            self.formula.decided(**{**self.sizes, "B": 1, **dict.fromkeys(LENGTHS, at)}) if self.bends else self.formula
        )


class Maker:
    """Makes figures of the lines of one component."""

    def __init__(self, c: Component | None, sizes: Mapping[str, int], ops: Iterable[Op]):
        chunks = [Formula.of(op.chunk).names() for op in ops if isinstance(op, Scan) and op.chunk]
        self.sizes, self.reading = sizes, Reading(c, sizes, frozenset().union(*chunks))
        self.mixes = isinstance(c, MixerComponent)

    def work(self, name: str, length: str, lines: Sequence[Line], costs: Costs) -> Figure | None:
        """A figure of FLOPs; of a mixer the class names what mixes tokens before the projections. None where nought.

        What mixes without products (WKV) is named by its element-wise work.
        """
        terms = tuple((1, Formula.of(cost)) for line in lines for cost in costs(line) if cost)
        if not terms:
            return None
        mixing = [line for line in lines if self.mixes and not isinstance(line.node.op, Linear)]
        beside = [line for line in lines if line not in mixing]
        sums = [sum((Formula.of(n) for line in each for n in costs(line)), Formula({})) for each in (mixing, beside)]
        if not sums[0]:
            sums[0] = sum((Formula.of(line.node.op.arithmetic(line.run)) for line in mixing), Formula({}))
        return Figure(name, length, terms, self.sizes, joined([self.reading.order(f, length) for f in sums if f]))

    def plain(self, name: str, length: str, values: Iterable[Any]) -> Figure | None:
        """A figure of one class. None where nought."""
        terms = tuple((1, Formula.of(value)) for value in values if value)
        if not terms:
            return None
        found = Figure(name, length, terms, self.sizes, "")
        return Figure(name, length, terms, self.sizes, joined([self.reading.order(found.formula, length)]))
