"""A spec, or one component, whose sizes know their names: its ops then cost formulas in these names.

The rules of ops are the same; only the numbers that they are given remember where they came from. A size that follows
from another one alone and equals it goes by the other's name (n_kv_heads of multi-head attention is n_heads).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from archspec.formulas import Size
from archspec.graph import Node
from archspec.language.model import Block, Layer, Segment, Spec, Stack
from archspec.layers.base import Component
from archspec.layers.fields import extra

C = TypeVar("C", bound=Component)


def named_spec(spec: Spec) -> Spec:
    """The same spec with named sizes."""
    heads = tuple(replace(head, component=named_component(head.component)) for head in spec.heads)
    return replace(spec, stacks=tuple(map(_stack, spec.stacks)), heads=heads)


def named_component(c: C, around: Mapping[str, int] | None = None) -> C:
    """The same component with named sizes; `around` are the sizes of the component in whose slot it stands."""
    own = sizes(c)
    outer = around or {}
    changed: dict[str, Any] = {}
    for name, value in own.items():
        known = outer.get(name, value) == value
        changed[name] = Size.of(value, _alias(c, name, own) if known else f"{c.role}.{name}")
    inner = {**outer, **own}
    for name in type(c).model_fields:
        child = getattr(c, name)
        if isinstance(child, Component):
            changed[name] = named_component(child, inner)
    return c.model_copy(update=changed)


def sizes(c: Component) -> dict[str, int]:
    """The whole numbers of a component by field; 0 and 1 need no name."""
    found = {name: getattr(c, name) for name in type(c).model_fields}
    return {name: int(n) for name, n in found.items() if isinstance(n, int) and not isinstance(n, bool) and n > 1}


def named_sizes(c: Component | None, around: Mapping[str, int] | None = None) -> dict[str, int]:
    """What the names in the ops of a named component stand for, those of what is in its slots too."""
    outer = dict(around or {})
    if c is None:
        return outer
    own = sizes(c)
    found = outer | {name if outer.get(name, n) == n else f"{c.role}.{name}": n for name, n in own.items()}
    for name in type(c).model_fields:
        child = getattr(c, name)
        if isinstance(child, Component):
            found |= named_sizes(child, outer | own)
    return found


def sizes_of(node: Node, nodes: Mapping[str, Node], widths: Mapping[str, int]) -> dict[str, int]:
    """What the names in the shapes of a node stand for; a sum or product of the wiring has the shape of its first.

    Args:
        node: of the graph of a named spec.
        nodes: all of them by name.
        widths: of the stacks.
    """
    source = node
    while source.component is None and source.reads and source.reads[0] in nodes:
        source = nodes[source.reads[0]]
    return {"d_model": widths[source.stack], **named_sizes(source.component)}


def _alias(c: Component, name: str, own: Mapping[str, int]) -> str:
    """The name of the size that a derived size repeats; its own where it repeats none."""
    source = extra(type(c).model_fields[name]).get("formula", "")
    if not source.isidentifier():
        return name
    if source not in own:  # a size of the surroundings, which the component has under another name if at all
        given = [n for n in own if extra(type(c).model_fields[n]).get("inherited") and own[n] == own[name]]
        return given[0] if given else name
    return _alias(c, source, own) if own[source] == own[name] else name


def _stack(stack: Stack) -> Stack:
    return replace(
        stack,
        d_model=Size.of(stack.d_model, "d_model"),
        embedding=named_component(stack.embedding),
        segments=tuple(map(_segment, stack.segments)),
        final_norm=None if stack.final_norm is None else named_component(stack.final_norm),
        position_bias=None if stack.position_bias is None else named_component(stack.position_bias),
    )


def _segment(segment: Segment) -> Segment:
    return replace(segment, layers=tuple(map(_layer, segment.layers)))


def _layer(layer: Layer) -> Layer:
    block: Block = layer.block
    return replace(layer, block=replace(block, parts=tuple((name, named_component(c)) for name, c in block.parts)))
