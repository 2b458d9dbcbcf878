"""What every component declares: a frozen config, the ops it is made of, and the facts that the rest of archspec asks.

A component is declared in `layers/<role>s/<kind>.py` and runs as the `nn.Module` of the same name in
`modules/<role>s/<kind>.py`. Whatever else archspec wants to know of a component is a property here, with a default and
its meaning; a kind overrides those that differ. Nobody asks for a component's kind to decide what to do with it.

Nothing here imports torch.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, model_validator

from archspec.layers.fields import LENGTH, acts, extra, unit
from archspec.layers.ops import Norm, Op, Shape


class Port(NamedTuple):
    """A value that passes between layers.

    Attributes:
        op: the op whose output it is; nothing where it is read.
        shape: of the tensor.
        like: what must be equal where it is given and where it is read, by the names that a spec has for it.
    """

    op: str
    shape: Shape
    like: Mapping[str, Any]


class Component(BaseModel):
    """A node of a resolved spec. Subclasses name their `role` and give `examples` that the contract tests build."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True, defer_build=True)

    role: ClassVar[str]
    examples: ClassVar[tuple[dict[str, Any], ...]] = ({},)
    # Whether its module is written for a plain file, which would rather be short than keep tables and check lengths.
    plain: ClassVar[bool] = False
    # Whether there may be a mask, counted positions, positions of the caller (places) and documents: what its module
    # does with them is left out of a file whose model has none.
    padded: ClassVar[bool] = True
    counted: ClassVar[bool] = True
    placed: ClassVar[bool] = True
    packed: ClassVar[bool] = True
    if TYPE_CHECKING:
        kind: str  # each kind has a field of that name, which can have but one value

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        fields = type(self).model_fields
        for name, value in super().__repr_args__():
            if not (name in fields and extra(fields[name]).get("later") and value == fields[name].default):
                yield name, value

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.check()
        return self

    def check(self) -> None:
        """Raise ValueError where settings contradict one another: say what was found and what would be right."""

    @classmethod
    def for_slots(cls, numbers: Mapping[str, Any]) -> Mapping[str, Any]:
        """Sizes that the components in its slots know by its own ones, under the names that they use for them."""
        return {}

    def doubts(self, length: int | None) -> Iterator[str]:
        """What is accepted with a warning: what equals "off", does not act at these sizes, or does harm.

        What no sizes could make act is refused by `check`.

        Args:
            length: tokens of the longest sequence (max_seq_len), where the spec says it.
        """
        yield from ()

    def ops(self) -> tuple[Op, ...]:
        """The ops in the order in which the module registers their tensors; the last one is the output."""
        raise NotImplementedError(f"{type(self).__name__} declares no ops")

    @property
    def arguments(self) -> tuple[str, ...]:
        """What `forward` takes after x, in order, each None by default."""
        return ()

    @property
    def title(self) -> str:
        """A short name for tables and pictures; what sets it apart from others of that name follows a comma."""
        return type(self).__name__

    @property
    def short(self) -> str:
        """The title in a few letters, as the field abbreviates it: for the smallest boxes of pictures."""
        return self.title.partition(",")[0]

    @property
    def causal(self) -> bool:
        """Whether the output at a token depends on no later token."""
        return True

    @property
    def mixes(self) -> bool:
        """Whether what it gives for a token depends on other tokens of the sequence."""
        return False

    @property
    def tells_order(self) -> bool:
        """Whether the order of the tokens makes a difference to it, beside what stands in their vectors."""
        return False

    @property
    def aligned(self) -> bool:
        """Whether it needs the real tokens of padded rows side by side, at the end of each row."""
        return False

    @property
    def contiguous(self) -> bool:
        """Whether padding must stand at the ends of a row: it goes by distances, and does not ask for moved rows."""
        return False

    @property
    def counts(self) -> bool:
        """Whether it knows how far a token is from the first one, and so must be told where there is padding."""
        return any(c.counts for c in self.children())

    @property
    def aux_loss(self) -> bool:
        """Whether the module records a loss of its own where it is given `aux`."""
        return False

    @property
    def loss_pools(self) -> tuple[Hashable, ...]:
        """For each loss of its own what it shares with those layers of a stack that make one with it; None: alone."""
        return ()

    @property
    def moves_bias(self) -> bool:
        """Whether the module has an `update_bias`, which takes the load of a training step."""
        return False

    @property
    def constants(self) -> int:
        """Numbers of 32 bits that its module holds and no file saves, those in its slots included."""
        return sum(c.constants for c in self.children())

    @property
    def numbered(self) -> bool:
        """Whether it asks which layer it is: its module is then built as `Module(layer, config)`, counted from 0.

        Of how many layers is a field, `n_layers: Size = inherited("layers of the stack")`.
        """
        return any(c.numbered for c in self.children())

    @property
    def offers(self) -> "Mapping[str, Port]":
        """What it can give to later layers beside its output, in the order in which its module returns it."""
        return {}

    @property
    def linked(self) -> Mapping[str, tuple[str, ...]]:
        """Which of these pass between layers here: `gives` to later ones, `reads` of an earlier one."""
        return {}

    @property
    def accepts(self) -> "Mapping[str, Port]":
        """What it can read of an earlier layer in place of what it would compute, and what that must be like."""
        return {}

    @property
    def draws(self) -> bool:
        """Whether training draws random numbers in it: dropout, or noise."""
        drawn = any(getattr(self, name, 0) for name in ("dropout", "expert_dropout", "jitter"))
        return drawn or any(c.draws for c in self.children())

    @property
    def longest(self) -> int | None:
        """The longest sequence that it takes, in tokens; None where any will do."""
        return min((n for c in self.children() if (n := c.longest) is not None), default=None)

    @property
    def exact_within(self) -> int | None:
        """Tokens up to which a longer text leaves earlier outputs as they were; None where there is no such limit."""
        return min((n for c in self.children() if (n := c.exact_within) is not None), default=None)

    @property
    def reach(self) -> int:
        """Tokens of a text from which on every length of it acts: its windows, chunks and limits; at least 1."""
        own = [getattr(self, name) for name, info in type(self).model_fields.items() if unit(info) == LENGTH]
        inside = [c.reach for c in self.children()]
        return max([1, *(n for n in (*own, self.exact_within) if n is not None), *inside])

    @property
    def crosses(self) -> bool:
        """Whether what it gives for a sequence depends on the others of the batch."""
        return False

    @property
    def shards(self) -> dict[str, tuple[str, ...]]:
        """How it can be shared among devices: a unit (heads, channels, experts) and the fields that each then has fewer
        of. Parameters say in `Param.split` how they are cut; the outputs of all devices are added up.
        """
        return {}

    def smaller(self, cut: Callable[[int], int]) -> dict[str, Any]:
        """Settings of a small copy of it for a proof on any machine, by field, beside those cut in the usual way.

        Usually a `Width` is cut by `cut`, `Tokens` are cut to a few, and everything else stays. Say here what else must
        change: counts that are large (heads, experts) and settings that must fit the widths. What is said of a slot is
        a dict of fields of the component there.
        """
        return {}

    def children(self) -> Iterator["Component"]:
        """The components in its slots that do something there."""
        for name in type(self).model_fields:
            child = getattr(self, name)
            if isinstance(child, Component) and acts(self, name):
                yield child


