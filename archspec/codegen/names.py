"""What things are called in a generated file: a class for each distinct config, a constant for each size."""

import builtins
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice

from archspec.errors import GenerateError
from archspec.language.model import Block, Spec
from archspec.layers.base import Component
from archspec.layers.fields import acts, extra

IMPORTED = ("Model", "Tensor", "State", "Any", "Callable", "Sequence", "Iterable", "Mapping", "F")  # by generated files

NEUTRAL = {  # what a size is that several kinds share
    "d_ff": "hidden units of a feed-forward network",
    "dropout": "probability of dropout",
    "eps": "added to the variance or mean square",
    "scale": "factor",
    "std": "standard deviation",
}


@dataclass(frozen=True)
class Use:
    """Where a component or block is used first: its stack, the name of its block, and its part in it."""

    stack: str
    label: str
    part: str


def camel(*words: str) -> str:
    """`local`, `attention` -> LocalAttention."""
    return "".join(w[:1].upper() + w[1:] for text in words for w in text.split("_") if w)


def walk(c: Component) -> Iterator[Component]:
    """A component and everything in its slots, but for what has no effect there."""
    yield c
    for name in type(c).model_fields:
        child = getattr(c, name)
        if isinstance(child, Component) and acts(c, name):
            yield from walk(child)


def uses(spec: Spec) -> dict[Component | Block, Use]:
    """Every distinct component and block of a spec with its first use, in order."""
    found: dict[Component | Block, Use] = {}

    def note(c: Component | None, use: Use) -> None:
        for child in walk(c) if c is not None else ():
            found.setdefault(child, use)

    for stack in spec.stacks:
        note(stack.embedding, Use(stack.name, "", "embedding"))
        note(stack.position_bias, Use(stack.name, "", "position_bias"))
        for segment in stack.segments:
            for layer in segment.layers:
                for name, part in layer.block.parts:
                    note(part, Use(stack.name, layer.label, name))
                found.setdefault(layer.block, Use(stack.name, layer.label, "block"))
        note(stack.final_norm, Use(stack.name, "", "final_norm"))
    note(spec.head, Use("", "", "head"))
    note(spec.init, Use("", "", "init"))
    return found


def class_names(spec: Spec, found: dict[Component | Block, Use]) -> dict[Component | Block, str]:
    """A class name for each distinct config: the kind alone where there is one, else what tells them apart."""
    by_kind: dict[str, list[Component | Block]] = {}
    for item in found:
        by_kind.setdefault(type(item).__name__, []).append(item)
    names: dict[Component | Block, str] = {}
    for kind, items in by_kind.items():
        taken = {snake(name) for name in (*by_kind, *names.values(), *IMPORTED) if name != kind}
        prefixes = _prefixes([found[i] for i in items], kind, taken, several=len(spec.stacks) > 1)
        names |= {item: prefix + kind for item, prefix in zip(items, prefixes, strict=True)}
    return names


def stack_names(spec: Spec, classes: Iterable[str]) -> dict[str, str]:
    """A class name for each stack, unlike those of the layers and what a file imports."""
    taken = {*classes, *IMPORTED, *dir(builtins)}
    names: dict[str, str] = {}
    for stack in spec.stacks:
        name = camel(stack.name)
        others = (f"{name}Stack{i}" if i > 1 else f"{name}Stack" for i in count(1))
        names[stack.name] = name if name not in taken else next(other for other in others if other not in taken)
        taken.add(names[stack.name])
    return names


def _prefixes(items: list[Use], kind: str, taken: set[str], several: bool) -> list[str]:
    """What tells classes of one kind apart; no two may make the same class name, or the same name of a constant."""
    if len(items) == 1:
        return [""]
    ways: tuple[Callable[[Use], str], ...] = (
        lambda u: camel(u.label),
        lambda u: (
            camel(u.part)
            if u.part in ("cross", "embedding", "head", "final_norm")
            else camel(u.stack)
            if several
            else ""
        ),
        lambda u: camel(u.stack, u.label) if several else camel(u.label, u.part),
        lambda u: camel(u.stack if several else "", u.label, u.part),
    )
    for way in ways:
        prefixes = [re.sub(r"\W", "", way(u)) for u in items]
        names = {snake(prefix + kind) for prefix in prefixes}
        if len(names) == len(items) and not names & taken:
            return prefixes
    others = (f"Other{i}" if i > 1 else "Other" for i in count(1))
    free = (other for other in others if snake(other + kind) not in taken)
    return ["", *islice(free, len(items) - 1)]


