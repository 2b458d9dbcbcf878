"""Whole numbers that remember which sizes of a model they were made of."""

from typing import Any

from archspec.formulas.polynomial import Formula


class Size(int):
    """A whole number that came from a size of the model, and remembers how: `d_inner`, `2 d_model`.

    It counts as the number. Sums, differences and products of it with whole numbers remember what they were made of,
    and with a formula give a formula in its name; any other operation gives the plain number.
    """

    formula: Formula

    @staticmethod
    def of(value: int, text: "str | Formula") -> "Size":
        """The number that goes by that name or formula."""
        made = Size(value)
        made.formula = Formula.named(text) if isinstance(text, str) else text
        return made

    def __add__(self, other: Any) -> Any:
        return Size.of(int(self) + int(other), self.formula + other) if isinstance(other, int) else NotImplemented

    def __sub__(self, other: Any) -> Any:
        return Size.of(int(self) - int(other), self.formula - other) if isinstance(other, int) else NotImplemented

    def __rsub__(self, other: Any) -> Any:
        return Size.of(int(other) - int(self), other - self.formula) if isinstance(other, int) else NotImplemented

    def __mul__(self, other: Any) -> Any:
        return Size.of(int(self) * int(other), self.formula * other) if isinstance(other, int) else NotImplemented

    __radd__, __rmul__ = __add__, __mul__
