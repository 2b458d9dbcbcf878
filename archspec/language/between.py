"""What can only be said of layers one after another: numbers that differ from layer to layer."""

from collections.abc import Sequence

from archspec.errors import Fault
from archspec.language.depth import value_at
from archspec.language.model import Block
from archspec.language.places import Place
from archspec.language.problems import Problems


def check_numbers(layers: Sequence[tuple[Place, Block]], problems: Problems) -> None:
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
