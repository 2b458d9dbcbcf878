"""What a component may be given in one model, beside its input and state: masks, positions, documents."""

from collections.abc import Iterator

from archspec.language.model import Spec, Stack
from archspec.layers.base import Component

Facts = dict[str, bool]  # padded, counted, placed, packed


def facts_by_component(spec: Spec) -> dict[Component, Facts]:
    """The facts of each component, children included; one of several stacks may be given what any of them has."""
    found: dict[Component, Facts] = {}
    for stack in spec.stacks:
        for part in stack.everything:
            facts = _in_stack(spec, stack, part)
            for c in _below(part):
                before = found.get(c, {})
                found[c] = {name: fact or before.get(name, False) for name, fact in facts.items()}
    return found


def _in_stack(spec: Spec, stack: Stack, part: Component) -> Facts:
    takes = spec.takes(stack)
    of_memory = spec.memory_takes(stack) if "memory_mask" in part.arguments else frozenset[str]()
    return {
        "padded": "mask" in takes | of_memory or ("documents" in takes and stack.by_rows(part)),
        "counted": stack.counts_with(takes),
        "placed": "positions" in takes,
        "packed": "documents" in takes and not {"documents", "memory_documents"}.isdisjoint(part.arguments),
    }


def _below(c: Component) -> Iterator[Component]:
    yield c
    for child in c.children():
        yield from _below(child)


def usual_facts(spec: Spec) -> Facts:
    """Those of what stands outside the layers: a head is told of masks alone."""
    return {"padded": "mask" in spec.takes(spec.main), "counted": False, "placed": False, "packed": False}
