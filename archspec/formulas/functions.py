"""What rules are written with beside `+ - *`: each takes whole numbers, sizes and formulas, and gives what it is given.

All are annotated as `int`, which formulas and sizes stand for.
"""

from fractions import Fraction
from math import ceil, log2
from typing import Any, cast

from archspec.formulas.polynomial import LESSER, LEVELS, LOG, ROUNDED_UP, Formula
from archspec.formulas.sizes import Size

HALF = Formula({(): Fraction(1, 2)})


def named(name: str) -> int:
    """A formula that is one name, for a rule that is written for numbers."""
    return cast(int, Formula.named(name))


def least(a: int, b: int) -> int:
    """The lesser of two."""
    return _function(LESSER, a, b) if _is_formula(a, b) else min(a, b)


def greatest(a: int, b: int) -> int:
    """The greater of two."""
    return a + b - least(a, b) if _is_formula(a, b) else max(a, b)


def ceil_div(a: int, b: int) -> int:
    """A quotient rounded up."""
    if _is_formula(a, b):
        return _function(ROUNDED_UP, a, b)
    if isinstance(a, Size) or isinstance(b, Size):
        return Size.of(-(-int(a) // int(b)), Formula.function(ROUNDED_UP, Formula.of(a), Formula.of(b)))
    return -(-a // b)


def at_least(a: int, bound: int) -> bool:
    """Whether a number reaches a bound; a formula that grows does: its form is that of long sequences."""
    if isinstance(a, Formula):
        return a.number is None or a.number >= bound
    return a >= bound


def half(a: int) -> int:
    """The half of an even number."""
    return cast(int, Formula.of(a) * HALF) if _is_formula(a) else a // 2


def log(a: int) -> Any:
    """The binary logarithm of at least 2."""
    return _function(LOG, a) if _is_formula(a) else log2(max(a, 2))


def levels(a: int) -> int:
    """The depth of a binary tree over so many leaves, at least 1."""
    return _function(LEVELS, a) if _is_formula(a) else ceil(log2(max(a, 2)))


def whole(a: Any) -> int:
    """What holds a logarithm, rounded down; a formula is rounded when numbers are put in."""
    return cast(int, a) if _is_formula(a) else int(a)


def _is_formula(*values: Any) -> bool:
    return any(isinstance(v, Formula) for v in values)


def _function(name: str, *arguments: int) -> Any:
    return Formula.function(name, *map(Formula.of, arguments))
