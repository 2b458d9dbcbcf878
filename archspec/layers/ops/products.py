"""Products with weights: projections, tables, and the norms between them."""

from dataclasses import dataclass

from archspec.formulas.functions import at_least
from archspec.kernels.thresholds import NUMBERS_NORMED
from archspec.layers.ops.op import Op
from archspec.layers.tensors import Dtype, How, Run, Saved, Shape


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Linear(Op):
    """y = W x + b on the last dimension; `rows` are the leading sizes of its input.

    `heads` is the number of heads that lie side by side in its output, each of d_out / heads channels. A `wide`
    one is computed in float32.
    """

    d_in: int
    d_out: int
    rows: Shape = ("B", "T")
    heads: int | None = None
    wide: bool = False

    def flops(self, run: Run) -> int:
        """Two for each weight and row."""
        return 2 * run.size(self.rows) * self.d_in * self.d_out

    @property
    def learns(self) -> bool:
        """Always, its weights being another's or its own."""
        return True

    def weights_read(self, run: Run) -> int:
        """All of them, be they another's (a tied head)."""
        return self.d_in * self.d_out + sum(p.numel for p in self.params if len(p.shape) == 1)

    def arithmetic(self, run: Run) -> int:
        """One for each output with a bias."""
        return run.size(self.shape) if len(self.params) > 1 else 0

    def gives(self, run: Run, how: How) -> Saved:
        """Its product."""
        return Saved("", self.shape, "float32" if self.wide else "model")

    def saved(self, run: Run, how: How) -> tuple[Saved, ...]:
        """Its input; in float32 with a copy of its weight."""
        if not self.wide:
            return (Saved(self.inputs[0]),)
        weight = (Saved("weight", (self.d_out, self.d_in), "float32"),) if how.width < 4 and how.input_learns else ()
        return (Saved(self.inputs[0], (*self.rows, self.d_in), "float32"), *weight)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Embedding(Op):
    """Rows of a table."""

    rows: int
    dim: int

    @property
    def learns(self) -> bool:
        """Always, its table being another's or its own."""
        return True

    def saved(self, run: Run, how: How) -> tuple[Saved, ...]:
        """The numbers of its rows: its input, or those that it makes of the positions."""
        if self.inputs:
            return (Saved(self.inputs[0]),)
        return (Saved("rows", ("T", "S") if self.biases else ("T",), "int64"),)

    def weights_read(self, run: Run) -> int:
        """The rows that are looked up."""
        return run.size(self.shape)

    @property
    def biases(self) -> bool:
        """Whether its rows are biases of the scores of an attention, one for each query and key."""
        return "S" in self.shape


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Norm(Op):
    """A normalisation over `dim` neighbouring channels of the last dimension; `kind` is that of its component.

    It is `weighted` where a channel has a factor: its weight, or with `one_plus` 1 + its weight.
    """

    dim: int
    kind: str
    weighted: bool = True
    one_plus: bool = False

    def arithmetic(self, run: Run) -> int:
        """Of an element: square, sum, factor and weight; of a LayerNorm also mean, difference and bias."""
        return run.size(self.shape) * (4 if self.kind == "rmsnorm" else 7)

    def saved(self, run: Run, how: How) -> tuple[Saved, ...]:
        """Input and statistics, and for an RMS norm without an operator of its own what it has normalised."""
        rows = (*self.shape[:-1], self.shape[-1] // self.dim) if isinstance(self.shape[-1], int) else self.shape[:-1]
        in_type: Dtype = "float32" if self.kind == "rmsnorm" else "model"
        factor = (Saved("factor", (self.dim,), in_type),) if self.one_plus else ()
        if self.kind != "rmsnorm":
            statistics: Dtype = "model" if how.on_cpu else "float32"
            return (Saved(self.inputs[0]), Saved("mean", rows, statistics), Saved("rstd", rows, statistics), *factor)
        if self._operator(run, how):
            return (Saved(self.inputs[0]), Saved("rstd", rows, "float32"))
        read = (Saved(self.inputs[0], self.shape, "float32"), Saved("rstd", rows, "float32"))
        normed = Saved("normed", self.shape, "float32" if self.one_plus else "model")
        return (*read, normed, *factor) if self.weighted else read

    def scattered(self, run: Run, how: How) -> bool:
        """Not where it normalises each head: the result is written head by head."""
        return len(self.shape) < 4

    def _operator(self, run: Run, how: How) -> bool:
        """Whether an operator with a backward pass of its own computes an RMS norm."""
        return not how.on_cpu or at_least(run.size(self.shape), NUMBERS_NORMED)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class GatedNorm(Norm):
    """An RMS norm with a gate silu(z), which its kernel applies before the norm (`gate_first`) or after it."""

    gate_first: bool

    def saved(self, run: Run, how: How) -> tuple[Saved, ...]:
        """Input, gate (and z, in float32), what is normalised and its statistics, and what meets the weight."""
        assert isinstance(self.shape[-1], int)
        x = Saved(self.inputs[0], self.shape, "float32")
        rows = Saved("rstd", (*self.shape[:-1], self.shape[-1] // self.dim), "float32")
        if not how.on_cpu:
            return (Saved(self.inputs[0]), rows)
        gate = (Saved("gate", self.shape, "float32"), *((Saved("z", self.shape, "float32"),) if how.width < 4 else ()))
        met = Saved("gated" if self.gate_first else "weighed", self.shape, "float32" if self.gate_first else "model")
        return (x, *gate, rows, met, Saved("normed", self.shape, "model"))
