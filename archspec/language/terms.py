"""The terms of a wiring: sums as what is added how often, so that what cancels out is found whatever it is called.

A term is the input, what a module gives for an argument, or a product of two tensors; products are not multiplied out.
"""

from collections.abc import Iterator
from fractions import Fraction
from itertools import count

from archspec.language.wiring import Binary, Call, Expr, Name, Negate, Number, PerLayer, Wiring, written

Term = int  # equal terms have one number
Sum = dict[Term, Fraction]
RANDOM = "dropout"  # which gives something else each time


def cancelled(wiring: Wiring) -> Iterator[tuple[str, bool]]:
    """For each line in which a term is added and taken away: what is to be told, and whether other terms are left."""
    return _Terms().lines(wiring)


class _Terms:
    """The sums of the values so far."""

    def __init__(self) -> None:
        self.numbers: dict[object, Term] = {}
        self.fresh = count(-1, -1)
        self.values: dict[str, Sum] = {"x": {self.term("x"): Fraction(1)}}
        self.lost: tuple[str, bool] | None = None

    def term(self, what: object) -> Term:
        """The number of a term."""
        return self.numbers.setdefault(what, len(self.numbers))

    def lines(self, wiring: Wiring) -> Iterator[tuple[str, bool]]:
        """What cancels out, line by line; what an unknown name stands for is told elsewhere."""
        for number, step in enumerate(wiring.steps, 1):
            self.lost = None
            self.values[step.target] = self.sum(step.value)
            if self.lost is not None:
                text, left = self.lost
                what = "a term that is added and taken away; remove it" if left else "what it is made of"
                yield f"line {number}: {text} leaves nothing of {what}", left

    def sum(self, expr: Expr) -> Sum:
        """The terms of an expression, each as often as it is added."""
        match expr:
            case Number(value=value):
                return {self.term("1"): Fraction(repr(value))}
            case PerLayer(text=text):
                return {self.term(("per layer", text)): Fraction(1)}
            case Name(name=name):
                return self.values.get(name) or {self.term(("unknown", name)): Fraction(1)}
            case Negate(operand=operand):
                return {term: -times for term, times in self.sum(operand).items()}
            case Call(module=module, argument=argument):
                given = frozenset(self.sum(argument).items())
                return {next(self.fresh) if module == RANDOM else self.term((module, given)): Fraction(1)}
            case Binary(operator="*", left=left, right=right):
                return self.product(self.sum(left), self.sum(right))
            case Binary(operator=operator, left=left, right=right):
                return self.added(self.sum(left), self.sum(right), 1 if operator == "+" else -1, expr)
        raise TypeError(f"{written(expr)} has no value yet")

    def product(self, left: Sum, right: Sum) -> Sum:
        """A number times a sum, term by term; else one term."""
        for factor, other in ((left, right), (right, left)):
            if factor.keys() == {self.term("1")}:
                return {term: times * factor[self.term("1")] for term, times in other.items()}
        both = frozenset((frozenset(left.items()), frozenset(right.items())))
        return {self.term(("product", both)): Fraction(1)}

    def added(self, left: Sum, right: Sum, sign: int, expr: Expr) -> Sum:
        """The sum of both, in which nothing may cancel out."""
        found = dict(left)
        for term, times in right.items():
            found[term] = found.get(term, Fraction(0)) + sign * times
        gone = [term for term, times in found.items() if not times]
        found = {term: times for term, times in found.items() if times}
        if gone and (self.lost is None or not found):
            self.lost = written(expr), bool(found)
        return found
