"""The dataflow of a component as a flow: its ops, with what is small or plain folded into what stands for it."""

from collections.abc import Iterable
from dataclasses import replace

from archspec.layers.base import Component
from archspec.layers.ops import Attend, Conv, Elementwise, Experts, Linear, Norm, Op, Recurrent, Route, Scan
from archspec.passes.diagram.describe import (
    SUB_WIDTH,
    cache_text,
    counted,
    op_node,
    operator,
    params,
    slices,
    spelled,
    with_line,
    with_state,
)
from archspec.passes.diagram.flow import SINK, SOURCE, Edge, Flow, Node, bare, beside, box, circle, white
from archspec.passes.diagram.style import INK, MOE, Tone
from archspec.passes.diagram.text import ARROW, SIGMA, TIMES, Line, extent, shape_text, shorten, size

SMALL = 0.15  # share of the parameters up to which a branch is drawn as one box
Ops = dict[str, Op]


def component_flow(component: Component, hue: Tone, d_model: int, reach: str = "") -> Flow:
    """What the panel of a component shows; `reach` says in words what its window is, when it has several."""
    ops = {op.name: _unwindowed(op) if reach else op for op in component.ops()}
    ops, merged = _collapsed(_absorbed(ops))
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
    _labels(flow, ops)
    _caches(flow, ops, hue)
    return flow


def _unwindowed(op: Op) -> Op:
    return replace(op, window=None, cache=replace(op.cache, limit=None)) if isinstance(op, Attend) else op


# Fewer ops: parameters without inputs, small branches


def _absorbed(ops: Ops) -> Ops:
    """Give tensors that no input reaches to the op that reads them, where that op reads other things too."""
    found = dict(ops)
    for name, op in ops.items():
        users = [o for o in found.values() if name in o.inputs]
        if op.inputs or not isinstance(op, Elementwise) or not users:
            continue
        if all(len(u.inputs) > 1 for u in users):
            heir = max(users, key=lambda u: (not isinstance(u, Elementwise), list(found).index(u.name)))
            del found[name]
            for user in users:
                kept = tuple(i for i in user.inputs if i != name)
                given = op.params if user is heir else ()
                found[user.name] = replace(found[user.name], inputs=kept, params=found[user.name].params + given)
    return found


def _collapsed(ops: Ops) -> tuple[Ops, dict[str, tuple[str, tuple[str, ...]]]]:
    """Draw a branch as one box: a small one between two ops, or a long one that no input reaches."""
    merged: dict[str, tuple[str, tuple[str, ...]]] = {}
    total = max(params(ops.values()), 1)
    for region in _regions(ops):
        members = [ops[n] for n in region if n in ops]
        if len(members) != len(region) or (_reached(ops, members[0]) and params(members) > SMALL * total):
            continue
        inside = {m.name for m in members}
        last = members[-1]
        outer = tuple(dict.fromkeys(i for m in members for i in m.inputs if i not in inside))
        one = replace(last, inputs=outer, params=tuple(p for m in members for p in m.params))
        merged[last.name] = _summary(members)
        at = dict.fromkeys(inside, last.name)
        ops = {
            n: (one if n == last.name else replace(op, inputs=tuple(dict.fromkeys(at.get(i, i) for i in op.inputs))))
            for n, op in ops.items()
            if n == last.name or n not in inside
        }
    return ops, merged


def _regions(ops: Ops) -> list[list[str]]:
    """Sets of plain ops with one way in and one way out, or with no way in, in order."""
    readers = {n: [o.name for o in ops.values() if n in o.inputs] for n in ops}
    found = []
    for target in ops.values():
        for source in target.inputs:
            region = _between(ops, source, target.name) if len(target.inputs) > 1 else []
            if len(region) > 1 and _closed(ops, readers, region, source, target.name):
                found.append(region)
    for name, op in ops.items():
        if not op.inputs:
            run = [name]
            while len(readers[run[-1]]) == 1 and len(ops[readers[run[-1]][0]].inputs) == 1:
                run.append(readers[run[-1]][0])
            if len(run) > 3:
                found.append(run)
    return found


def _between(ops: Ops, source: str, target: str) -> list[str]:
    """The ops on ways from one to another."""
    after, before = {source}, {target}
    for op in ops.values():
        if any(i in after for i in op.inputs):
            after.add(op.name)
    for _ in range(2):
        for op in reversed(ops.values()):
            if op.name in before:
                before |= {i for i in op.inputs if i in after and i != source}
    return [n for n in ops if n in after and n in before and n not in (source, target)]


def _closed(ops: Ops, readers: dict[str, list[str]], region: list[str], source: str, target: str) -> bool:
    inside = set(region)
    plain = all(isinstance(ops[n], Linear | Norm | Elementwise | Conv) for n in region)
    only_in = all(i in inside or i == source for n in region for i in ops[n].inputs)
    only_out = all(r in inside or r == target for n in region for r in readers[n])
    return plain and only_in and only_out


def _reached(ops: Ops, op: Op) -> bool:
    return bool(op.inputs)


def _summary(members: list[Op]) -> tuple[str, tuple[str, ...]]:
    """Name and details of a branch drawn as one box."""
    linears = [m for m in members if isinstance(m, Linear)]
    n = params(members)
    if len(linears) > 2:
        title = f"{linears[0].name} ... {linears[-1].name}"
        widths = f" {ARROW} ".join(str(w) for w in [linears[0].d_in, *(m.d_out for m in linears)])
        others = ", ".join(dict.fromkeys(spelled(m.fn) for m in members if isinstance(m, Elementwise)))
        return title, (counted(widths, n), *([others] if others else []))
    names = [m.name for m in linears] or [members[-1].name]
    note = next((m.note for m in linears if m.note and len(m.note) < 24), "")
    return ", ".join(names), (counted(note, n),)


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
        if not isinstance(op, Attend) or not op.cache.per_token:
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
    parts = [f"{name} {size(grows)} / token / layer"] if grows else []
    parts += [f"fixed state {size(fixed)} / layer / sequence"] if fixed else []
    most = max((limit or 0 for limit in limits), default=0)
    return [*parts, *([f"at most {most} tokens"] if grows and None not in limits else [])]
