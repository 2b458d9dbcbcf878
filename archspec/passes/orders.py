"""The class of a cost, as the field writes it: `T^2 d`, `T d N`, `T log T d`.

Of a formula the terms that grow fastest with a length are kept, of these the one that is largest at the sizes of the
model, and of that one the sizes without which the class would say nothing: counts that are bounded by a small number
(taps of a filter network, layers of a cell) are constants. In a mixer a width that is by default a multiple of d_model
is d as well, and so are heads times their width where they make up such a width.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from archspec.formulas import Formula
from archspec.formulas.polynomial import LEVELS, LOG, READING_ORDER, ROUNDED_UP, Power
from archspec.layers.base import Component, MixerComponent
from archspec.layers.fields import LARGEST, extra, most

FAR = 2**50  # a length beyond every window
# the letters of the field, in the order in which they are written
LETTERS = {
    "window": "w",
    "chunk": "Q",
    "top_k": "k",
    "n_experts": "E",
    "n_heads": "h",
    "n_kv_heads": "h_kv",
    "d_model": "d",
    "d_state": "N",
    "kv_lora_rank": "r",
    "vocab_size": "V",
}
HEAD = re.compile(r"(\w+_)?head_dim")  # a width of heads, written p
MULTIPLE = re.compile(r"(?:(\d+) \* )?d_model")
MOST = 4  # times d_model that a width may be to go by its letter


class Reading:
    """How the sizes of a component are read in a class.

    Sizes that are `free` (of chunks, which are nothing but the way in which a recurrence is computed) are chosen so
    that they make no term the largest.
    """

    def __init__(self, c: Component | None, sizes: Mapping[str, int], free: frozenset[str] = frozenset()):
        self.sizes, self.free = sizes, free
        self.d_model = sizes.get("d_model", 0)
        fields = {} if c is None else type(c).model_fields
        self.bounded = {name for name, info in fields.items() if most(info) < LARGEST}
        mixes = isinstance(c, MixerComponent)
        formulas = {name: str(extra(info).get("formula", "")) for name, info in fields.items()}
        self.wide = {n for n, text in formulas.items() if mixes and MULTIPLE.fullmatch(text) and self._is_wide(n)}
        self.wide |= {"d_model"}

    def order(self, formula: Formula, of: str) -> str:
        """The class of a formula in a length, without O( ): `T^2 d`, `1`."""
        beyond = dict.fromkeys(READING_ORDER, FAR)
        whole = formula.put(B=1).decided(**{**self.sizes, **beyond, of: FAR})
        leading = whole.leading(of).terms
        if not leading:
            return "1"
        return self._written(max(leading, key=lambda p: self._size(p, leading[p])))

    def _size(self, power: Power, factor: object) -> float:
        """How large a term is at a great length, for comparison."""
        lengths = dict.fromkeys(READING_ORDER, 2**20) | dict.fromkeys(self.free, 1)
        return float(Formula({power: 1}).exact({**self.sizes, **lengths})) * abs(float(factor))  # type: ignore[arg-type]

    def _written(self, power: Power) -> str:
        found = self._letters(self._factors(power))
        above = " ".join(_raised(name, n) for name, n in found if n > 0)
        below = " ".join(_raised(name, -n) for name, n in found if n < 0)
        return f"{above or '1'}/{below}" if below else above or "1"

    def _factors(self, power: Power) -> Counter[str]:
        """Names with their exponents; functions as what they grow like (minima are decided by now)."""
        found: Counter[str] = Counter()
        for atom, n in power:
            if not atom.arguments:
                found[atom.name] += n
            elif atom.name in (LOG, LEVELS):
                found[f"log {'/'.join(sorted(atom.names()))}"] += n
            elif atom.name == ROUNDED_UP:
                for side, sign in zip(atom.arguments, (1, -1), strict=True):
                    for name, m in self._factors(max(side.terms, key=lambda p: self._size(p, 1))).items():
                        found[name] += sign * n * m
        return found

    def _letters(self, factors: Counter[str]) -> list[tuple[str, int]]:
        """The factors as letters in the order of the field."""
        found: Counter[str] = Counter()
        left = Counter({name: n for name, n in factors.items() if name not in self.bounded and n})
        for count, width in [(a, b) for a in left for b in left if a.startswith("n_") and HEAD.fullmatch(b)]:
            together = min(left[count], left[width])
            if together > 0 and self._makes_width(count, width):
                found["d"] += together
                left.subtract({count: together, width: together})
        for name, n in left.items():
            found["d" if name in self.wide else "p" if HEAD.fullmatch(name) else LETTERS.get(name, name)] += n
        places = [*READING_ORDER, *(f"log {name}" for name in READING_ORDER), *LETTERS.values(), "p"]
        last = len(places)
        return sorted(found.items(), key=lambda item: places.index(item[0]) if item[0] in places else last)

    def _makes_width(self, count: str, width: str) -> bool:
        """Whether so many heads of that width are together a width of the model."""
        made = self.sizes.get(count, 0) * self.sizes.get(width, 0)
        return made in {self.sizes.get(name) for name in self.wide}

    def _is_wide(self, name: str) -> bool:
        times, left = divmod(self.sizes.get(name, 0), self.d_model or 1)
        return not left and 1 <= times <= MOST


def joined(orders: list[str]) -> str:
    """The class of a sum: `O(T^2 d + T d^2)`."""
    return f"O({' + '.join(dict.fromkeys(orders)) or '1'})"


def legend(orders: Iterable[str]) -> list[str]:
    """What the letters in some classes stand for: `d = d_model`."""
    used = {word.partition("^")[0] for order in orders for word in re.split(r"[() +/]", order)}
    multiples = {"d_model": " (and widths of a mixer that are a multiple of it)"}
    found = [f"{letter} = {name}{multiples.get(name, '')}" for name, letter in LETTERS.items() if letter in used]
    return [*found, *(["p = head_dim"] if "p" in used else [])]


def _raised(name: str, n: int) -> str:
    return name if n == 1 else f"{name}^{n}"
