"""What all ops have in common."""

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

from archspec.layers.tensors import How, Kept, Param, Run, Saved, Shape

MATMUL, CONVOLUTION, SCAN, ELEMENTWISE = CLASSES = ("matmul", "convolution", "scan", "elementwise")


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

    # What it costs: rules in B, T, S, M and its sizes, which take formulas as well as numbers (`archspec.formulas`)

    work: ClassVar[str] = MATMUL  # the class of its products

    def flops(self, run: Run) -> int:
        """FLOPs of matrix products, convolutions and FFTs in the forward pass: what a hardware counter sees."""
        return 0

    def backward_flops(self, run: Run, how: How) -> int:
        """The same in the backward pass: the gradient of its weights, and that of its input where that learns."""
        return self.flops(run) * (2 if how.input_learns else 1)

    def needed_flops(self, run: Run) -> int:
        """Those of `flops` whose results matter: attention without the pairs that its mask hides."""
        return self.flops(run)

    def arithmetic(self, run: Run) -> int:
        """Element-wise operations of the forward pass; one evaluation of a function counts as one. An estimate."""
        return 0

    def traffic(self, run: Run, how: How, given: int) -> tuple[int, int]:
        """Elements that the forward pass reads and writes, run by itself: what it is given, its weights, its result.

        While decoding also what it keeps: all of it is read, and what does not grow is written again.
        """
        held = [(k.grows, run.size(k.needed(run))) for k in self.kept] if run.decodes else []
        read = given + self.weights_read(run) + sum(n for _, n in held)
        return read, run.size(self.shape) + sum(n for grows, n in held if not grows)

    def taken(self, names: tuple[str, ...], run: Run) -> int:
        """Elements of those of its outputs, all of them where it has no such names."""
        widths = [width for name, width in self.outputs if name in names]
        return run.size((*self.shape[:-1], sum(widths))) if widths else run.size(self.shape)

    def weights_read(self, run: Run) -> int:
        """Elements of its weights that are read."""
        return sum(p.numel for p in self.params)

    def steps(self, run: Run) -> int:
        """Operations that must follow one another, however many processors there are, in training."""
        return 1

    @property
    def learns(self) -> bool:
        """Whether its result has a gradient because of its own tensors, which may be tied to others."""
        return any(not p.buffer for p in self.params)

    # What it leaves in memory: rules that are compared with what autograd keeps, to the byte

    @property
    def proved(self) -> bool:
        """Whether `saved` is what is kept on a CPU, to the byte; otherwise it is an estimate."""
        return True

    def gives(self, run: Run, how: How) -> Saved:
        """Where its output stands as others read it: in memory of its own, or in that of an input (a view)."""
        return Saved("", self.shape, "model")

    def scattered(self, run: Run, how: How) -> bool:
        """Whether the heads of a token lie side by side in its output, and not the tokens of a head."""
        return True

    def saved(self, run: Run, how: How) -> tuple[Saved, ...]:
        """What its backward pass needs, beside weights."""
        return ()

    def under(self, prefix: str, outer: tuple[str, ...] = ("x",)) -> "Op":
        """The same op as part of a larger component: its names get the prefix, but for inputs from outside."""
        params = tuple(p._replace(name=f"{prefix}.{p.name}") for p in self.params)
        inputs = tuple(i if i in outer else f"{prefix}.{i}" for i in self.inputs)
        within = f"{prefix}.{self.within}" if self.within else ""
        return replace(self, name=f"{prefix}.{self.name}", params=params, inputs=inputs, within=within)