class Constants:
    """Named sizes: `D_FF = 14336` where a field has one value in the spec, `MOE_D_FF = 1408` where kinds differ."""

    def __init__(self, spec: Spec, found: dict[Component | Block, Use], names: dict[Component | Block, str]):
        components = [c for c in found if isinstance(c, Component)]
        self.names = names
        self.stacks = {c: found[c].stack for c in components}
        self.used: dict[str, tuple[float, str]] = {}
        self.values: dict[str, set[float]] = {}
        self.by_kind: dict[tuple[str, str], set[float]] = {}
        self.by_stack: dict[str, dict[str, set[float]]] = {s.name: {} for s in spec.stacks}
        for c in components:
            for field in dir_numbers(c):
                value = getattr(c, field)
                self.values.setdefault(field, set()).add(value)
                self.by_kind.setdefault((type(c).__name__, field), set()).add(value)
                self.by_stack.get(self.stacks[c], {}).setdefault(field, set()).add(value)
        self.possible = {self.peek(c, field) for c in components for field in dir_numbers(c)}

    def name(self, c: Component, field: str, value: float) -> str | None:
        """The constant that holds `c.field`, noted as used; None when the value is not a number."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        field = source(c, field)
        text = self.peek(c, field)
        if self.used.get(text, (value,))[0] != value:
            raise GenerateError(f"{text} would be {self.used[text][0]} and {value}")
        note, earlier = describe(c, field), self.used.get(text)
        if earlier is not None and earlier[1] != note:
            note = NEUTRAL.get(field) or min(earlier[1], note, key=len)
        self.used[text] = (value, note)
        return text

    def peek(self, c: Component, field: str) -> str:
        """The name without noting its use."""
        field = source(c, field)
        if len(self.values.get(field, ())) <= 1:
            return field.upper()
        if (stack := self.stack(c, field)) is not None:
            return f"{stack}_{field}".upper()
        if len(self.by_kind.get((type(c).__name__, field), ())) <= 1:
            return f"{snake(type(c).__name__)}_{field}".upper()
        return f"{snake(self.names[c])}_{field}".upper()

    def stack(self, c: Component, field: str) -> str | None:
        """The stack that a width belongs to; the head is told its width by the stack that it follows."""
        info = type(c).model_fields.get(field)
        if field != "d_model" or info is None or not extra(info).get("inherited"):
            return None
        own = self.by_stack.get(self.stacks[c])
        widths = self.by_stack if own is None else {self.stacks[c]: own}
        return next((name for name, fields in widths.items() if fields.get(field) == {getattr(c, field)}), None)


def source(c: Component, field: str) -> str:
    """The field that a size was taken from: n_kv_heads of multi-head attention is n_heads."""
    info = type(c).model_fields.get(field)
    formula = extra(info).get("formula", "") if info else ""
    taken = "d_model" if formula == "d_embedding" else formula
    same_thing = set(taken.split("_")) <= set(field.split("_")) or (taken == "d_model" and field in ("dim", "d_embed"))
    if same_thing and taken in type(c).model_fields and getattr(c, taken) == getattr(c, field):
        return source(c, taken)
    return field


def dir_numbers(c: Component) -> list[str]:
    """The fields and properties of a component that hold numbers."""
    found = [f for f in type(c).model_fields if _number(getattr(c, f)) and acts(c, f)]
    own = [
        n
        for cls in type(c).__mro__
        if issubclass(cls, Component)
        for n, v in vars(cls).items()
        if isinstance(v, property)
    ]
    return found + [n for n in own if not n.startswith("_") and _number(getattr(c, n))]


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def describe(c: Component, field: str) -> str:
    """What a size is, in a few words."""
    info = type(c).model_fields.get(field)
    text = (
        (info.description or "")
        if info
        else (getattr(type(c), field).__doc__ or "").strip().splitlines()[0].rstrip(".")
    )
    return text if info else text[:1].lower() + text[1:]


def snake(name: str) -> str:
    """`LocalAttention` -> local_attention, `GatedMLP` -> gated_mlp, `MoE` -> moe."""
    name = name.replace("MoE", "Moe")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
