"""Where components stand in a spec, and which of them limit what can be said of the whole."""

from collections.abc import Callable, Iterator

from archspec.language.model import Spec, Stack
from archspec.layers.base import Component


def parts(spec: Spec) -> Iterator[tuple[str, Component, Stack]]:
    """The parts of all layers with their paths in the model, those of repeated layers once."""
    for stack in spec.stacks:
        for segment in stack.segments:
            for number, layer in enumerate(segment.layers, segment.start):
                for name, part in layer.block.parts:
                    yield f"{spec.prefix(stack)}blocks.{number}.{name}", part, stack


def placed(spec: Spec) -> Iterator[tuple[str, Component]]:
    """Every component that runs, with its path: parts of layers, embeddings, heads, and those in their slots."""
    for path, part, _ in parts(spec):
        yield from _within(path, part)
    for stack in spec.stacks:
        yield from _within(f"{spec.prefix(stack)}embedding", stack.embedding)
    for head in spec.heads:
        yield from _within(head.member, head.component)


def _within(path: str, c: Component) -> Iterator[tuple[str, Component]]:
    yield path, c
    for name in type(c).model_fields:
        child = getattr(c, name)
        if isinstance(child, Component) and any(child is other for other in c.children()):
            yield from _within(f"{path}.{name}", child)


def blamed(spec: Spec, fact: Callable[[Component], bool]) -> str:
    """The first component of which something is so, by kind and path: the innermost, of which those around have it."""
    found = [(path, c) for path, c in placed(spec) if fact(c)]
    if not found:
        return ""
    first = found[0][0]
    path, c = [(path, c) for path, c in found if path == first or path.startswith(f"{first}.")][-1]
    more = len({path for path, _ in found if not path.startswith(f"{first}.")}) - 1
    return f"{c.kind} ({path}{f' and {more} more' if more else ''})"
