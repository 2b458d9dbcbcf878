"""A resolved spec: stacks of layers made of components. Everything that archspec answers starts from here.

These are frozen values: two specs that say the same thing are equal, and nothing changes them after loading.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from os import PathLike
from typing import Any

from archspec.errors import Problem
from archspec.language import notebook
from archspec.language.links import Link
from archspec.language.origins import Origins
from archspec.language.streams import Streams
from archspec.language.wiring import Wiring
from archspec.layers.arguments import ARGUMENTS, GIVEN, INPUTS, argument, in_order
from archspec.layers.base import (
    Component,
    EmbeddingComponent,
    HeadComponent,
    NormComponent,
    PositionComponent,
)
from archspec.layers.starting import InitComponent
from archspec.layers.vocabulary import VocabularyComponent


@dataclass(frozen=True)
class Block:
    """One layer: named parts (norms, mixer, ffn, ...) in the order in which they first run, and their wiring."""

    parts: tuple[tuple[str, Component], ...]
    wiring: Wiring
    dropout: float = 0.0
    gives: tuple[Link, ...] = ()
    reads: tuple[Link, ...] = ()

    def __repr__(self) -> str:  # which a digest holds: what a block does without is no part of it
        links = f", gives={self.gives!r}, reads={self.reads!r}" if self.gives or self.reads else ""
        return f"Block(parts={self.parts!r}, wiring={self.wiring!r}, dropout={self.dropout!r}{links})"

    def part(self, name: str) -> Component | None:
        """The part of that name."""
        return dict(self.parts).get(name)

    @property
    def numbered(self) -> bool:
        """Whether anything in it differs with the number of the layer, which it is then built with."""
        return bool(self.wiring.per_layer()) or any(part.numbered for _, part in self.parts)

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.parts, self.wiring, self.dropout, self.gives, self.reads))

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_hash"}  # which is another in each process


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
    streams: Streams | None = field(default=None, repr=False)

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

    @property
    def everything(self) -> tuple[Component, ...]:
        """The embedding, the table of biases where there is one, and the parts."""
        tables = () if self.position_bias is None else (self.position_bias,)
        return (self.embedding, *tables, *self.parts)

    @cached_property
    def arguments(self) -> tuple[str, ...]:
        """What the layers can take beside x, in order, whatever the model is given."""
        found = {name for part in self.parts for name in part.arguments}
        return in_order({name for name in found if argument(name).maker != "layer"})

    @property
    def looks_ahead(self) -> bool:
        """Whether a mixer sees later tokens; those of a prefix, which is given, are none."""
        mixers = (part for part in self.parts if part.role == "mixer" and "prefix_len" not in part.arguments)
        return not all(mixer.causal for mixer in mixers)

    @property
    def of_whole_rows(self) -> bool:
        """Whether it is given what belongs to a whole row: a prefix, or global tokens of parts that run by rows."""
        rows = (part for part in self.parts if self.by_rows(part))
        return "prefix_len" in self.arguments or any("global_mask" in part.arguments for part in rows)

    @property
    def has_state(self) -> bool:
        """Whether the stack keeps anything while decoding."""
        return "state" in self.arguments

    @cached_property
    def aligns(self) -> bool:
        """Whether the rows of a padded batch are moved, so that all of them end in their last real token."""
        return any(part.aligned for part in self.parts)

    @cached_property
    def counts(self) -> bool:
        """Whether anything in it knows how far a token is from the first one."""
        return any(part.counts for part in self.everything)

    @cached_property
    def reads_positions(self) -> bool:
        """Whether anything in it takes the positions of tokens."""
        return any("positions" in c.arguments for c in self.everything)

    @cached_property
    def given(self) -> frozenset[str]:
        """The values that its layers give to later ones."""
        return frozenset(link.name for s in self.segments for la in s.layers for link in la.block.gives)

    def counts_with(self, inputs: frozenset[str]) -> bool:
        """Whether the positions of tokens are computed in a model that takes these inputs."""
        taken = self.embedding.n_tokens == "T" and self.reads_positions
        given = not inputs.isdisjoint(("positions", "documents"))
        return taken and (given or ("mask" in inputs and (self.aligns or self.counts)))

    def by_rows(self, part: Component) -> bool:
        """Whether a part runs on rows of one document each, since it mixes tokens and is not told where one ends."""
        return part.mixes and {"documents", "document_ids"}.isdisjoint(part.arguments)

    def hands_rows(self, part: Component) -> bool:
        """Whether a part that runs on rows of one document each gives or reads a value of another layer."""
        return self.by_rows(part) and any(part.linked.values())

    @property
    def links(self) -> bool:
        """Whether values pass between its layers beside x."""
        blocks = (layer.block for segment in self.segments for layer in segment.layers)
        return self.streams is not None or any(block.gives or block.reads for block in blocks)

    def present(self, names: Iterable[str], inputs: frozenset[str], memory: frozenset[str]) -> tuple[str, ...]:
        """Those of some arguments that there are where the model takes `inputs`, and for its memory `memory`."""
        made = {name for name in names if ARGUMENTS[name].is_among(memory if name == "memory_mask" else inputs)}
        made = made if self.counts_with(inputs) else made - {"positions"}
        return in_order(made if self.aligns else made - {"key_mask"})

    def layers_take(self, inputs: frozenset[str], memory: frozenset[str]) -> tuple[str, ...]:
        """What the layers take beside x where the model takes `inputs`, and for the memory `memory`."""
        by_rows = "documents" in inputs and any(self.by_rows(part) for part in self.parts)
        return self.present({*self.arguments, *(("rows",) if by_rows else ())}, inputs, memory)

    @cached_property
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
class Head:
    """What is read from the last hidden states: the `head` of a spec, or one of its `heads`, by name.

    Attributes:
        name: that in `heads`; nothing for the one of `head`.
        component: what it is.
        loss_weight: the factor of its loss in the total.
        ahead: how many places further the token is that it learns to name, where it names the next one.
        reads: the value of a layer that it reads; nothing where it reads the last hidden states.
    """

    name: str
    component: HeadComponent
    loss_weight: float = 1.0
    ahead: int = 1
    reads: str = ""

    def __repr__(self) -> str:  # which a digest holds: what a head does without is no part of it
        reads = f", reads={self.reads!r}" if self.reads else ""
        trained = f"loss_weight={self.loss_weight!r}, ahead={self.ahead!r}"
        return f"Head(name={self.name!r}, component={self.component!r}, {trained}{reads})"

    @property
    def member(self) -> str:
        """What the model calls its module, and so how the names of its tensors begin."""
        return f"{self.name}_head" if self.name else "head"

    @property
    def path(self) -> str:
        """Where it stands in the spec."""
        return f"heads.{self.name}" if self.name else "head"


@dataclass(frozen=True)
class Spec:
    """A model: its stacks, its heads, how it starts, and what its author promises of it."""

    name: str
    stacks: tuple[Stack, ...]
    heads: tuple[Head, ...]
    init: InitComponent
    vocab_size: int | None = None
    max_seq_len: int | None = None
    description: str = ""
    source: str = ""
    expect: tuple[tuple[str, Any], ...] = ()
    file: str = field(default="", compare=False)
    files: tuple[str, ...] = field(default=(), compare=False, repr=False)  # all that were read, those it extends too
    inputs: tuple[str, ...] | None = field(default=None, compare=False)
    warnings: tuple[Problem, ...] = field(default=(), compare=False, repr=False)
    vocabulary: VocabularyComponent | None = None
    folder: str = field(default="", compare=False, repr=False)  # in which the vocabulary looks for its file
    origins: Origins = field(default_factory=Origins, compare=False, repr=False)  # where its values came from

    def __str__(self) -> str:
        return notebook.summary(self)

    def _repr_html_(self) -> str:
        return notebook.html(self)

    def _repr_svg_(self) -> str | None:
        return notebook.svg(self)

    @property
    def main(self) -> Stack:
        """The stack whose output the heads read: the last one."""
        return self.stacks[-1]

    @property
    def by_name(self) -> bool:
        """Whether forward gives a dict, an answer for each of `heads`, and not that of the one `head` alone."""
        return bool(self.heads[0].name)

    @property
    def head(self) -> HeadComponent:
        """The one head of a spec that says `head`.

        Raises:
            AttributeError: the spec says `heads`.
        """
        if self.by_name:
            raise AttributeError(
                f"{self.name} has heads by name ({', '.join(h.name for h in self.heads)}); ask its heads"
            )
        return self.heads[0].component

    def ahead(self, head: Head) -> int:
        """How many places after a token the one stands that a head names for it; 0 where later tokens are seen."""
        return head.ahead if head.component.names_next and not self.main.looks_ahead else 0

    def gives(self, head: Head) -> str:
        """What a head gives, in words."""
        return head.component.gives(self.ahead(head))

    @property
    def causal(self) -> bool:
        """Whether the output at a token depends on no later token of the main stack."""
        return self.main.causal and all(head.component.causal for head in self.heads)

    @cached_property
    def arguments(self) -> tuple[Argument, ...]:
        """What forward takes: the input of each stack, then what may be left out, last the state and aux."""
        required, optional = [], []
        for stack in self.stacks:
            before = "" if len(self.stacks) == 1 else f"{stack.name}_"
            reads = stack.embedding.reads
            required.append(Argument(before + reads, reads, stack.name, False))
            names = [name for name in GIVEN if name in self.given(stack)]
            names[names[:1] == ["token_types"] : 0] = stack.embedding.ids
            optional += [Argument(before + name, name, stack.name) for name in names]
        state = [Argument("state", "state", "")] if self.main.has_state else []
        collected = [Argument("aux", "aux", "")] if any("aux" in s.arguments for s in self.stacks) else []
        return (*required, *optional, *state, *collected)

    def given(self, stack: Stack) -> frozenset[str]:
        """What the caller may give of a stack beside its input and state."""
        always = {*stack.arguments, *stack.embedding.arguments} & {"token_types", "global_mask", "prefix_len"}
        return self.takes(stack) | always | stack.embedding.ids.keys()

    def takes(self, stack: Stack) -> frozenset[str]:
        """Which of mask, positions and documents the model takes for a stack.

        Where the spec does not say, those without which it would be wrong: masks where tokens look ahead, where a head
        pools them, or where another stack reads them; but images have no padding.
        """
        if self.inputs is not None:
            return frozenset(self.inputs) & self.can_take(stack)
        pooled = stack is self.main and any("mask" in head.component.arguments for head in self.heads)
        read = any(s.memory == stack.name for s in self.stacks)
        needed = stack.embedding.n_tokens == "T" and (not stack.causal or pooled or read)
        return self.can_take(stack) & {"mask"} if needed else frozenset()

    def memory_takes(self, stack: Stack) -> frozenset[str]:
        """What the model takes for the stack whose output a stack reads."""
        return next((self.takes(s) for s in self.stacks if s.name == stack.memory), frozenset())

    def layers_take(self, stack: Stack) -> tuple[str, ...]:
        """What the layers of a stack take beside x."""
        return stack.layers_take(self.takes(stack), self.memory_takes(stack))

    def can_take(self, stack: Stack) -> frozenset[str]:
        """Which of them the model could take for a stack."""
        fixed = stack.embedding.n_tokens != "T"
        where = {"positions", "places"}
        counts = any(not where.isdisjoint(c.arguments) for c in stack.everything)
        rows = all(s.embedding.n_tokens == "T" and not s.of_whole_rows for s in self.stacks)
        able = {
            "mask": not (fixed and stack.aligns),
            "positions": counts and not fixed,
            "documents": rows
            and not any(map(stack.hands_rows, stack.parts))
            and not any(head.component.pools for head in self.heads),
        }
        return frozenset(name for name in INPUTS if able[name])

    def taking(self, *inputs: str) -> "Spec":
        """The same model, which takes these inputs, as far as it can."""
        return replace(self, inputs=inputs)

    def decodes(self, stack: Stack) -> bool:
        """Whether a stack keeps a state while decoding: the main one alone, as the others run once for a sequence."""
        return stack is self.main and stack.has_state

    @cached_property
    def digest(self) -> str:
        """The first digits of a hash of all that the spec says once resolved."""
        heads = self.heads if self.by_name else self.head
        said: tuple[Any, ...] = (self.name, self.stacks, heads, self.init, self.vocab_size, self.max_seq_len)
        said = said if self.vocabulary is None else (*said, self.vocabulary)
        streams = tuple(stack.streams for stack in self.stacks if stack.streams is not None)
        said = (*said, *streams)
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
        tied = (head for head in self.heads if head.component.tied_shape is not None)
        found += [(f"{head.member}.{head.component.tied_weight}", tables[self.main.name]) for head in tied]
        return tuple(found)

    @property
    def tied(self) -> tuple[tuple[str, ...], ...]:
        """The names of each tensor that has several, the one that is used first."""
        others: dict[str, list[str]] = {}
        for replaced, used in self.ties:
            others.setdefault(used, []).append(replaced)
        return tuple((used, *names) for used, names in others.items())
