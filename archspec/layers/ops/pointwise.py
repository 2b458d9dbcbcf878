"""What is done element by element: activations, gates, sums, rotations."""

from dataclasses import dataclass
from typing import ClassVar

from archspec.formulas.functions import at_least
from archspec.kernels.thresholds import NUMBERS_TURNED
from archspec.layers.ops.op import ELEMENTWISE, Op
from archspec.layers.ops.pointwise_memory import ITSELF, activated
from archspec.layers.tensors import Dtype, How, Run, Saved, Shape

# functions that readers know
ADD, SUBTRACT, MULTIPLY, CONCAT, SCALE, SOFTCAP = "add", "subtract", "multiply", "concat", "scale", "soft-cap"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Elementwise(Op):
    """Anything without products of matrices: activations, gates, sums, reshapes, position rotations; `fn` names it.

    Where `activation` is given, the last input goes through it first (a gate: fn multiply, activation silu). `constant`
    is the number that takes part: the factor of a scale, the bound of a soft-cap. `fixed` says that its result does not
    depend on its tensors, which stand there for others. It is computed in `dtype`; `gates` is the shape of the gate,
    where that is another.
    """

    fn: str
    activation: str = ""
    constant: float | None = None
    fixed: bool = False
    dtype: Dtype = "model"
    gates: Shape = ()

    work: ClassVar[str] = ELEMENTWISE

    @property
    def learns(self) -> bool:
        """Not where its tensors are for others."""
        return not self.fixed and any(not p.buffer for p in self.params)

    def arithmetic(self, run: Run) -> int:
        """One for each element, and one where an activation goes before; what only moves numbers costs none."""
        return 0 if self.fn in ("input", CONCAT) else run.size(self.shape) * (2 if self.activation else 1)

    def gives(self, run: Run, how: How) -> Saved:
        """A tensor of its own, unless it only looks at its input in another way, or another op's kernel computes it."""
        if self.inputs and (self.fn in ITSELF or (self.within and self.fn != CONCAT)):
            return Saved(self.inputs[0])
        return Saved("", self.shape, self.dtype)

    def saved(self, run: Run, how: How) -> tuple[Saved, ...]:
        """What its function keeps; a product keeps its factors."""
        if self.within:
            return ()
        if self.fn == SOFTCAP:
            return (Saved("bent", self.shape, self.dtype),)
        if self.fn != MULTIPLY:
            kept = activated(self.fn, self.inputs[0] if self.inputs else "", "", self.shape, self.dtype)
            return (*kept, *(Saved(i) for i in self.inputs)) if self.params else kept
        factors = [Saved(i) for i in self.inputs]
        if not self.activation:
            return tuple(factors)
        shape = self.gates or self.shape
        activation = activated(self.activation, self.inputs[-1], "gate", shape, self.dtype)
        return (*factors[:-1], Saved("gate", shape, self.dtype), *activation)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Rotate(Elementwise):
    """A rotation by positions of queries or of keys, which one call turns together.

    `pairs` is the number of channel pairs that turn, `together` the shapes of queries and keys; the op that `tables`
    makes their cosines and sines.
    """

    pairs: int
    together: tuple[Shape, Shape]
    tables: bool = True

    def scattered(self, run: Run, how: How) -> bool:
        """No: what is turned is written head by head."""
        return False

    def saved(self, run: Run, how: How) -> tuple[Saved, ...]:
        """The tables; the operator, which takes many numbers, also keeps what it turns, which no gradient reads."""
        table = ("T", self.pairs)
        tables = (Saved("cos", table, "float32"), Saved("sin", table, "float32")) if self.tables else ()
        if how.on_cpu and not at_least(sum(map(run.size, self.together)), NUMBERS_TURNED):
            return tables
        return (*tables, Saved(self.inputs[0]))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class StepSize(Elementwise):
    """softplus of its input and a bias, `limited` to a range."""

    limited: bool

    def saved(self, run: Run, how: How) -> tuple[Saved, ...]:
        """The sum, and before the limits the step itself."""
        total = Saved("sum", self.shape, self.dtype)
        return (total, Saved("unlimited", self.shape, self.dtype)) if self.limited else (total,)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Features(Elementwise):
    """Features of the positions: constants, or the parameter of that name (`learned`)."""

    learned: str = ""

    def gives(self, run: Run, how: How) -> Saved:
        """The parameter, or what is computed."""
        return Saved(self._parameter if self.learned else "", self.shape, self.dtype)

    @property
    def _parameter(self) -> str:
        return next(p.name for p in self.params if p.name.rpartition(".")[2] == self.learned)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Sine(Elementwise):
    """sin(f x) with a frequency for each channel, which is `learned` or one constant."""

    learned: bool

    def saved(self, run: Run, how: How) -> tuple[Saved, ...]:
        """The angles, and the factors of those that learn."""
        angles = Saved("angles", self.shape, self.dtype)
        copy = (Saved("frequencies", self.shape[-1:], self.dtype),) if how.width < 4 else ()
        return (angles, Saved(self.inputs[0]), *copy) if self.learned else (angles,)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Decay(Elementwise):
    """x (exp(-t r) + shift) with a rate r for each channel, which is `learned` or constant."""

    learned: bool

    def saved(self, run: Run, how: How) -> tuple[Saved, ...]:
        """What x is multiplied with; where that learns also x, times, rates and exponentials."""
        window = Saved("window", self.shape, self.dtype)
        if not self.learned:
            return (window,)
        copy = (Saved("rates", self.shape[-1:], self.dtype),) if how.width < 4 else ()
        times = Saved("times", (*self.shape[:-1], 1), self.dtype)
        return (window, Saved(self.inputs[0]), times, Saved("exponentials", self.shape, self.dtype), *copy)


def rotations(queries: tuple[Shape, str], keys: tuple[Shape, str], pairs: int, takes: tuple[str, ...] = ()) -> list[Op]:
    """The rotations `q_rope` and `k_rope` of queries and keys, each (shape, op that gives them)."""
    (q_shape, q), (k_shape, k) = queries, keys
    together = (q_shape, k_shape)
    return [
        Rotate(name="q_rope", fn="rope", shape=q_shape, inputs=(q,), pairs=pairs, together=together),
        Rotate(name="k_rope", fn="rope", shape=k_shape, inputs=(k,), takes=takes, pairs=pairs, together=together,
               tables=False),
    ]  # fmt: skip


def elementwise(
    fn: str,
    shape: Shape,
    inputs: tuple[str, ...],
    name: str = "",
    within: str = "",
    *,
    takes: tuple[str, ...] = (),
    constant: float | None = None,
    dtype: Dtype = "model",
) -> Elementwise:
    """A parameter-free element-wise op; its name is that of its function unless given."""
    return Elementwise(
        name=name or fn, fn=fn, shape=shape, inputs=inputs, within=within, takes=takes, constant=constant,
        dtype=dtype,
    )  # fmt: skip


def gate(
    name: str,
    shape: Shape,
    inputs: tuple[str, str],
    activation: str = "",
    within: str = "",
    *,
    takes: tuple[str, ...] = (),
    gates: Shape = (),
) -> Elementwise:
    """A product whose second factor, the gate, goes through an activation first."""
    return Elementwise(
        name=name,
        fn=MULTIPLY,
        shape=shape,
        inputs=inputs,
        activation=activation,
        within=within,
        takes=takes,
        gates=gates,
    )
