"""What the classes of a generated file are called: one for each distinct config, and one for each stack."""

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import count, islice

from archspec.language.model import Block, Spec
from archspec.layers.base import Component
from archspec.layers.fields import acts

LONGEST = 40  # characters of the name of a class, so that whatever it stands in fits on a line


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
    for head in spec.heads:
        note(head.component.untied, Use("", head.name, "head"))
    note(spec.init, Use("", "", "init"))
    return found


def class_names(
    spec: Spec, found: dict[Component | Block, Use], reserved: Collection[str] = ()
) -> dict[Component | Block, str]:
    """A class name for each distinct config: the kind alone where there is one, else what tells them apart.

    No two classes have the same name or give a constant the same prefix, and none has a reserved name.
    """
    by_kind: dict[str, list[Component | Block]] = {}
    for item in found:
        by_kind.setdefault(type(item).__name__, []).append(item)
    names: dict[Component | Block, str] = {}
    for kind, items in by_kind.items():
        taken = {snake(name) for name in (*by_kind, *names.values(), *reserved) if name != kind}
        prefixes = _prefixes([found[i] for i in items], kind, taken, several=len(spec.stacks) > 1)
        names |= {item: prefix + kind for item, prefix in zip(items, prefixes, strict=True)}
    return names


def stack_names(spec: Spec, taken: Collection[str]) -> dict[str, str]:
    """A class name for each stack, unlike all that are taken."""
    names: dict[str, str] = {}
    for stack in spec.stacks:
        names[stack.name] = free(camel(stack.name), {*taken, *names.values()}, "Stack")
    return names


def free(wished: str, taken: Collection[str], suffix: str = "_") -> str:
    """The wished name, or the first with a suffix that is not taken: `encoder_`, `encoder_2`, ...; EncoderStack."""
    others = (f"{wished}{suffix}{i}" if i > 1 else f"{wished}{suffix}" for i in count(1))
    return wished if wished not in taken else next(other for other in others if other not in taken)


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
        prefixes = [re.sub(r"\W", "", way(u))[: LONGEST - len(kind)] for u in items]
        names = {snake(prefix + kind) for prefix in prefixes}
        if len(names) == len(items) and not names & taken:
            return prefixes
    others = (f"Other{i}" if i > 1 else "Other" for i in count(1))
    unused = (other for other in others if snake(other + kind) not in taken)
    return ["", *islice(unused, len(items) - 1)]


def snake(name: str) -> str:
    """`LocalAttention` -> local_attention, `GatedMLP` -> gated_mlp, `MoE` -> moe."""
    name = name.replace("MoE", "Moe")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
