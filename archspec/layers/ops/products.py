"""Products with weights: projections, tables, and the norms between them."""

from dataclasses import dataclass

from archspec.layers.ops.op import Op
from archspec.layers.tensors import Run, Shape


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Linear(Op):
    """y = W x + b on the last dimension; `rows` are the leading sizes of its input.

    `heads` is the number of heads that lie side by side in its output, each of d_out / heads channels.
    """

    d_in: int
    d_out: int
    rows: Shape = ("B", "T")
    heads: int | None = None

    def flops(self, run: Run) -> int:
        """Two for each weight and row."""
        return 2 * run.size(self.rows) * self.d_in * self.d_out

    @property
    def learns(self) -> bool:
        """Always, its weights being another's or its own."""
        return True

    def arithmetic(self, run: Run) -> int:
        """One for each output with a bias."""
        return run.size(self.shape) if len(self.params) > 1 else 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Embedding(Op):
    """Rows of a table."""

    rows: int
    dim: int

    @property
    def learns(self) -> bool:
        """Always, its table being another's or its own."""
        return True

    def weights_read(self, run: Run) -> int:
        """The rows that are looked up."""
        return run.size(self.shape)

    @property
    def biases(self) -> bool:
        """Whether its rows are biases of the scores of an attention, one for each query and key."""
        return "S" in self.shape


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Norm(Op):
    """A normalisation over `dim` neighbouring channels of the last dimension; `kind` is that of its component."""

    dim: int
    kind: str

    def arithmetic(self, run: Run) -> int:
        """Of an element: square, sum, factor and weight; of a LayerNorm also mean, difference and bias."""
        return run.size(self.shape) * (4 if self.kind == "rmsnorm" else 7)
