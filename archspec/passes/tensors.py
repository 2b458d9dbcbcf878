"""Every tensor of the model by its full name, in the order in which PyTorch lists them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from archspec.graph import Node
from archspec.layers.ops import Param


@dataclass(frozen=True, slots=True)
class Tensor:
    """A parameter or a persistent buffer of the built model."""

    name: str
    shape: tuple[int, ...]
    count: int
    buffer: bool = False


def tensors(every: Iterable[Node]) -> list[Tensor]:
    """Parameters (and persistent buffers) of the whole model, tied and shared ones once, in registration order."""
    found: list[Tensor] = []
    for group in groups(every):
        layer = [registered([p for node in members for p in node.params]) for members in group]
        for r in range(group[0][0].copies if group[0] else 1):
            for members, params in zip(group, layer, strict=True):
                found += [_tensor(p, members[0], r * len(group)) for p in params]
    return found


def groups(every: Iterable[Node]) -> list[list[list[Node]]]:
    """The nodes by segment, then by layer of its period; what stands outside the blocks is a group of its own."""
    found: dict[tuple[str, int, str], dict[int, list[Node]]] = {}
    for node in every:
        where = (node.stack, node.segment, "" if node.segment >= 0 else node.part)
        found.setdefault(where, {}).setdefault(node.layer, []).append(node)
    return [list(layers.values()) for layers in found.values()]


def registered(params: Iterable[Param]) -> list[Param]:
    """In PyTorch's order: a module's own tensors, then those of its sub-modules in order of creation."""
    tree: dict[str, Any] = {}
    for p in params:
        *modules, leaf = p.name.split(".")
        node = tree
        for module in modules:
            node = node.setdefault((module,), {})  # type: ignore[call-overload]
        node.setdefault(leaf, p)
    return list(_in_order(tree))


def _in_order(tree: dict[Any, Any]) -> Iterator[Param]:
    yield from (p for p in tree.values() if isinstance(p, Param))
    for child in tree.values():
        if isinstance(child, dict):
            yield from _in_order(child)


def _tensor(p: Param, node: Node, offset: int) -> Tensor:
    name = p.name
    if offset:
        head, _, tail = name.partition("blocks.")
        index, _, rest = tail.partition(".")
        name = f"{head}blocks.{int(index) + offset}.{rest}"
    return Tensor(name, p.shape, p.numel, p.buffer)
