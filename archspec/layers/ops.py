"""The closed vocabulary of operations that components are made of.

An op says what it is called, what it reads, the shape of what comes out, its parameter tensors, its FLOPs, and what it
keeps while decoding. Counting, cost, graph, diagram and inits know components through these facts alone; each of them
is compared with what the built module does (`archspec.verify.trace`), so that none can be wrong unnoticed.

Shapes are tuples of whole numbers and symbols: B sequences, T new tokens, S tokens that can be seen (the context; S = T
without a cache), M tokens of the memory that cross-attention reads. One multiply-add is two FLOPs; `flops` counts
matrix products, convolutions and FFTs (what a hardware FLOP counter sees), without element-wise work.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from math import ceil, log2
from typing import Any

from archspec.layers.tensors import Kept, Param, Run, Shape

__all__ = [
    "Attend", "Conv", "Elementwise", "Embedding", "Experts", "FFTConv", "Kept", "LatentAttend", "Linear", "Norm", "Op",
    "Param", "Recurrent", "Route", "Run", "Scan", "Shape", "elementwise", "gate", "linear", "projection", "split",
]  # fmt: skip

# element-wise functions that readers know
ADD, SUBTRACT, MULTIPLY, CONCAT, SCALE, SOFTCAP = "add", "subtract", "multiply", "concat", "scale", "soft-cap"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Op:
    """One operation.

    Attributes:
        name: its name in the component; where it has a sub-module, the path of that.
        shape: of its output.
        inputs: names of earlier ops of the component, or of what `forward` takes (`x` is the first).
        params: its tensors.
        label: what pictures call it, where class and name do not say it.
        note: a remark for people, in tables; nothing reads it.
        outputs: the tensors that lie side by side in the last axis of its output, as (name, width).
        takes: which `outputs` of its inputs it reads, by name, where it does not read all of them.
        kernel: the function of archspec.kernels that computes it, where no sub-module does.
        within: the op whose kernel call computes this one as well.
        kept: the tensors that it keeps from one call to the next while decoding.
    """

    name: str
    shape: Shape
    inputs: tuple[str, ...] = ("x",)
    params: tuple[Param, ...] = ()
    label: str = ""
    note: str = ""
    outputs: tuple[tuple[str, int], ...] = ()
    takes: tuple[str, ...] = ()
    kernel: str = ""
    within: str = ""
    kept: tuple[Kept, ...] = ()

    # Said once for all classes: what dataclass writes for each of them costs a tenth of the time of a command.

    def facts(self) -> tuple[Any, ...]:
        """All that it says, in the order of its fields."""
        return tuple(getattr(self, f.name) for f in fields(self))

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, Op) and self.facts() == other.facts()

    def __hash__(self) -> int:
        return hash((type(self), self.facts()))

    def __repr__(self) -> str:
        said = (f"{f.name}={value!r}" for f, value in zip(fields(self), self.facts(), strict=True))
        return f"{type(self).__name__}({', '.join(said)})"

    @property
    def residual(self) -> bool:
        """Whether it writes to the residual stream."""
        return any(p.residual for p in self.params)

    def flops(self, run: Run) -> int:
        """FLOPs of matrix products, convolutions and FFTs in the forward pass."""
        return 0

    def steps(self, run: Run) -> int:
        """Operations that must follow one another, however many processors there are, in training."""
        return 1

    def under(self, prefix: str, outer: tuple[str, ...] = ("x",)) -> "Op":
        """The same op as part of a larger component: its names get the prefix, but for inputs from outside."""
        params = tuple(p._replace(name=f"{prefix}.{p.name}") for p in self.params)
        inputs = tuple(i if i in outer else f"{prefix}.{i}" for i in self.inputs)
        within = f"{prefix}.{self.within}" if self.within else ""
        return replace(self, name=f"{prefix}.{self.name}", params=params, inputs=inputs, within=within)


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Embedding(Op):
    """Rows of a table."""

    rows: int
    dim: int

    @property
    def biases(self) -> bool:
        """Whether its rows are biases of the scores of an attention, one for each query and key."""
        return "S" in self.shape


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Norm(Op):
    """A normalisation over `dim` neighbouring channels of the last dimension; `kind` is that of its component."""

    dim: int
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Conv(Op):
    """A short causal depthwise convolution, or a patch convolution when `d_in` is given."""

    channels: int
    taps: int
    d_in: int | None = None

    def flops(self, run: Run) -> int:
        """Two for each output element, tap and input channel."""
        return 2 * run.size(self.shape) * self.taps * (self.d_in or 1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Attend(Op):
    """Softmax attention: scores from `qk_dim` channels, a mean of `v_dim` channels, `n_heads` times.

    Its first three inputs are queries, keys and values, of which there are `n_kv_heads`. FLOPs are those of all T x S
    pairs; `mask` and `window` say how many of them matter. `bias` is what is added to the scores ("alibi", "t5").
    """

    n_heads: int
    n_kv_heads: int
    qk_dim: int
    v_dim: int
    mask: str
    keys: str = "S"
    window: int | None = None
    bias: str = ""
    softcap: float | None = None
    sinks: bool = False

    def flops(self, run: Run) -> int:
        """Scores and weighted mean over every pair of the T x S rectangle."""
        return 2 * run.size(("B", "T", self.keys)) * self.n_heads * (self.qk_dim + self.v_dim)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class LatentAttend(Attend):
    """Attention over expanded keys, or, where earlier tokens are only there as latents, over the latents themselves.

    Then the products with the projection that expands them are as many as its own, once for each new token, so that
    op counts them. `latent` and `rope` are the widths of what is kept of a token; `latents` names the two ops that give
    them.
    """

    latent: int
    rope: int
    latents: tuple[str, str]

    def flops(self, run: Run) -> int:
        """Scores and weighted mean over the T x S rectangle, in the form that runs."""
        width = self.qk_dim + self.v_dim if run.S == run.T else 2 * self.latent + self.rope
        return 2 * run.size(("B", "T", self.keys)) * self.n_heads * width


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Scan(Op):
    """A linear recurrence over a state of `width` x `d_state` numbers.

    `matmul` are the FLOPs of matrix products that one token takes. With `chunk`, that many tokens are computed as one
    masked matrix product and the state goes from chunk to chunk; without, the recurrence is an associative scan.
    """

    width: int
    d_state: int
    matmul: int = 0
    chunk: int | None = None

    def flops(self, run: Run) -> int:
        """Only the products (the read-out); the rest is element-wise."""
        return run.size(("B", "T")) * self.matmul

    def steps(self, run: Run) -> int:
        """One a chunk; log T for an associative scan."""
        return ceil(log2(max(run.T, 2))) if self.chunk is None else -(-run.T // self.chunk)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class FFTConv(Op):
    """A convolution as long as the sequence, by FFT: O(T log T) for each channel."""

    channels: int

    def flops(self, run: Run) -> int:
        """Three real FFTs of 2T points at 2.5 n log2 n each, and the product of spectra."""
        n = 2 * run.T
        return int(run.B * self.channels * (3 * 2.5 * n * max(log2(n), 1) + 6 * run.T))

    def steps(self, run: Run) -> int:
        """The levels of an FFT of 2T points."""
        return ceil(log2(2 * run.T))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Recurrent(Op):
    """A non-linear recurrence whose cell multiplies input and state by dense matrices, one token at a time."""

    d_in: int
    width: int
    gates: int

    def flops(self, run: Run) -> int:
        """Two for each weight of the cell, at each token."""
        return 2 * run.size(("B", "T")) * self.gates * self.width * (self.d_in + self.width)

    def steps(self, run: Run) -> int:
        """One a token."""
        return run.T


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Route(Op):
    """Picks `top_k` of `n_experts` for each token, or with `by_expert` tokens for each expert, by the router's scores.

    `score` is the function that makes them of the logits; `rules` say in words what else the choice heeds.
    """

    n_experts: int
    top_k: int
    score: str
    by_expert: bool = False
    rules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Experts(Op):
    """Feed-forward networks of which a token runs `top_k` of `n_experts`; each has `matrices` of d_model x d_ff.

    `activation` is that of their hidden units (of their gate, where there are three matrices), `scale` the factor of
    their weighted sum.
    """

    n_experts: int
    top_k: int
    d_model: int
    d_ff: int
    matrices: int
    activation: str
    scale: float = 1.0

    def flops(self, run: Run) -> int:
        """The chosen experts only."""
        return 2 * run.size(("B", "T")) * self.top_k * self.matrices * self.d_model * self.d_ff


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Elementwise(Op):
    """Anything without products of matrices: activations, gates, sums, reshapes, position rotations; `fn` names it.

    Where `activation` is given, the last input goes through it first (a gate: fn multiply, activation silu). `constant`
    is the number that takes part: the factor of a scale, the bound of a soft-cap.
    """

    fn: str
    activation: str = ""
    constant: float | None = None


def linear(
    name: str,
    d_in: int,
    d_out: int,
    bias: bool = False,
    *,
    inputs: tuple[str, ...] = ("x",),
    takes: tuple[str, ...] = (),
    rows: Shape = ("B", "T"),
    heads: int | None = None,
    outputs: tuple[tuple[str, int], ...] = (),
    residual: bool = False,
    note: str = "",
) -> Linear:
    """The op of a projection `linear(c, name, d_in, d_out, bias=bias)`; arguments as the attributes of `Linear`."""
    params = [Param(f"{name}.weight", (d_out, d_in), residual=residual)]
    params += [Param(f"{name}.bias", (d_out,), residual=residual)] if bias else []
    return Linear(
        name=name, shape=(*rows, d_out), inputs=inputs, params=tuple(params), note=note, outputs=outputs,
        takes=takes, d_in=d_in, d_out=d_out, rows=rows, heads=heads,
    )  # fmt: skip


def split(op: Linear, unit: str, axis: int = 0) -> Linear:
    """A projection shared among devices: its outputs by that unit (axis 0), or its inputs, whose products add up (1).

    Of outputs that lie side by side (`outputs`) each is split for itself. A bias of what adds up belongs to one device.
    """
    shared = [p._replace(split=(unit, axis)) if len(p.shape) > axis else p for p in op.params]
    return replace(op, params=tuple(shared))


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


def projection(ops: Mapping[str, Op], name: str) -> Linear | None:
    """The projection whose output stands under that name, through norms and element-wise steps; None without one."""
    found = ops.get(name)
    while isinstance(found, Norm | Elementwise) and found.inputs:
        found = ops.get(found.inputs[0])
    return found if isinstance(found, Linear) else None
