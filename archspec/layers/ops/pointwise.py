"""What is done element by element: activations, gates, sums, rotations."""

from dataclasses import dataclass
from typing import ClassVar

from archspec.layers.ops.op import ELEMENTWISE, Op
from archspec.layers.tensors import Run, Shape

# functions that readers know
ADD, SUBTRACT, MULTIPLY, CONCAT, SCALE, SOFTCAP = "add", "subtract", "multiply", "concat", "scale", "soft-cap"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Elementwise(Op):
    """Anything without products of matrices: activations, gates, sums, reshapes, position rotations; `fn` names it.

    Where `activation` is given, the last input goes through it first (a gate: fn multiply, activation silu). `constant`
    is the number that takes part: the factor of a scale, the bound of a soft-cap. `fixed` says that its result does not
    depend on its tensors, which stand there for others.
    """

    fn: str
    activation: str = ""
    constant: float | None = None
    fixed: bool = False

    work: ClassVar[str] = ELEMENTWISE

    @property
    def learns(self) -> bool:
        """Not where its tensors are for others."""
        return not self.fixed and any(not p.buffer for p in self.params)

    def arithmetic(self, run: Run) -> int:
        """One for each element, and one where an activation goes before; what only moves numbers costs none."""
        return 0 if self.fn in ("input", CONCAT) else run.size(self.shape) * (2 if self.activation else 1)


def elementwise(
    fn: str,
    shape: Shape,
    inputs: tuple[str, ...],
    name: str = "",
    within: str = "",
    *,
    takes: tuple[str, ...] = (),
    constant: float | None = None,
) -> Elementwise:
    """A parameter-free element-wise op; its name is that of its function unless given."""
    return Elementwise(
        name=name or fn, fn=fn, shape=shape, inputs=inputs, within=within, takes=takes, constant=constant
    )


def gate(
    name: str,
    shape: Shape,
    inputs: tuple[str, str],
    activation: str = "",
    within: str = "",
    *,
    takes: tuple[str, ...] = (),
) -> Elementwise:
    """A product whose second factor, the gate, goes through an activation first."""
    return Elementwise(
        name=name, fn=MULTIPLY, shape=shape, inputs=inputs, activation=activation, within=within, takes=takes
    )
