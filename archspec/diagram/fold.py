"""Fewer ops to draw: tensors without inputs go to what reads them, and plain branches become one box."""

from dataclasses import replace

from archspec.diagram.boxes import counted, params
from archspec.diagram.words import spelled, to
from archspec.layers.ops import ADD, Conv, Elementwise, Experts, LatentAttend, Linear, Norm, Op, Route

SMALL = 0.15  # share of the parameters up to which a branch is drawn as one box
Ops = dict[str, Op]


def absorbed(ops: Ops) -> Ops:
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


def summed(ops: Ops) -> Ops:
    """Let experts stand for the sum of what they give, which their box is drawn with."""
    found = dict(ops)
    for name, op in ops.items():
        experts = next((e for i in op.inputs if isinstance(e := ops.get(i), Experts)), None)
        routed = any(isinstance(ops.get(i), Route) for i in op.inputs)
        if experts is not None and routed and isinstance(op, Elementwise) and op.fn == ADD:
            del found[name]
            found[experts.name] = replace(experts, shape=op.shape)
            for user in [u for u in found.values() if name in u.inputs]:
                inputs = tuple(experts.name if i == name else i for i in user.inputs)
                found[user.name] = replace(user, inputs=inputs)
    return found


def collapsed(ops: Ops) -> tuple[Ops, dict[str, tuple[str, tuple[str, ...]]]]:
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
        takes = tuple(dict.fromkeys(t for m in members if not inside.issuperset(m.inputs) for t in m.takes))
        one = replace(last, inputs=outer, takes=takes, params=tuple(p for m in members for p in m.params))
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
    drawn = {n for op in ops.values() if isinstance(op, LatentAttend) for n in op.latents}  # where the cache stands
    plain = all(isinstance(ops[n], Linear | Norm | Elementwise | Conv) for n in inside) and not inside & drawn
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
        widths = to(linears[0].d_in, *(m.d_out for m in linears))
        others = ", ".join(dict.fromkeys(spelled(m.fn) for m in members if isinstance(m, Elementwise)))
        return title, (counted(widths, n), *([others] if others else []))
    names = [m.name for m in linears] or [members[-1].name]
    outputs = next((m.outputs for m in linears if m.outputs), ())
    return ", ".join(names), (counted(", ".join(name for name, _ in outputs), n),)
