"""The closed vocabulary of operations that components are made of.

An op says what it is called, what it reads, the shape of what comes out, its parameter tensors, its FLOPs and what it
keeps while decoding. Counting, cost, graph and diagram know components through their ops alone.

Shapes are tuples of whole numbers and symbols: B sequences, T new tokens, S tokens that can be seen (the context; S = T
without a cache), M tokens of the memory that cross-attention reads. One multiply-add is two FLOPs; `flops` counts
matrix products, convolutions and FFTs (what a hardware FLOP counter sees), without element-wise work.
"""

from dataclasses import dataclass, field, replace
from math import log2, prod

Shape = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """The work to be priced: B sequences of T new tokens, each seeing S tokens, over a memory of M tokens."""

    B: int = 1
    T: int = 1
    S: int = 1
    M: int = 0

    def size(self, shape: Shape) -> int:
        """The number of elements of a tensor of that shape."""
        return prod(getattr(self, d) if isinstance(d, str) else d for d in shape)


@dataclass(frozen=True, slots=True)
class Param:
    """A tensor of a module: its name below the module, its shape, and how it counts.

    `active` is the share of it that one token uses, as (numerator, denominator): 2 of 8 experts is (2, 8).
    """

    name: str
    shape: tuple[int, ...]
    buffer: bool = False
    active: tuple[int, int] = (1, 1)
    note: str = ""

    @property
    def count(self) -> int:
        """The number of elements."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Cache:
    """What an op keeps while decoding, for one sequence: elements for each token seen (up to `limit`), and fixed ones.

    `per_memory_token` elements are kept for each token of the memory that cross-attention reads. `exact` elements are
    held in float32 whatever the dtype of the model (recurrent states).
    """

    per_token: int = 0
    limit: int | None = None
    fixed: int = 0
    exact: int = 0
    per_memory_token: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One operation; `inputs` are names of earlier ops of the component, or of its inputs (`x` is the first)."""

    name: str
    shape: Shape
    inputs: tuple[str, ...] = ("x",)
    params: tuple[Param, ...] = ()
    note: str = ""
    cache: Cache = field(default=Cache())

    def flops(self, run: Run) -> int:
        """FLOPs of matrix products, convolutions and FFTs in the forward pass."""
        return 0

    def under(self, prefix: str) -> "Op":
        """The same op as part of a larger component: op names and parameter names get the prefix."""
        params = tuple(replace(p, name=f"{prefix}.{p.name}") for p in self.params)
        inputs = tuple(i if i == "x" else f"{prefix}.{i}" for i in self.inputs)
        return replace(self, name=f"{prefix}.{self.name}", params=params, inputs=inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear(Op):
    """y = W x + b on the last dimension; `rows` are the leading sizes of its input."""

    d_in: int
    d_out: int
    rows: Shape = ("B", "T")

    def flops(self, run: Run) -> int:
        """Two for each weight and row."""
        return 2 * run.size(self.rows) * self.d_in * self.d_out


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding(Op):
    """Rows of a table."""

    rows: int
    dim: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Norm(Op):
    """A normalisation over the last dimension."""

    dim: int
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Conv(Op):
    """A short causal depthwise convolution, or a patch convolution when `d_in` is given."""

    channels: int
    kernel: int
    d_in: int = 1

    def flops(self, run: Run) -> int:
        """Two for each output element, tap and input channel."""
        return 2 * run.size(self.shape) * self.kernel * self.d_in


@dataclass(frozen=True, slots=True, kw_only=True)
class Attend(Op):
    """Softmax attention: scores from `qk_dim` channels, a mean of `v_dim` channels, `n_heads` times.

    FLOPs are those of all T x S pairs; `window` says how many of them matter.
    """

    n_heads: int
    qk_dim: int
    v_dim: int
    keys: str = "S"
    window: int | None = None
    causal: bool = True

    def flops(self, run: Run) -> int:
        """Scores and weighted mean over every pair of the T x S rectangle."""
        return 2 * run.size(("B", "T", self.keys)) * self.n_heads * (self.qk_dim + self.v_dim)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan(Op):
    """A linear recurrence over a state of `width` x `d_state` elements; `matmul`: FLOPs of products a token."""

    width: int
    d_state: int
    matmul: int = 0

    def flops(self, run: Run) -> int:
        """Only the products (the read-out); the rest is element-wise."""
        return run.size(("B", "T")) * self.matmul


@dataclass(frozen=True, slots=True, kw_only=True)
class FFTConv(Op):
    """A convolution as long as the sequence, by FFT: O(T log T) for each channel."""

    channels: int

    def flops(self, run: Run) -> int:
        """Three real FFTs of 2T points at 2.5 n log2 n each, and the product of spectra."""
        n = 2 * run.T
        return int(run.B * self.channels * (3 * 2.5 * n * max(log2(n), 1) + 6 * run.T))


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrent(Op):
    """A non-linear recurrence whose cell multiplies input and state by dense matrices, one token at a time."""

    d_in: int
    width: int
    gates: int

    def flops(self, run: Run) -> int:
        """Two for each weight of the cell, at each token."""
        return 2 * run.size(("B", "T")) * self.gates * self.width * (self.d_in + self.width)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route(Op):
    """Picks `top_k` of `n_experts` for each token (or tokens for each expert) from the router's scores."""

    n_experts: int
    top_k: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts(Op):
    """Feed-forward networks of which a token runs `top_k` of `n_experts`; each has `matrices` of d_model x d_ff."""

    n_experts: int
    top_k: int
    d_model: int
    d_ff: int
    matrices: int

    def flops(self, run: Run) -> int:
        """The chosen experts only."""
        return 2 * run.size(("B", "T")) * self.top_k * self.matrices * self.d_model * self.d_ff


@dataclass(frozen=True, slots=True, kw_only=True)
class Elementwise(Op):
    """Anything without products of matrices: activations, gates, sums, reshapes, position rotations; `fn` names it."""

    fn: str


def linear(
    name: str,
    d_in: int,
    d_out: int,
    bias: bool = False,
    *,
    inputs: tuple[str, ...] = ("x",),
    rows: Shape = ("B", "T"),
    shape: Shape | None = None,
    note: str = "",
) -> Linear:
    """The op of an `nn.Linear(d_in, d_out, bias)` called `name`."""
    params = [Param(f"{name}.weight", (d_out, d_in))] + ([Param(f"{name}.bias", (d_out,))] if bias else [])
    out = shape or (*rows, d_out)
    return Linear(
        name=name, shape=out, inputs=inputs, params=tuple(params), note=note, d_in=d_in, d_out=d_out, rows=rows
    )


def elementwise(fn: str, shape: Shape, inputs: tuple[str, ...], name: str = "", note: str = "") -> Elementwise:
    """A parameter-free element-wise op; its name is that of its function unless given."""
    return Elementwise(name=name or fn, fn=fn, shape=shape, inputs=inputs, note=note)
