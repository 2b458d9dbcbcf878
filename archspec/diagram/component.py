"""The dataflow of a component as a flow: its ops, with what is small or plain folded into what stands for it."""

import re
from collections.abc import Iterable
from dataclasses import replace

from archspec.diagram.describe import (
    SUB_WIDTH,
    cache_text,
    op_node,
    operator,
    slices,
    spelled,
    with_line,
    with_state,
)
from archspec.diagram.flow import SINK, SOURCE, Edge, Flow, bare, beside, box, circle, white
from archspec.diagram.simplify import Ops, absorbed, collapsed
from archspec.diagram.style import MOE, Tone
from archspec.diagram.text import SIGMA, TIMES, shape_text, shorten, size
from archspec.layers.base import Component
from archspec.layers.ops import Attend, Cache, Conv, Elementwise, Experts, Op, Recurrent, Route, Scan


def component_flow(
    component: Component, hue: Tone, d_model: int, reach: str = "", every: Iterable[Op] | None = None
) -> Flow:
    """What the panel of a component shows; `reach` says in words what its window is, when it has several.

    `every` are its ops where they are not simply those of the component.
    """
    ops = {op.name: _unwindowed(op) if reach else op for op in every or component.ops()}
    ops, merged = collapsed(absorbed(ops))
    flow = Flow()
    _sources(flow, ops, component, d_model)
    readers = {n: sum(n in op.inputs for op in ops.values()) for n in ops}
    for op in ops.values():
        node = merged.get(op.name, ("", ()))
        _add(flow, op, component, hue, readers[op.name], node)
        if reach and isinstance(op, Attend):
            flow.nodes[op.name] = with_line(flow.nodes[op.name], reach)
    last = next(reversed(ops.values()))
    flow.add(bare(SINK, shape_text(last.shape)), (last.name,))
    _dispatch(flow, ops)
    _streams(flow, ops, component)
    _labels(flow, ops)
    _caches(flow, ops, hue)
    return flow


def _unwindowed(op: Op) -> Op:
    return replace(op, window=None, cache=replace(op.cache, limit=None)) if isinstance(op, Attend) else op


def stateless(ops: Iterable[Op]) -> tuple[Op, ...]:
    """The ops of a component that never decodes, and so keeps nothing."""
    return tuple(replace(op, cache=Cache()) for op in ops)


# Nodes


def _sources(flow: Flow, ops: Ops, component: Component, d_model: int) -> None:
    used = {i for op in ops.values() for i in op.inputs if i not in ops}
    d_memory = getattr(component, "d_memory", d_model)
    if "x" in used or not used:
        flow.add(bare(SOURCE, f"x {shape_text(('B', 'T', d_model))}"))
    for name in sorted(used - {"x"}):
        text = f"memory {shape_text(('B', 'M', d_memory))}" if name == "memory" else name.replace("_", " ")
        flow.add(bare(f"<{name}>", "position bias" if name == "bias" else text))
    if "bias" in used:
        flow.nodes["<bias>"].name = "<bias>"


def _add(
    flow: Flow, op: Op, component: Component, hue: Tone, readers: int, merged: tuple[str, tuple[str, ...]]
) -> None:
    """The box or circle of an op, and for a gate with an activation also that."""
    inputs = [_feed(flow, i) for i in op.inputs]
    inputs = [i for i in inputs if i]
    if isinstance(op, Elementwise) and op.fn == "gate" and len(inputs) == 1:
        inputs *= 2
    sign = operator(op, len(inputs))
    if merged[0]:
        subs = [shorten(s, 8, SUB_WIDTH) for s in merged[1] if s]
        flow.add(box(op.name, merged[0], subs, hue, 9), inputs)
    elif sign:
        flow.add(circle(op.name, sign), _activated(flow, op, inputs))
    else:
        node = op_node(op, component, hue, readers)
        if isinstance(op, Scan) and (op.cache.exact or op.cache.fixed):
            node = with_state(node, f"state {op.width} {TIMES} {op.d_state}")
        flow.add(node, inputs)


def _feed(flow: Flow, name: str) -> str:
    if name == "x":
        return SOURCE
    return name if name in flow.nodes else f"<{name}>" if f"<{name}>" in flow.nodes else ""


def _activated(flow: Flow, op: Op, inputs: list[str]) -> list[str]:
    """The inputs of a product, the last one through its activation: `silu gate` is x * silu(z)."""
    word = op.fn.removesuffix("gate").removesuffix("multiply").strip() if isinstance(op, Elementwise) else ""
    if not word or (isinstance(op, Elementwise) and operator(op, 2) != TIMES) or " " not in getattr(op, "fn", ""):
        return inputs
    name = f"{op.name}<act>"
    flow.add(white(name, spelled(word), late=True), inputs[-1:])
    return [*inputs[:-1], name]


