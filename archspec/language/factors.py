"""The numbers of a wiring: `alpha * mixer(x)`, `1/3 * x`, `sqrt(0.5) * x` with their values put in.

Numbers are computed as everywhere in a spec, exactly for as long as they can be, and are rounded to float64 once, at
the end. What is left are names of tensors, plain numbers, arithmetic on the number of the layer, `+ - *` and calls:
nothing that runs a wiring meets more.
"""

from collections.abc import Callable, Collection
from dataclasses import replace
from fractions import Fraction

from archspec.errors import Fault
from archspec.language.arithmetic import evaluate
from archspec.language.depth import LAYER, reads_layer, with_sizes
from archspec.language.wiring import Assign, Binary, Call, Expr, Name, Negate, Number, PerLayer, Wiring, walk, written

Value = int | float | Fraction
EXACT = 2**53  # up to which float64 has every whole number


def with_factors(wiring: Wiring, sizes: Collection[str], size: Callable[[str], Value]) -> Wiring:
    """The wiring with the value of each number in its place.

    Args:
        wiring: as it was read.
        sizes: the names of sizes; a name that is neither one of them nor a tensor stays, to be told.
        size: the value of a name; raises Fault where there is none.

    Raises:
        Fault: with the line, for arithmetic that has no value, and where a line assigns the name of a size; without a
            word where the value is wrong for a reason that is told already.
    """
    tensors = {"x"}
    steps = []
    for number, step in enumerate(wiring.steps, 1):
        try:
            if step.target in sizes or step.target == LAYER:
                raise Fault(f"assigns {step.target!r}, which is the name of a size; choose another name")
            steps.append(Assign(step.target, _Filled(tensors, sizes, size).expr(step.value)))
        except Fault as fault:
            raise Fault(f"line {number}: {fault}" if str(fault) else "") from None
        tensors.add(step.target)
    return replace(wiring, steps=tuple(steps))


class _Filled:
    """The expressions of one line."""

    def __init__(self, tensors: Collection[str], sizes: Collection[str], size: Callable[[str], Value]):
        self.tensors, self.sizes, self.size = tensors, sizes, size

    def expr(self, expr: Expr) -> Expr:
        """An expression with its numbers computed, each as large a part of it as is one."""
        if self.is_number(expr) and not _is_plain(expr) and reads_layer(written(expr)):
            return PerLayer(with_sizes(written(expr), self.size))
        if self.is_number(expr):
            return _number(_plain(expr) if _is_plain(expr) else evaluate(written(expr), self.size))
        match expr:
            case Call(module=module, argument=argument):
                return Call(module, self.expr(argument))
            case Negate(operand=operand):
                return Negate(self.expr(operand))
            case Binary(operator=operator, left=left, right=right):
                return Binary(operator, self.expr(left), self.expr(right))
        return expr

    def is_number(self, expr: Expr) -> bool:
        """Whether no part of it is a tensor, or a name that nobody knows."""
        return all(
            part.name in (*self.sizes, LAYER) and part.name not in self.tensors
            for part in walk(expr)
            if isinstance(part, Name)
        ) and not any(isinstance(part, Call) for part in walk(expr))


def _is_plain(expr: Expr) -> bool:
    return isinstance(expr, Number) or (isinstance(expr, Negate) and isinstance(expr.operand, Number))


def _plain(expr: Expr) -> int | float:
    if isinstance(expr, Negate):
        return -_plain(expr.operand)
    assert isinstance(expr, Number)
    return expr.value


def _number(value: Value) -> Expr:
    """A number as PyTorch takes it: beyond EXACT whole numbers are floats too, where an int would not fit 64 bits."""
    found = value if isinstance(value, int) and abs(value) <= EXACT else float(value)
    return Negate(Number(-found)) if found < 0 else Number(found)
