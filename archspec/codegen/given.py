"""What a component may be given in one model, beside its input and state: masks, positions, documents."""

from collections.abc import Iterator
from functools import lru_cache

from archspec.language.model import Spec, Stack
from archspec.layers.base import Component


@lru_cache(maxsize=4)
def _facts(spec: Spec, inputs: tuple[str, ...] | None) -> dict[Component, dict[str, bool]]:
    """By component, children included; one that stands in several stacks may be given what any of them has."""
    found: dict[Component, dict[str, bool]] = {}
    for stack in spec.stacks:
        for part in (stack.embedding, *stack.parts, *((stack.position_bias,) if stack.position_bias else ())):
            facts = _in_stack(spec, stack, part)
            for c in _below(part):
                before = found.get(c, {})
                found[c] = {name: fact or before.get(name, False) for name, fact in facts.items()}
    return found


def _in_stack(spec: Spec, stack: Stack, part: Component) -> dict[str, bool]:
    takes = spec.takes(stack)
    of_memory = spec.memory_takes(stack) if "memory_mask" in part.arguments else frozenset[str]()
    return {
        "padded": "mask" in takes | of_memory or ("documents" in takes and stack.by_rows(part)),
        "counted": stack.counts_with(takes),
        "placed": "positions" in takes,
        "packed": "documents" in takes,
    }


def _below(c: Component) -> Iterator[Component]:
    yield c
    for child in c.children():
        yield from _below(child)


def given_to(spec: Spec, c: Component) -> dict[str, bool]:
    """The facts of a component: `padded`, `counted`, `placed`, `packed`; a head is told of masks alone."""
    usual = {"padded": "mask" in spec.takes(spec.main), "counted": False, "placed": False, "packed": False}
    return _facts(spec, spec.inputs).get(c, usual)
