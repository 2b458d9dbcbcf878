"""A resolved spec: stacks of layers made of components. Everything that archspec answers starts from here.

These are frozen values: two specs that say the same thing are equal, and nothing changes them after loading.
"""

from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from os import PathLike
from typing import Any

from archspec.language.wiring import Wiring
from archspec.layers.arguments import in_order
from archspec.layers.base import (
    Component,
    EmbeddingComponent,
    HeadComponent,
    InitComponent,
    NormComponent,
    PositionComponent,
)


@dataclass(frozen=True)
class Block:
    """One layer: named parts (norms, mixer, ffn, ...) in the order in which they first run, and their wiring."""

    parts: tuple[tuple[str, Component], ...]
    wiring: Wiring
    dropout: float = 0.0

    def part(self, name: str) -> Component | None:
        """The part of that name."""
        return dict(self.parts).get(name)

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.parts, self.wiring, self.dropout))


@dataclass(frozen=True)
class Layer:
    """A place in a stack: its block, the name that the spec gave it, and its group (number, period) of shared weights.

    Name and group are how the spec was written, not what it says (segments know what is shared): they do not compare.
    """

    block: Block
    label: str = field(default="", compare=False, repr=False)
    group: tuple[int, int] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Segment:
    """`repeat` times the same period of layers, starting at layer `start`; with `shared`, one set of weights."""

    start: int
    layers: tuple[Layer, ...]
    repeat: int
    shared: bool = False

    @property
    def n_layers(self) -> int:
        """Layers that run."""
        return len(self.layers) * self.repeat


@dataclass(frozen=True)
class Stack:
    """Embedding, layers and final norm; an encoder-decoder has two."""

    name: str
    d_model: int
    embedding: EmbeddingComponent
    segments: tuple[Segment, ...]
    final_norm: NormComponent | None
    position_bias: PositionComponent | None = None
    memory: str | None = None
    tie_embedding: str | None = None

    @property
    def n_layers(self) -> int:
        """Layers that run, repeats and shared ones included."""
        return sum(s.n_layers for s in self.segments)

    @property
    def n_branches(self) -> int:
        """Residual branches of all layers: what mixes tokens or channels, norms and scales apart; at least 1."""
        found = sum(
            segment.repeat * sum(part.role in ("mixer", "ffn") for _, part in layer.block.parts)
            for segment in self.segments
            for layer in segment.layers
        )
        return max(found, 1)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Every layer in order, repeats written out."""
        return tuple(layer for s in self.segments for _ in range(s.repeat) for layer in s.layers)

    @cached_property
    def parts(self) -> tuple[Component, ...]:
        """The parts of one period of all layers, in order."""
        return tuple(part for s in self.segments for layer in s.layers for _, part in layer.block.parts)

    @cached_property
    def arguments(self) -> tuple[str, ...]:
        """What the layers take beside x, in order."""
        return in_order({name for part in self.parts for name in part.arguments})

    @property
    def has_state(self) -> bool:
        """Whether the stack keeps anything while decoding."""
        return "state" in self.arguments

    @property
    def causal(self) -> bool:
        """Whether no token can see a later one."""
        return self.embedding.causal and all(part.causal for part in self.parts)


def need_spec(given: object) -> None:
    """Refuse what is no spec, most often the path of one, with what would be right."""
    if not isinstance(given, Spec):
        path = str(given) if isinstance(given, str | PathLike) else "..."
        found = repr(path) if path != "..." else f"a {type(given).__name__}"
        raise TypeError(f"expected a Spec, found {found}: pass archspec.load({path!r})")


@dataclass(frozen=True)
class Argument:
    """One argument of the model's forward: `of` is the stack's own word for it (tokens, mask, ...)."""

    name: str
    of: str
    stack: str
    optional: bool = True


@dataclass(frozen=True)
class Spec:
    """A model: its stacks, its head, how it starts, and what its author promises of it."""

    name: str
    stacks: tuple[Stack, ...]
    head: HeadComponent
    init: InitComponent
    vocab_size: int | None = None
    max_seq_len: int | None = None
    description: str = ""
    source: str = ""
    expect: tuple[tuple[str, Any], ...] = ()
    file: str = field(default="", compare=False)

    @property
    def main(self) -> Stack:
        """The stack whose output the head reads: the last one."""
        return self.stacks[-1]

    @property
    def causal(self) -> bool:
        """Whether the output at a token depends on no later token of the main stack."""
        return self.main.causal and self.head.causal

    @cached_property
    def arguments(self) -> tuple[Argument, ...]:
        """What forward takes: the input of each stack, then what may be left out, the main stack's state last."""
        required, optional = [], []
        memories = {s.memory for s in self.stacks}
        for stack in self.stacks:
            before = "" if len(self.stacks) == 1 else f"{stack.name}_"
            reads = stack.embedding.reads
            required.append(Argument(before + reads, reads, stack.name, False))
            takes = {
                *stack.arguments,
                *stack.embedding.arguments,
                *(self.head.arguments if stack is self.main else ()),
            } | ({"mask"} if stack.name in memories else set())
            optional += [
                Argument(before + i, i, stack.name) for i in ("token_types", "mask", "prefix_len") if i in takes
            ]
        state = [Argument("state", "state", "")] if self.main.has_state else []
        return (*required, *optional, *state)

    def decodes(self, stack: Stack) -> bool:
        """Whether a stack keeps a state while decoding: the main one alone, as the others run once for a sequence."""
        return stack is self.main and stack.has_state

    @property
    def digest(self) -> str:
        """The first digits of a hash of all that the spec says once resolved."""
        said = (self.name, self.stacks, self.head, self.init, self.vocab_size, self.max_seq_len)
        return sha256(repr(said).encode()).hexdigest()[:12]

    @property
    def aux_losses(self) -> bool:
        """Whether routers add a loss of their own in training."""
        return any(part.aux_loss for stack in self.stacks for part in stack.parts)

    @property
    def moves_biases(self) -> bool:
        """Whether routers have a correction bias, which is moved after each training step."""
        return any(part.moves_bias for stack in self.stacks for part in stack.parts)

    def prefix(self, stack: Stack) -> str:
        """What stands before the tensor names of a stack: nothing when there is only one."""
        return "" if len(self.stacks) == 1 else f"{stack.name}."

    @property
    def ties(self) -> tuple[tuple[str, str], ...]:
        """Tied tensors, as (name that is replaced, name whose tensor it uses)."""
        found = []
        tables = {s.name: f"{self.prefix(s)}embedding.{s.embedding.table}" for s in self.stacks}
        for stack in self.stacks:
            if stack.tie_embedding:
                found.append((tables[stack.name], tables[stack.tie_embedding]))
                tables[stack.name] = tables[stack.tie_embedding]
        if self.head.tied_shape is not None:
            found.append((f"head.{self.head.tied_weight}", tables[self.main.name]))
        return tuple(found)
