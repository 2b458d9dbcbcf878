"""The dataflow of a component as a flow: its ops, with what is small or plain folded into what stands for it."""

from collections.abc import Iterable
from dataclasses import replace

from archspec.diagram.boxes import SUB_WIDTH, op_box, sign
from archspec.diagram.flow import (
    SINK,
    SOURCE,
    Edge,
    Flow,
    Node,
    bare,
    beside,
    box,
    circle,
    outside,
    white,
    with_inset,
    with_line,
)
from archspec.diagram.fold import Ops, absorbed, collapsed, summed
from archspec.diagram.memory import cache_words, name_of_cache
from archspec.diagram.style import MOE, WHITE, Tone
from archspec.diagram.text import shorten
from archspec.diagram.words import SIGMA, by, shape_text, spelled
from archspec.layers.ops import (
    MULTIPLY,
    Attend,
    Elementwise,
    Experts,
    LatentAttend,
    Linear,
    Op,
    Recurrent,
    Route,
    Scan,
)


def component_flow(ops: Iterable[Op], hue: Tone, d_model: int, reach: str = "") -> Flow:
    """What the panel of a component shows; `reach` says in words what its window is, when it has several."""
    found, merged = collapsed(absorbed(summed({op.name: unlimited(op) if reach else op for op in ops})))
    flow = Flow()
    _sources(flow, found, d_model)
    for op in found.values():
        _add(flow, op, found, hue, merged.get(op.name))
        if reach and isinstance(op, Attend):
            with_line(flow.nodes[op.name], reach)
    last = next(reversed(found.values()))
    flow.add(bare(SINK, shape_text(last.shape)), (last.name,))
    _dispatch(flow, found)
    _labels(flow, found)
    _caches(flow, found, hue)
    return flow


def unlimited(op: Op) -> Op:
    """The op without its window, by which alone two layers are not of two kinds."""
    if not isinstance(op, Attend) or op.window is None:
        return op
    return replace(op, window=None, kept=tuple(k._replace(limit=None) for k in op.kept))


# Nodes


def _sources(flow: Flow, ops: Ops, d_model: int) -> None:
    """What comes in from outside, with its shape where a projection reads it."""
    used = dict.fromkeys(i for op in ops.values() for i in op.inputs if i not in ops)
    if "x" in used or not used:
        flow.add(bare(SOURCE, f"x {shape_text(('B', 'T', d_model))}"))
    for name in sorted(used.keys() - {"x"}):
        reader = next((op for op in ops.values() if isinstance(op, Linear) and name in op.inputs), None)
        shape = f" {shape_text((*reader.rows, reader.d_in))}" if reader is not None else ""
        flow.add(bare(outside(name), spelled(name) + shape))


def _add(flow: Flow, op: Op, ops: Ops, hue: Tone, merged: tuple[str, tuple[str, ...]] | None) -> None:
    """The box or circle of an op, and for a gate with an activation also that."""
    inputs = [i if i in ops else outside(i) for i in op.inputs]
    if isinstance(op, Elementwise) and op.fn == MULTIPLY and len(inputs) == 1:
        inputs *= 2  # a product of two tensors that lie side by side in one
    if merged is not None:
        title, subs = merged
        flow.add(box(op.name, title, [shorten(s, 8, SUB_WIDTH) for s in subs if s], hue, 9), inputs)
    elif text := sign(op, len(inputs)):
        flow.add(circle(op.name, text), _activated(flow, op, inputs))
    else:
        readers = sum(op.name in other.inputs for other in ops.values())
        flow.add(_with_state(op_box(op, hue, readers), op, ops), inputs)


def _activated(flow: Flow, op: Op, inputs: list[str]) -> list[str]:
    """The inputs of a product, the last one through its activation: x * silu(z)."""
    if not isinstance(op, Elementwise) or not op.activation:
        return inputs
    name = f"{op.name}<act>"
    flow.add(white(name, spelled(op.activation), late=True), inputs[-1:])
    return [*inputs[:-1], name]


def _with_state(node: Node, op: Op, ops: Ops) -> Node:
    """The box of a recurrence with its share of what its call keeps."""
    caller = ops.get(op.within, op)
    if isinstance(op, Scan) and caller.kept:
        return with_inset(node, f"state {by(op.width, op.d_state)}")
    if isinstance(op, Recurrent) and caller.kept:
        return with_inset(node, f"state {len(caller.kept) * op.width} numbers")
    return node


# Lines


def _dispatch(flow: Flow, ops: Ops) -> None:
    """The dashed lines of a router: which experts run, and the weights of their sum."""
    for op in ops.values():
        route = next((i for i in op.inputs if isinstance(ops.get(i), Route)), None)
        if not isinstance(op, Experts) or route is None:
            continue
        total = f"{op.name}<sum>"
        for edge in flow.out_of(op.name):
            flow.replace(edge, replace(edge, source=total))
        flow.add(circle(total, SIGMA), (op.name,))
        flow.edges.append(Edge(route, total, 1, "control", "gate weights", MOE.border))
        old = next(e for e in flow.into(op.name) if e.source == route)
        flow.replace(old, replace(old, style="control", label="dispatch", color=MOE.border))


def _labels(flow: Flow, ops: Ops) -> None:
    """Texts beside lines: what is taken of a projection, and shapes where they change without one saying so."""
    for name, op in ops.items():
        edges = flow.out_of(name)
        if flow.nodes[name].split:
            for edge, text in _taken(op, edges, ops):
                _beside(flow, edge, text)
        elif isinstance(op, Attend | Scan | Recurrent) and len(edges) == 1 and edges[0].target != SINK:
            _beside(flow, edges[0], shape_text(op.shape))


def _taken(op: Op, edges: list[Edge], ops: Ops) -> list[tuple[Edge, str]]:
    """Each line out of an op whose output is several tensors, and which of them it carries."""
    every, found = dict(op.outputs), list[tuple[Edge, str]]()
    for reader in ops.values():
        own = [e for e in edges if e.target.partition("<")[0] == reader.name]
        names = [n for n in reader.takes if n in every]
        texts = names if len(own) == len(names) else [", ".join(names)] * len(own)
        found += [(edge, text) for edge, text in zip(own, texts, strict=True) if text]
    return found


def _beside(flow: Flow, edge: Edge, text: str) -> None:
    name = f"{edge.source}>{edge.target}<label>{edge.order}"
    flow.nodes[name] = beside(name, text)
    flow.replace(edge, replace(edge, target=name, order=0), replace(edge, source=name))


def _caches(flow: Flow, ops: Ops, hue: Tone) -> None:
    """A dashed box over the lines of what an attention keeps."""
    for op in ops.values():
        if not isinstance(op, Attend) or not op.kept:
            continue
        first, *others = _latents(flow, op) if isinstance(op, LatentAttend) else flow.into(op.name)[1:3]
        node = box(f"{op.name}<cache>", name_of_cache((op,)), [cache_words(op)], Tone(WHITE, hue.border), 9)
        node.dashed, node.covers = True, tuple(others)
        flow.add(node)
        flow.replace(first, replace(first, target=node.name, order=0), replace(first, source=node.name))


def _latents(flow: Flow, op: LatentAttend) -> list[Edge]:
    """The lines that carry the rotated key and the latent of multi-head latent attention."""
    latent, key = op.latents
    return [*(e for e in flow.into(op.name) if flow.origin(e) == key), *flow.out_of(latent)]
