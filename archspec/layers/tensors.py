"""Facts about the tensors of an op: its parameters, what it keeps while decoding, and the sizes they are priced at."""

from math import prod
from typing import Literal, NamedTuple

from archspec.formulas.functions import ceil_div, least

Shape = tuple[int | str, ...]
Dtype = Literal["model", "float32", "int64", "int32", "bool"]

GROWTH = 64  # tokens by which what is kept grows in memory at a time (archspec.kernels.state says why)


class Run(NamedTuple):
    """The work to be priced: B sequences of T new tokens, each seeing S tokens, over a memory of M tokens.

    `decodes` says that there is a state of earlier tokens. Where that holds latents (MLA), queries are brought to them
    (absorbed); with `expands` they are brought to keys and values again at every step.
    """

    B: int = 1
    T: int = 1
    S: int = 1
    M: int = 0
    decodes: bool = False
    expands: bool = False

    def shape(self, shape: Shape) -> tuple[int, ...]:
        """A shape in numbers."""
        return tuple(getattr(self, d) if isinstance(d, str) else d for d in shape)

    def size(self, shape: Shape) -> int:
        """The number of elements of a tensor of that shape."""
        return prod(self.shape(shape))


class How(NamedTuple):
    """How the work is done, where that changes what it costs.

    Attributes:
        attention: flash computes scores again in the backward pass, eager keeps them, and cpu is whichever of the two
            the package's kernels do on a CPU for these sizes.
        input_learns: whether the input of the op has a gradient (token ids and features have none).
        width: bytes of an element in the type of the model.
        scattered: for each input of the op, whether the heads of a token lie side by side in memory, as projections
            leave them, and not the tokens of a head.
    """

    attention: Literal["flash", "eager", "cpu"] = "flash"
    input_learns: bool = True
    width: int = 4
    scattered: tuple[bool, ...] = ()

    @property
    def on_cpu(self) -> bool:
        """Whether it is what the package's kernels do on a CPU, not what their operators do on a GPU."""
        return self.attention == "cpu"


class Param(NamedTuple):
    """A tensor of a module: its name below the module, its shape, and how it counts.

    `active` is the share of it that one token uses, as (numerator, denominator): 2 of 8 experts is (2, 8). `split` is
    how it is cut to share its op among devices: (unit, axis), the unit being one of the component's `shards`; None
    where every device holds all of it. `residual` says that its op writes to the residual stream through it: were all
    such tensors of a component zero, nothing of the component would be left there.
    """

    name: str
    shape: tuple[int, ...]
    buffer: bool = False
    active: tuple[int, int] = (1, 1)
    note: str = ""
    split: tuple[str, int] | None = None
    residual: bool = False

    @property
    def numel(self) -> int:
        """The number of elements."""
        return prod(self.shape)


class Saved(NamedTuple):
    """A tensor that a forward pass leaves in memory: kept for the backward pass, or what an op gives.

    Attributes:
        tensor: an input of the op by its name, "" for its output, any other name for one of its own.
        shape: what is made where there is no such tensor yet; None for an input, or the output, as it is.
        dtype: its type; an input of another type is copied into it. None for an input as it is.
    """

    tensor: str
    shape: Shape | None = None
    dtype: Dtype | None = None


class Kept(NamedTuple):
    """A tensor that an op keeps from one call to the next: one entry of the decoding state.

    Attributes:
        name: its path in the state of the component, as dicts are nested: `k`, `conv`, `0.inputs`.
        shape: in B (the axis along which sequences are reordered or picked out), S (tokens seen, the axis that grows),
            M (tokens of the memory) and sizes. Without B it serves all sequences of a batch.
        dtype: that of the model, float32 whatever the model's (wider where the model is), whole numbers, or booleans.
        limit: the most tokens that stay along S; None where all do.
    """

    name: str
    shape: Shape
    dtype: Dtype = "model"
    limit: int | None = None

    @property
    def batch_axis(self) -> int | None:
        """The axis of the sequences."""
        return self.shape.index("B") if "B" in self.shape else None

    @property
    def token_axis(self) -> int | None:
        """The axis of the tokens seen."""
        return self.shape.index("S") if "S" in self.shape else None

    @property
    def grows(self) -> str:
        """S or M, which its size follows, or nothing."""
        return next((d for d in self.shape if d in ("S", "M")), "")

    def needed(self, run: Run) -> tuple[int, ...]:
        """Its shape after S tokens."""
        seen = run.S if self.limit is None else least(run.S, self.limit)
        return run._replace(S=seen).shape(self.shape)

    def held(self, run: Run) -> tuple[int, ...]:
        """Its shape in memory: it grows by whole blocks of tokens, so that a step need not copy all of it."""
        seen = round_up(run.S)
        if self.limit is not None:
            seen = least(seen, round_up(self.limit + GROWTH))
        return run._replace(S=seen).shape(self.shape)

    def per_token(self) -> int:
        """Elements of one sequence for each token along S or M; 0 where it does not grow."""
        return prod(d for d in self.shape if isinstance(d, int)) if self.grows else 0

    def fixed(self) -> int:
        """Elements of one sequence that do not depend on its length."""
        return 0 if self.grows else prod(d for d in self.shape if isinstance(d, int))

    def width(self, model: int = 2) -> int:
        """Bytes of an element, those of the model's dtype given."""
        return width_of(self.dtype, model)


def width_of(dtype: Dtype, model: int) -> int:
    """Bytes of an element of a type, those of the model's type given; float32 is wider where the model is."""
    return {"model": model, "float32": max(model, 4), "int64": 8, "int32": 4, "bool": 1}[dtype]


def round_up(tokens: int) -> int:
    """Tokens for which there is room in memory."""
    return ceil_div(tokens, GROWTH) * GROWTH