def _dispatch(flow: Flow, ops: Ops) -> None:
    """The dashed lines of a router: which experts run, and the weights of their sum."""
    for op in ops.values():
        if not isinstance(op, Experts):
            continue
        route = next((i for i in op.inputs if isinstance(ops.get(i), Route)), None)
        if route is None:
            continue
        total = f"{op.name}<sum>"
        for edge in flow.out_of(op.name):
            flow.replace(edge, replace(edge, source=total))
        flow.add(circle(total, SIGMA), (op.name,))
        flow.edges.append(Edge(route, total, 1, "control", "gate weights", MOE.border))
        old = next(e for e in flow.into(op.name) if e.source == route)
        flow.replace(old, replace(old, style="control", label="dispatch", color=MOE.border))


def _caches(flow: Flow, ops: Ops, hue: Tone) -> None:
    """A dashed box over the keys and values that an attention keeps."""
    for op in ops.values():
        if not isinstance(op, Attend) or not (op.cache.per_token or op.cache.per_memory_token):
            continue
        flowing = [e for e in flow.into(op.name) if not e.source.startswith("<")]
        kept = _latents(flow, ops, op) if hasattr(op, "latent") else flowing[1:3]
        if not kept:
            continue
        title = "latent cache" if hasattr(op, "latent") else "KV cache"
        limit = f", last {op.cache.limit}" if op.cache.limit else ""
        node = box(f"{op.name}<cache>", title, [cache_text(op) + limit], Tone("#FFFFFF", hue.border), 9)
        node.dashed, node.covers = True, tuple(kept[1:])
        first = kept[0]
        flow.add(node)
        flow.replace(first, replace(first, target=node.name, order=0), replace(first, source=node.name))


def _latents(flow: Flow, ops: Ops, op: Op) -> list[Edge]:
    """The lines that carry the latent and the rotated key of multi-head latent attention."""
    edges = flow.into(op.name)
    rotated = [e for e in edges if e.source.startswith("k_")]
    expanded = [e for e in edges if e.source.endswith("kv_b_proj")]
    latent = [e for x in expanded for e in flow.into(x.source)]
    return [*rotated, *latent]


def _labels(flow: Flow, ops: Ops) -> None:
    """Texts beside lines: the slices of a projection, and shapes where they change without a projection saying so."""
    for name, op in ops.items():
        edges = flow.out_of(name)
        names = slices(op, len(edges)) if flow.nodes[name].split else []
        if len(names) == len(edges):
            for edge, text in zip(edges, names, strict=True):
                _beside(flow, edge, text)
        elif isinstance(op, Attend | Scan | Recurrent) and len(edges) == 1 and edges[0].target != SINK:
            _beside(flow, edges[0], shape_text(op.shape))


def _streams(flow: Flow, ops: Ops, component: Component) -> None:
    """Names beside the lines out of a convolution over several tensors side by side, which gates read from the last."""
    for name, op in ops.items():
        source = ops.get(op.inputs[0]) if isinstance(op, Conv) and op.inputs else None
        found = re.fullmatch(r"(\w+)_0 \.\.\. \1_\{(\w+)-1\}, (\w+)", source.note if source else "")
        if found is None:
            continue
        stem, size_of, value = found.groups()
        names = [value, *(f"{stem}{i}" for i in reversed(range(getattr(component, size_of, 0))))]
        edges = flow.out_of(name)
        if len(names) == len(edges):
            flow.nodes[name].split = True
            for edge, text in zip(edges, names, strict=True):
                _beside(flow, edge, text)


def _beside(flow: Flow, edge: Edge, text: str) -> None:
    name = f"{edge.source}>{edge.target}<label>{edge.order}"
    flow.nodes[name] = beside(name, text)
    flow.replace(edge, replace(edge, target=name, order=0), replace(edge, source=name))


def memory_text(ops: Iterable[Op]) -> list[str]:
    """What a component keeps while decoding, in words: what grows with each token, and what does not."""
    every = tuple(ops)
    grows = 2 * sum(op.cache.per_token for op in every)
    limits = {op.cache.limit for op in every if op.cache.per_token}
    fixed = sum(2 * op.cache.fixed + 4 * op.cache.exact for op in every)
    name = "KV cache" if any(isinstance(op, Attend) for op in every) else "cache"
    name = "latent cache" if any(hasattr(op, "latent") for op in every) else name
    parts = [f"{name} {size(grows)} / token / layer"] if grows else []
    memory = 2 * sum(op.cache.per_memory_token for op in every)
    parts += [f"{name} {size(memory)} / memory token / layer"] if memory else []
    parts += [f"fixed state {size(fixed)} / layer / sequence"] if fixed else []
    most = max((limit or 0 for limit in limits), default=0)
    return [*parts, *([f"at most {most} tokens"] if grows and None not in limits else [])]
