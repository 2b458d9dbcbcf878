"""What can only be said of layers one after another: their numbers, and the values that pass between them."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from archspec.errors import Fault, suggest
from archspec.language.depth import value_at
from archspec.language.links import Link
from archspec.language.model import Block
from archspec.language.places import Place
from archspec.language.problems import Problems, join
from archspec.language.rules import shown
from archspec.language.topics import see
from archspec.layers.base import Component

Layers = Sequence[tuple[Place, Block]]


def check_numbers(layers: Layers, problems: Problems) -> None:
    """Tell each layer whose factor has no value at its number, and each of one set of weights and many numbers."""
    told: set[int] = set()
    for number, (place, block) in enumerate(layers):
        if not block.numbered or id(place.node) in told:
            continue
        wrong = "; ".join(_without_value(block, number))
        if place.group is not None:
            wrong = "asks which layer it is, which cannot be said of several with one set of weights; remove share"
        if wrong:
            told.add(id(place.node))
            problems.tell(place.node.fields.get("wiring", place.node), place.path, wrong)


def _without_value(block: Block, number: int) -> list[str]:
    """What is wrong with the factors of a block in the layer of that number."""
    found = []
    for text in block.wiring.per_layer():
        try:
            value_at(text, number)
        except (Fault, ArithmeticError, ValueError) as fault:
            found.append(f"layer {number}: {fault}")
    return found


def check_values(layers: Layers, problems: Problems, heads: Collection[str] = ()) -> None:
    """Tell what is read before any layer gives it, what none reads, and what does not fit where it is read.

    Args:
        layers: in order.
        problems: keeps what is told.
        heads: values that heads read.
    """
    given: dict[str, tuple[int, Block, Link]] = {}
    read: set[str] = {*heads}
    names = {link.name for _, block in layers for link in block.gives}
    told: set[tuple[int, str]] = set()
    for number, (place, block) in enumerate(layers):
        for link in block.reads:
            read.add(link.name)
            wrong = _wrong(link, block, given, names)
            if wrong and (id(place.node), link.name) not in told:
                told.add((id(place.node), link.name))
                node = place.node.fields["reads"]
                problems.tell(node, join(place.path, "reads"), f"layer {number} reads {link.name!r}{wrong}")
        given |= {link.name: (number, block, link) for link in block.gives}
    for place, block in layers:
        for link in block.gives:
            if link.name not in read and (id(place.node), link.name) not in told:
                told.add((id(place.node), link.name))
                message = f"no later layer reads {link.name!r}; read it, or remove it"
                problems.tell(place.node.fields["gives"], join(place.path, "gives"), message)


def _wrong(link: Link, block: Block, given: Mapping[str, tuple[int, Block, Link]], names: set[str]) -> str:
    """What is wrong with reading a value in a block; nothing where it is right."""
    if link.name not in given:
        later = ", which only a later layer gives; put that first"
        known = suggest(link.name, names) if names else "; none gives any"
        return later if link.name in names else f", which no layer gives{known}{see('between')}"
    number, giver, source = given[link.name]
    if bool(link.part) != bool(source.part) or (link.part and link.port != source.port):
        return f", which layer {number} gives as {source.inside}, as {link.inside}"
    if not link.part:
        return ""
    theirs, ours = (
        _like(giver.part(source.part), source.port, "offers"),
        _like(block.part(link.part), link.port, "accepts"),
    )
    differ = next((name for name in ours if ours[name] != theirs[name]), "")
    if not differ:
        return ""
    values = f"{_said(theirs[differ])} there and {_said(ours[differ])} here"
    return f" of layer {number}, whose {source.part} differs in {differ}: {values}; make them equal"


def _like(part: Component | None, port: str, way: str) -> Mapping[str, Any]:
    assert part is not None
    found: Mapping[str, Any] = getattr(part, way)[port].like
    return found


def _said(value: object) -> str:
    if isinstance(value, Component):
        fields = (f"{name} {shown(getattr(value, name))}" for name in type(value).model_fields if name != "kind")
        return f"{value.kind} ({', '.join(fields)})"
    return "none" if value is None else shown(value)
