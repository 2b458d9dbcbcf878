"""A spec as people see it when they print it, or look at it in a notebook.

jamba_v0_1: 32 layers, d_model 4096, vocab_size 65536, max_seq_len 262144
  12 x mamba, gated_mlp
  16 x mamba, moe
  4 x attention, gated_mlp
  head: lm
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from archspec.errors import RenderError, many

if TYPE_CHECKING:
    from archspec.language.model import Block, Spec, Stack

draw: "Callable[[Spec], str] | None" = None  # how a spec is drawn as SVG; told by the package, which has pictures


def summary(spec: "Spec") -> str:
    """The sizes of a spec, and how many layers it has of what."""
    sizes = [("d_model", spec.main.d_model), ("vocab_size", spec.vocab_size), ("max_seq_len", spec.max_seq_len)]
    said = [f"{name} {n}" for name, n in sizes if n is not None]
    layers = sum(stack.n_layers for stack in spec.stacks)
    lines = [f"{spec.name}: {', '.join([many(layers, 'layer'), *said])}"]
    for stack in spec.stacks:
        lines += _stack(stack, several=len(spec.stacks) > 1)
    kinds = [f"{head.name} ({head.component.kind})" if head.name else head.component.kind for head in spec.heads]
    return "\n".join([*lines, f"  {'heads' if spec.by_name else 'head'}: {', '.join(kinds)}"])


def _stack(stack: "Stack", several: bool) -> Iterator[str]:
    """The kinds of layers of a stack, in the order in which they first come."""
    pad = "    " if several else "  "
    if several:
        yield f"  {stack.name}: {many(stack.n_layers, 'layer')}, d_model {stack.d_model}"
    for kinds, n in Counter(_kinds(layer.block) for layer in stack.layers).items():
        yield f"{pad}{n} x {kinds}"


def _kinds(block: "Block") -> str:
    """What a layer is made of, its norms and scales apart: `attention, cross attention, gated_mlp`."""
    found = [(name, part) for name, part in block.parts if part.role in ("mixer", "ffn")]
    return ", ".join(f"cross {p.kind}" if name == "cross" else p.kind for name, p in found) or "norms alone"


def svg(spec: "Spec") -> str | None:
    """The picture of a spec; None where it cannot be drawn, as without Graphviz."""
    if draw is None:
        return None
    try:
        picture = draw(spec)
    except RenderError:
        return None
    return picture[picture.index("<svg") :]  # a page has a document type already


def html(spec: "Spec") -> str:
    """The summary of a spec, and below it its picture."""
    from html import escape

    return f"<pre>{escape(summary(spec))}</pre>{svg(spec) or ''}"