class NormComponent(Component):
    """A norm: unlike other components it is told the width that it normalises when it is built."""

    role: ClassVar[str] = "norm"

    def op(self, name: str, dim: int, inputs: tuple[str, ...] = ("x",), shape: Shape | None = None) -> Norm:
        """The op of this norm over `dim` channels, as a sub-module called `name`; its label is the title."""
        raise NotImplementedError(f"{type(self).__name__} declares no op")


class MixerComponent(Component):
    """What mixes the tokens of a sequence."""

    role: ClassVar[str] = "mixer"

    @property
    def mixes(self) -> bool:
        """Always."""
        return True

    @property
    def aligned(self) -> bool:
        """Usually: state, windows and convolutions go by the order in which tokens stand."""
        return True

    @property
    def tells_order(self) -> bool:
        """Usually."""
        return True

    @property
    def shared_bias(self) -> "PositionComponent | None":
        """The position whose biases one table of the whole stack gives to `forward` as `bias` (T5)."""
        return None


class FFNComponent(Component):
    """What mixes the channels of a token: a feed-forward network, which as a rule sees that token alone."""

    role: ClassVar[str] = "ffn"


class ScaleComponent(Component):
    """A factor on a residual branch."""

    role: ClassVar[str] = "scale"


class PositionComponent(Component):
    """How the scores of an attention know positions."""

    role: ClassVar[str] = "position"
    rotates: ClassVar[bool] = False  # it turns queries and keys: forward(q, k, start) gives both
    slopes: ClassVar[bool] = False  # it gives a slope a head: forward() gives (n_heads,)

    @property
    def pairs(self) -> int:
        """Pairs of channels of a head that it turns."""
        return 0

    @property
    def for_stack(self) -> bool:
        """Whether one table of the stack serves all layers: forward(x, state) gives (1, n_heads, T, S)."""
        return False

    @property
    def tells_sides(self) -> bool | None:
        """Whether keys ahead differ from keys behind; None where that is nothing to decide."""
        return None

    @property
    def score_factor(self) -> float:
        """What it asks an attention that heeds it (MLA) to multiply the scale of the scores with."""
        return 1.0


