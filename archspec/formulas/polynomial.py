"""Polynomials with exact coefficients whose unknowns are names and a few functions of other polynomials.

The functions are the lesser of two (windows), a quotient rounded up (chunks) and logarithms (FFTs, trees). A formula
with a minimum is piecewise: `bends` are the values at which it changes form, `decided` is its form at given values.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from math import ceil, log2
from operator import add, mul
from typing import Any

LESSER, ROUNDED_UP, LOG, LEVELS = "min", "ceil", "log2", "ceil log2"

FUNCTIONS: dict[str, Callable[..., Any]] = {
    LESSER: min,
    ROUNDED_UP: lambda a, b: -(-a // b),
    LOG: lambda a: log2(max(a, 2)),
    LEVELS: lambda a: ceil(log2(max(a, 2))),
}
READING_ORDER = ("B", "T", "S", "M")  # as people write them, before the sizes


@dataclass(frozen=True, slots=True, order=True)
class Growth:
    """The class of a formula in one name T: O(T^power (log T)^logs)."""

    power: int
    logs: int = 0

    def of(self, name: str) -> str:
        """`T^2`, `T log T`, `1`."""
        powers = [] if self.power == 0 else [name if self.power == 1 else f"{name}^{self.power}"]
        return " ".join([*powers, *[f"log {name}"] * self.logs]) or "1"


@dataclass(frozen=True, slots=True)
class Atom:
    """An unknown of a formula: a name, or a function of formulas (`arguments`)."""

    name: str
    arguments: tuple["Formula", ...] = ()

    def __str__(self) -> str:
        if not self.arguments:
            return self.name
        if self.name == ROUNDED_UP:
            return f"ceil({self.arguments[0]} / {self.arguments[1]})"
        return f"{self.name}({', '.join(map(str, self.arguments))})"

    def value(self, numbers: Mapping[str, int]) -> Any:
        """What it comes to."""
        if not self.arguments:
            return numbers[self.name]
        return FUNCTIONS[self.name](*(f.exact(numbers) for f in self.arguments))

    def names(self) -> set[str]:
        """The names in it."""
        return {name for f in self.arguments for name in f.names()} if self.arguments else {self.name}

    def growth(self, of: str) -> Growth:
        """How fast it grows with a name."""
        if not self.arguments:
            return Growth(int(self.name == of))
        grown = [f.growth(of) for f in self.arguments]
        if self.name in (LOG, LEVELS):
            return Growth(0, int(grown[0] > Growth(0)))
        return min(grown) if self.name == LESSER else grown[0]

    def reading(self) -> tuple[int, str]:
        """Where it stands in a product: B first, lengths, sizes, functions."""
        place = READING_ORDER.index(self.name) if self.name in READING_ORDER else len(READING_ORDER)
        return place + bool(self.arguments), str(self)


Power = tuple[tuple[Atom, int], ...]  # atoms with their exponents, in reading order
Exact = Fraction | int  # whole where it can be, since fractions take ten times as long


class Formula:
    """A sum of products; it stands for a whole number in `+`, `-`, `*` and `==`."""

    __slots__ = ("terms",)

    def __init__(self, terms: Mapping[Power, Exact]):
        self.terms: dict[Power, Exact] = {power: _exact(factor) for power, factor in terms.items() if factor}

    @staticmethod
    def of(value: Any) -> "Formula":
        """A number, a size or a formula as a formula."""
        return value if isinstance(value, Formula) else getattr(value, "formula", None) or Formula({(): value})

    @staticmethod
    def named(name: str) -> "Formula":
        """The formula that is one name."""
        return Formula({((Atom(name), 1),): 1})

    @staticmethod
    def function(name: str, *arguments: "Formula") -> "Formula":
        """A function of formulas; a number where they are numbers, the less where one is always less."""
        numbers = [a.number for a in arguments]
        if None not in numbers:
            return Formula({(): Fraction(FUNCTIONS[name](*numbers))})
        if name == ROUNDED_UP and arguments[0] == arguments[1]:
            return Formula({(): 1})
        if name == LESSER:
            if _never_negative(arguments[1] - arguments[0]):
                return arguments[0]
            if _never_negative(arguments[0] - arguments[1]):
                return arguments[1]
            arguments = tuple(sorted(arguments, key=str))
        return Formula({((Atom(name, arguments), 1),): 1})

    # Arithmetic

    def __add__(self, other: Any) -> "Formula":
        found: dict[Power, Exact] = dict(self.terms)
        for power, factor in Formula.of(other).terms.items():
            found[power] = found.get(power, 0) + factor
        return Formula(found)

    def __mul__(self, other: Any) -> "Formula":
        found: dict[Power, Exact] = {}
        others = Formula.of(other).terms.items()
        for p, a in self.terms.items():
            for q, b in others:
                power = _product(p, q)
                found[power] = found.get(power, 0) + a * b
        return Formula(found)

    def __neg__(self) -> "Formula":
        return self * -1

    def __sub__(self, other: Any) -> "Formula":
        return self + Formula.of(other) * -1

    def __rsub__(self, other: Any) -> "Formula":
        return Formula.of(other) - self

    __radd__, __rmul__ = __add__, __mul__

    def __eq__(self, other: object) -> bool:
        return self.terms == Formula.of(other).terms if isinstance(other, Formula | int) else NotImplemented

    def __hash__(self) -> int:
        return hash(frozenset(self.terms.items()))

    def __bool__(self) -> bool:
        return bool(self.terms)

    # What is asked of it

    @property
    def number(self) -> int | None:
        """The whole number that it is whatever its names stand for; None where they matter."""
        if not self.terms:
            return 0
        constant = self.terms.get(())
        return int(constant) if len(self.terms) == 1 and constant is not None else None

    def exact(self, numbers: Mapping[str, int]) -> Any:
        """What it comes to with numbers for all names: exact, but for logarithms.

        Raises:
            KeyError: a name has no number.
        """
        found = 0
        for power, factor in self.terms.items():
            term: Any = factor
            for atom, exponent in power:
                term = term * atom.value(numbers) ** exponent
            found = found + term
        return found

    def value(self, numbers: Mapping[str, int]) -> int:
        """The whole number that it comes to; what holds a logarithm is rounded down. KeyError as `exact`."""
        return int(self.exact(numbers))

    def put(self, **given: Any) -> "Formula":
        """The formula with numbers or other formulas in place of some names."""
        replaced = {name: Formula.of(value) for name, value in given.items()}
        return self._mapped(lambda atom: _put(atom, replaced))

    def decided(self, **numbers: int) -> "Formula":
        """Its form at those numbers: each minimum that they decide is replaced by the lesser side."""
        return self._mapped(lambda atom: _decided(atom, numbers))

    def names(self) -> set[str]:
        """The names in it."""
        return {name for power in self.terms for atom, _ in power for name in atom.names()}

    def growth(self, of: str = "T") -> Growth:
        """How fast it grows with a name, all others fixed."""
        return max((_growth(power, of) for power in self.terms), default=Growth(0))

    def leading(self, of: str = "T") -> "Formula":
        """The terms that grow fastest with a name."""
        fastest = self.growth(of)
        return Formula({p: factor for p, factor in self.terms.items() if _growth(p, of) == fastest})

    def bends(self, of: str = "T") -> list[int]:
        """The last value of a name before its form changes, for each change."""
        atoms = {atom for power in self.terms for atom, _ in power if atom.arguments}
        found = {at for atom in atoms for argument in atom.arguments for at in argument.bends(of)}
        return sorted(found | {at for atom in atoms if atom.name == LESSER for at in _crossing(atom.arguments, of)})

    def _mapped(self, change: Callable[[Atom], "Formula"]) -> "Formula":
        """The formula with each atom replaced."""
        return _sum(
            reduce(mul, [change(atom) for atom, exponent in power for _ in range(exponent)], Formula({(): factor}))
            for power, factor in self.terms.items()
        )

    def __str__(self) -> str:
        terms = sorted(self.terms.items(), key=lambda item: (-sum(e for _, e in item[0]), _written(item[0])))
        text = ""
        for power, factor in terms:
            sign = "-" if factor < 0 else "+"
            text += f" {sign} " if text else sign.replace("+", "")
            text += _term(power, -factor if factor < 0 else factor)
        return text or "0"

    __repr__ = __str__


def _exact(factor: Any) -> Exact:
    """A factor without rounding."""
    if type(factor) is int:
        return factor
    exact = Fraction(factor)
    return exact.numerator if exact.denominator == 1 else exact


def _never_negative(f: Formula) -> bool:
    """Whether a formula is seen to be at least 0, names standing for numbers of at least 1."""
    growing = [factor for power, factor in f.terms.items() if power]
    return min(growing, default=0) >= 0 and sum(f.terms.values()) >= 0 and all(map(_positive, f.terms))


def _positive(power: Power) -> bool:
    """Whether a product is at least 1: not where a minimum could be less."""
    return all(_never_negative(a - 1) for atom, _ in power if atom.name == LESSER for a in atom.arguments)


def _sum(parts: Iterable[Formula]) -> Formula:
    return reduce(add, parts, Formula({}))


def _product(p: Power, q: Power) -> Power:
    if not p or not q:
        return p or q
    found = dict(p)
    for atom, exponent in q:
        found[atom] = found.get(atom, 0) + exponent
    return tuple(sorted(found.items(), key=lambda item: item[0].reading()))


def _put(atom: Atom, given: Mapping[str, Formula]) -> Formula:
    if atom.arguments:
        return Formula.function(atom.name, *(a.put(**given) for a in atom.arguments))
    return given.get(atom.name, Formula({((atom, 1),): 1}))


def _decided(atom: Atom, numbers: Mapping[str, int]) -> Formula:
    if atom.name == LESSER and atom.names() <= set(numbers):
        return min((a.decided(**numbers) for a in atom.arguments), key=lambda f: f.exact(numbers))
    if atom.arguments:
        return Formula.function(atom.name, *(a.decided(**numbers) for a in atom.arguments))
    return Formula({((atom, 1),): 1})


def _growth(power: Power, of: str) -> Growth:
    parts = [(atom.growth(of), exponent) for atom, exponent in power]
    return Growth(sum(g.power * e for g, e in parts), sum(g.logs * e for g, e in parts))


def _crossing(sides: tuple[Formula, ...], of: str) -> set[int]:
    """The last whole number before two linear formulas in one name cross."""
    difference = sides[0] - sides[1]
    if difference.names() != {of} or difference.growth(of) != Growth(1):
        return set()
    slope = difference.terms.get(((Atom(of), 1),), 0)
    at = Fraction(-difference.terms.get((), 0)) / slope if slope else Fraction(0)
    return {int(at)} if at > 0 else set()


def _written(power: Power) -> str:
    return " ".join(str(atom) if exponent == 1 else f"{atom}^{exponent}" for atom, exponent in power)


def _term(power: Power, factor: Exact) -> str:
    number = f"{factor.numerator:,}" + (f"/{factor.denominator}" if factor.denominator > 1 else "")
    if not power:
        return number
    return _written(power) if factor == 1 else f"{number} {_written(power)}"
