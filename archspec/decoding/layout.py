"""What the decoding state of a spec holds: the path of every tensor, with what its component declares of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from archspec.errors import StateError, suggest
from archspec.language.model import Spec
from archspec.layers.arguments import INPUTS
from archspec.layers.base import Component
from archspec.layers.ops import Attend, Conv, Kept, Op, Recurrent, Scan, Shift
from archspec.lowering import Function, lower_model
from archspec.lowering.program import Apply, Assign, Call, Each, Expression, Layers, Once, Substate, Value, walk

SPEC = "_spec"  # where a model notes its spec; not a name that a module of it can have


class Entry(NamedTuple):
    """One tensor of a state.

    Attributes:
        kept: what is declared of it.
        layer: the module that keeps it, and its kind: `blocks.3.mixer (mamba)`.
        what: what it is, in words, where its earlier values cannot be read from it; empty where they can.
        counted: whether `count` counts it: all but the outputs of earlier stacks, and what there only is where masks or
            positions were given.
        pads: whether it says how many columns of each row are padding.
    """

    kept: Kept
    layer: str
    what: str = ""
    counted: bool = True
    pads: bool = False

    @property
    def batch_axis(self) -> int | None:
        """The axis of the sequences; None where it serves all of them."""
        return self.kept.batch_axis

    @property
    def token_axis(self) -> int | None:
        """The axis along which it grows with every token."""
        return self.kept.token_axis

    @property
    def sums(self) -> bool:
        """Whether it is a summary of all tokens so far."""
        return self.batch_axis is not None and not self.kept.grows and not self.pads

    def sizes(self, batch: int) -> tuple[int | None, ...]:
        """Its shape for so many sequences; None along what grows."""
        return tuple(batch if d == "B" else d if isinstance(d, int) else None for d in self.kept.shape)


@dataclass(frozen=True)
class Layout:
    """The state of one spec.

    Attributes:
        name: of the spec.
        digest: of the spec.
        reads: what the decoding stack reads, as the model's forward calls it.
        place: the place of that among the arguments of forward.
        ahead: the first layer in which tokens of one call depend on later ones of it, beyond a prefix; or nothing.
        rows: the path of the dict in which the model notes how its rows are laid out; None where it does not.
        entries: every tensor by its path in the state (`0.mixer.k`), in the order in which the model runs.
    """

    name: str
    digest: str
    reads: str
    place: int
    ahead: str
    rows: str | None
    entries: tuple[tuple[str, Entry], ...]

    @cached_property
    def by_path(self) -> dict[str, Entry]:
        """The entries by path."""
        return dict(self.entries)

    def entry(self, path: str) -> Entry:
        """The entry at a path.

        Raises StateError where nothing is declared to be kept.
        """
        if path not in self.by_path:
            known = suggest(path, self.by_path)
            raise StateError(f"the state holds {path}, which a model of {self.name} does not keep{known}")
        return self.by_path[path]

    def __deepcopy__(self, memo: dict[int, Any]) -> "Layout":
        return self


def spec_of(of: object) -> Spec:
    """The spec that is given, or that of a model which knows it.

    Raises TypeError for anything else, with what would be right.
    """
    spec = of if isinstance(of, Spec) else getattr(of, SPEC, None)
    if isinstance(spec, Spec):
        return spec
    found = repr(of) if isinstance(of, str) else f"a {type(of).__name__}"
    raise TypeError(
        f"expected a Spec, or a model that archspec.build made of one, found {found}; the model of a file that was"
        " loaded by hand does not know its spec: pass archspec.load(...) of that"
    )


@lru_cache(maxsize=32)
def layout(spec: Spec) -> Layout:
    """The layout of the state of a spec."""
    spec = spec.taking(*INPUTS)  # what a model leaves that takes none of them is a part of what there then is
    names = [a.name for a in spec.arguments]
    entries = dict(_function(lower_model(spec), "", ""))
    reads = next(a.name for a in spec.arguments if a.stack == spec.main.name and not a.optional)
    return Layout(
        name=spec.name,
        digest=spec.digest,
        reads=reads,
        place=names.index(reads),
        ahead=next(_ahead(spec), ""),
        rows=next((path.rpartition(".")[0] for path, entry in entries.items() if entry.pads), None),
        entries=tuple(entries.items()),
    )


def _ahead(spec: Spec) -> Iterator[str]:
    for i, layer in enumerate(spec.main.layers):
        for name, part in layer.block.parts:
            if not part.causal and "prefix_len" not in part.arguments:
                yield f"{spec.prefix(spec.main)}blocks.{i}.{name} ({part.kind})"


Found = Iterator[tuple[str, Entry]]


def _function(function: Function, path: str, module: str) -> Found:
    """What the statements of a function keep; `path` stands before its keys, `module` before its members."""
    for statement in function.statements:
        if isinstance(statement, Assign):
            yield from _expression(function, statement.value, path, module)
        else:
            yield from _each(function, statement, path, module)
    yield from _expression(function, function.result, path, module)


def _each(function: Function, each: Each, path: str, module: str) -> Found:
    layers = function.made(each.member)
    if not isinstance(layers, Layers) or not any(isinstance(value, Substate) for _, value in each.named):
        return
    every = [layer for p in layers.periods for _ in range(p.repeat) for layer in p.layers]
    for i, layer in enumerate(every):
        yield from _function(layer, f"{path}{i}.", f"{module}{each.member}.{i}.")


def _expression(function: Function, expression: Expression, path: str, module: str) -> Found:
    for part in walk(expression):
        if isinstance(part, Once):
            yield f"{path}{part.key}", _remembered(function, part)
        elif isinstance(part, Apply) and part.function == "align" and Value("state") in part.arguments:
            yield f"{path}padding", Entry(Kept("padding", ("B",), "int64"), f"{module}rows", counted=False, pads=True)
        elif isinstance(part, Call):
            keys = [value.key for _, value in part.named if isinstance(value, Substate)]
            places = any(name == "places" for name, _ in part.named)
            for key in keys:
                yield from _member(function, part.member, f"{path}{key}.", f"{module}{part.member}", places)


def _member(function: Function, member: str, path: str, module: str, places: bool) -> Found:
    made = function.made(member)
    if isinstance(made, Function):
        yield from _function(made, path, f"{module}.")
    elif isinstance(made, Component):
        layer, limit = f"{module} ({made.kind})", None
        for op in made.ops():
            for kept in op.kept:
                limit = kept.limit
                yield f"{path}{kept.name}", Entry(kept, layer, _words(op))
        if places:  # where the caller gives positions, those of the keys stand beside them
            yield f"{path}places", Entry(Kept("places", ("B", 1, "S", 1), "int64", limit), layer, counted=False)


def _remembered(function: Function, once: Once) -> Entry:
    """What the model itself computes in the first call alone: the output of an earlier stack, or takes: its mask."""
    if isinstance(once.value, Value):
        return Entry(Kept(once.key, ("B", "M"), "bool"), once.key, counted=False)
    made = function.made(once.value.member) if isinstance(once.value, Call) else None
    stack = made.stack if isinstance(made, Function) else function.stack
    return Entry(Kept(once.key, ("B", "M", stack.d_model)), once.key, counted=False)


def _words(op: Op) -> str:
    """What an op keeps that does not grow with the tokens."""
    match op:
        case Attend():
            return ""
        case Conv():
            return f"the last {op.taps - 1} inputs of a convolution"
        case Shift():
            return "the last token that it was given"
        case Scan() | Recurrent():
            return "the state of a recurrence"
    return "one summary of all tokens"
