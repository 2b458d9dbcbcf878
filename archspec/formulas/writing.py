"""Formulas as people write them: what terms share before the bracket, lengths first, then sizes in a given order.

    4 B T^2 n_heads head_dim + 4 B T d_model head_dim (n_heads + n_kv_heads)

With numbers for the names the same text shows what is multiplied: `2 x 1 x 512 x 768 x 3,072`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from math import gcd, lcm

from archspec.formulas.polynomial import READING_ORDER, ROUNDED_UP, Atom, Exact, Formula, Power

Terms = dict[Power, Exact]
Part = tuple[bool, str]  # of a sum: whether it is taken away, and its text


def written(formula: Formula, order: Sequence[str] = (), numbers: Mapping[str, int] | None = None) -> str:
    """A formula as text; sizes stand in `order`, and where there are `numbers` these stand in the place of names."""
    return _Writer(order, numbers).sum(formula)


def in_lengths(formula: Formula) -> dict[Power, Formula]:
    """The terms by what they have of lengths (B, T, S, M and functions of these), fastest growing first."""
    found: dict[Power, Terms] = {}
    for power, factor in formula.terms.items():
        lengths = tuple((atom, n) for atom, n in power if _is_length(atom))
        found.setdefault(lengths, {})[tuple(p for p in power if not _is_length(p[0]))] = factor
    return {lengths: Formula(found[lengths]) for lengths in sorted(found, key=_speed, reverse=True)}


def _is_length(atom: Atom) -> bool:
    return not atom.names().isdisjoint(READING_ORDER)


def _speed(lengths: Power) -> tuple[int, int, str]:
    """How fast lengths grow together, a function of one less than the length itself."""
    return sum(n for atom, n in lengths if not atom.arguments), sum(n for _, n in lengths), str(lengths)


class _Writer:
    """Writes sums and products in one order, as names or as numbers."""

    def __init__(self, order: Sequence[str], numbers: Mapping[str, int] | None):
        self.places = {name: i for i, name in enumerate((*READING_ORDER, *order))}
        self.numbers = numbers
        self.times = " " if numbers is None else " x "

    def sum(self, formula: Formula) -> str:
        """A sum, what grows with one length in a bracket."""
        return self.joined(
            self.bracket({(*lengths, *power): n for power, n in sizes.terms.items()})
            for lengths, sizes in in_lengths(formula).items()
        )

    def bracket(self, terms: Terms) -> Part:
        """What terms share, times what is left of them; and whether it is taken away."""
        factor, shared = _shared(terms)
        if len(terms) == 1:
            return factor < 0, self.product(abs(factor), shared)
        left = {_without(power, shared): n / factor for power, n in terms.items()}
        inner = self.joined(self.grouped({power: _exact(n) for power, n in left.items()}))
        before = self.product(abs(factor), shared)
        return factor < 0, inner if before == "1" else f"{before}{self.times}({inner})"

    def grouped(self, terms: Terms) -> list[Part]:
        """The summands: those that share the name that most of them have in one bracket, then the others alike."""
        names = Counter(atom for power in terms for atom, _ in power)
        most = min(names, key=lambda atom: (-names[atom], self.place(((atom, 1),))), default=None)
        if most is None or names[most] < 2:
            ordered = sorted(terms.items(), key=lambda item: (item[1] < 0, self.place(item[0])))
            return [(n < 0, self.product(-n if n < 0 else n, power)) for power, n in ordered]
        having = {power: n for power, n in terms.items() if any(atom == most for atom, _ in power)}
        others = {power: n for power, n in terms.items() if power not in having}
        found = [self.bracket(having), *(self.grouped(others) if others else [])]
        return sorted(found, key=lambda part: part[0])

    def joined(self, parts: Iterable[Part]) -> str:
        """Terms with their signs between them."""
        text = ""
        for negative, part in parts:
            sign = "-" if negative else "+"
            text += f" {sign} {part}" if text else f"-{part}" if negative else part
        return text or "0"

    def product(self, factor: Exact, power: Power) -> str:
        """A number and what it is multiplied with."""
        atoms = sorted(power, key=lambda item: self.place((item,)))
        number = f"{factor.numerator:,}" + (f"/{factor.denominator}" if factor.denominator > 1 else "")
        words = [self.atom(atom, n) for atom, n in atoms]
        return self.times.join(words if factor == 1 and words else [number, *words])

    def atom(self, atom: Atom, exponent: int) -> str:
        """A name, or a function."""
        text = self.function(atom) if atom.arguments else self.name(atom.name)
        return text if exponent == 1 else f"{text}^{exponent}"

    def name(self, name: str) -> str:
        """A name, or its number."""
        return name if self.numbers is None or name not in self.numbers else f"{self.numbers[name]:,}"

    def function(self, atom: Atom) -> str:
        """A function of sums."""
        inside = [self.sum(argument) for argument in atom.arguments]
        if atom.name == ROUNDED_UP:
            below = inside[1] if _is_one(atom.arguments[1]) else f"({inside[1]})"
            return f"ceil({inside[0]} / {below})"
        return f"{atom.name}({', '.join(inside)})"

    def place(self, power: Power) -> tuple[tuple[int, str], ...]:
        """Where a product stands: by the names in it, functions after those, numbers last."""
        last = len(self.places)
        found = sorted((self.places.get(a.name, last + bool(a.arguments)), str(a)) for a, _ in power)
        return tuple(found) or ((last + 2, ""),)


def _shared(terms: Mapping[Power, Exact]) -> tuple[Fraction, Power]:
    """The largest factor of all terms: a number, negative where all are, and atoms."""
    numbers = list(terms.values())
    factor = Fraction(gcd(*(n.numerator for n in numbers)), lcm(*(n.denominator for n in numbers)))
    powers = [dict(power) for power in terms]
    shared = {a: min(p.get(a, 0) for p in powers) for a in powers[0]}
    return (-factor if all(n < 0 for n in numbers) else factor), tuple((a, n) for a, n in shared.items() if n)


def _is_one(formula: Formula) -> bool:
    """Whether it is a name, a function or a number by itself."""
    return len(formula.terms) == 1 and all(
        not power or (factor == 1 and len(power) == 1) for power, factor in formula.terms.items()
    )


def _exact(n: Exact) -> Exact:
    return n.numerator if n.denominator == 1 else n


def _without(power: Power, shared: Power) -> Power:
    taken = dict(shared)
    return tuple((a, n - taken.get(a, 0)) for a, n in power if n > taken.get(a, 0))