class AbsolutePositionComponent(Component):
    """Rows of `dim` numbers that are added to the embedding, one a position."""

    role: ClassVar[str] = "absolute_position"
    if TYPE_CHECKING:
        dim: int

    @property
    def counts(self) -> bool:
        """Always."""
        return True


class RopeScalingComponent(Component):
    """How the frequencies of a rotary position change to reach further."""

    role: ClassVar[str] = "rope_scaling"

    def check_width(self, dim: int) -> None:
        """Raise ValueError where it cannot scale the frequencies of `dim` rotated channels."""

    def changes(self, dim: int, theta: float) -> bool:
        """Whether it changes any frequency of `dim` channels with the base `theta`."""
        return True

    def for_pairs(self, pairs: int) -> dict[str, Any]:
        """Settings that must change for so few rotated pairs of channels, by field."""
        return {}

    @property
    def table_factor(self) -> float:
        """What cosines and sines are multiplied with."""
        return 1.0

    @property
    def score_factor(self) -> float:
        """What MLA multiplies the scale of its softmax with."""
        return 1.0

    def ops(self) -> tuple[Op, ...]:
        """None of its own: it changes the numbers of a rotation."""
        return ()


class EmbeddingComponent(Component):
    """What turns the input of a stack into vectors of d_model numbers, one a token."""

    role: ClassVar[str] = "embedding"
    reads: ClassVar[str]  # what `forward` takes first, by the field's own word
    table: ClassVar[str] = ""  # the parameter that a head or another stack can be tied to
    if TYPE_CHECKING:
        d_model: int

    @property
    def input_shape(self) -> Shape:
        """Of what it reads."""
        return ("B", "T")

    @property
    def n_ids(self) -> int | None:
        """How many different ids it reads; None where it reads numbers."""
        return None

    @property
    def n_tokens(self) -> int | Literal["T"]:
        """How many tokens it makes."""
        return "T"

    @property
    def table_width(self) -> int:
        """Width of the table, with which a tied head must agree."""
        return self.d_model

    @property
    def tells_order(self) -> bool:
        """Whether a token's vector says where it stands."""
        return False

    @property
    def ids(self) -> dict[str, int]:
        """Further ids of each token that the caller may give, by name, each with how many different ones there are."""
        return {}

    def doubts(self, length: int | None) -> Iterator[str]:
        """Positions that end before the longest sequence does."""
        if length is not None and self.n_tokens == "T" and (self.longest or length) < length:
            yield f"there are positions for {self.longest} tokens, and max_seq_len is {length}: longer texts are errors"


class HeadComponent(Component):
    """What is read from the last hidden states."""

    role: ClassVar[str] = "head"
    learns: ClassVar[Literal["classes", "numbers"]] = "classes"  # whether outputs are scores of classes
    tied_weight: ClassVar[str] = "proj.weight"  # the parameter that is the token table when tied
    fills_gaps: ClassVar[bool] = False  # it is trained to name tokens that are hidden, by those on both sides
    names_next: ClassVar[bool] = False  # it is trained to name a token that comes later, where none of those is seen

    def gives(self, ahead: int) -> str:
        """What comes out, in words; `ahead`: how many places further what it names stands, 0 where that is seen."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it gives")

    @property
    def pools(self) -> bool:
        """Whether it gives one answer for a whole sequence, not one a token."""
        return False

    @property
    def tied_shape(self) -> tuple[int, int] | None:
        """The shape that the token table must have to be its weight; None where it is not tied."""
        return None

    @property
    def untied(self) -> Self:
        """The same with a weight of its own, which has the same module."""
        return self if self.tied_shape is None else self.model_copy(update={"tied": False})

    @property
    def reads_token(self) -> str:
        """Which single token stands for the sequence (first, middle, last); nothing where none does."""
        return ""
