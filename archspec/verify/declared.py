"""What a component declares, held against what its module does: shapes, dataflow, FLOPs and decoding state."""

from collections.abc import Collection, Iterator, Sequence
from math import prod
from typing import Any

import torch
from torch import nn

from archspec.decoding.check import dtype_of
from archspec.decoding.tree import Held, leaves
from archspec.layers.arguments import ARGUMENTS, BY_TOKEN
from archspec.layers.base import Component
from archspec.layers.ops import CONCAT, Attend, Elementwise, Embedding, FFTConv, Kept, Linear, Norm, Op, Run, Scan
from archspec.passes.tensors import registered
from archspec.verify.trace import Seen, trace


class Groups:
    """The ops of a component, those that one call computes together as one; element-wise ones step aside."""

    def __init__(self, ops: Sequence[Op]):
        self.ops = {op.name: op for op in ops}
        self.members: dict[str, list[Op]] = {}
        for op in ops:
            self.members.setdefault(self.leader(op.name), []).append(op)
        self.solid = {n: m for n, m in self.members.items() if not all(isinstance(op, Elementwise) for op in m)}

    def leader(self, name: str) -> str:
        """The op that stands for all that one call computes."""
        seen = {name}
        while (within := self.ops[name].within) and within in self.ops and within not in seen:
            name = within
            seen.add(name)
        return name

    def sources(self, name: str, seen: frozenset[str] = frozenset()) -> set[str]:
        """What stands behind a name: an argument, a solid op, or what an element-wise step reads."""
        if name not in self.ops:
            return {name}
        leader = self.leader(name)
        if leader in self.solid:
            return {leader}
        if leader in seen:
            return set()
        members = self.members[leader]
        inside = {op.name for op in members}
        return {s for op in members for i in op.inputs if i not in inside for s in self.sources(i, seen | {leader})}

    def reads(self, leader: str) -> set[str]:
        """What a solid op reads."""
        inside = {op.name for op in self.solid[leader]}
        found = {s for op in self.solid[leader] for i in op.inputs if i not in inside for s in self.sources(i)}
        return found - {leader}


def dataflow_problems(c: Component, module: nn.Module, given: dict[str, Any], run: Run, ops: Sequence[Op]) -> list[str]:
    """Where shapes, edges or FLOPs that the ops of a component declare differ from what its module does.

    Args:
        c: the component.
        module: its module, in evaluation mode, on the device of what it is given.
        given: the arguments of forward, the first of them x.
        run: the sizes of what is given.
        ops: what is declared; those of the component.
    """
    groups = Groups(ops)
    seen = trace(module, ops, given)
    data = {"x", *(name for name in given if name in ARGUMENTS and (ARGUMENTS[name].data or name in BY_TOKEN))}
    found: list[str] = []
    for op in ops:
        # A norm's heads part behind the projection that it reads.
        if isinstance(op, Norm) and op.name in seen.ops and seen.ops.keys() & set(op.inputs[:1]):
            seen.ops[op.inputs[0]].views |= seen.ops[op.name].views
    for leader, members in groups.solid.items():
        found += _op_problems(c, leader, members, seen.ops.get(leader), groups.reads(leader), data, run)
    output = groups.sources(ops[-1].name)
    if seen.output != output:
        have = _listed(seen.output)
        found.append(f"{c.kind}: its output is declared to come from {_listed(output)}, and comes from {have}")
    if seen.stray_flops:
        found.append(f"{c.kind}: {seen.stray_flops:,} FLOPs belong to no op")
    return found


def _op_problems(
    c: Component, leader: str, members: Sequence[Op], seen: Seen | None, reads: set[str], data: set[str], run: Run
) -> Iterator[str]:
    what = f"{c.kind}: op {leader}"
    if seen is None:
        yield f"{what} is declared, and nothing of the module is it: neither a sub-module, nor a kernel, nor a product"
        return
    last = members[-1]
    for op in members[:-1]:
        if not _leads_to(op, members, run):
            yield f"{c.kind}: op {op.name} is declared to give {run.shape(op.shape)}, which {last.name} cannot make"
    shapes = [_heads_first(s) if isinstance(last, Embedding) and last.biases else s for s in seen.shapes]
    if not any(_same_shape(run.shape(last.shape), given) for given in shapes):
        gives = " and ".join(map(str, seen.shapes)) or "nothing"
        yield f"{what} is declared to give {run.shape(last.shape)}, and gives {gives}"
    own = {op.name for op in members}
    have = {r for r in seen.reads - own if r in data or (r not in ARGUMENTS and r != "x")}
    if have != reads:
        yield f"{what} is declared to read {_listed(reads)}, and reads {_listed(have)}"
    for op in members:
        yield from (f"{c.kind}: op {op.name} {said}" for said in _fact_problems(op, members, seen, run))
    flops = sum(op.flops(run) for op in members)
    if flops != seen.flops and not all(_uncounted(op) for op in members):
        yield f"{what} is declared to take {flops:,} FLOPs, and takes {seen.flops:,}"


def _fact_problems(op: Op, members: Sequence[Op], seen: Seen, run: Run) -> Iterator[str]:
    """What else an op says of itself, where it is not what was seen."""
    match op:
        case Linear(heads=heads) if heads is not None or seen.views:
            declared = set() if heads is None else {(heads, op.d_out // heads)}
            if declared != seen.views:
                have = " and ".join(f"{h} of {d} channels" for h, d in sorted(seen.views)) or "none"
                yield f"is declared to give {heads or 'no'} heads, and its output is taken apart into {have}"
        case Linear() if seen.rows and op.d_in not in seen.rows:
            yield f"is declared to take {op.d_in} channels, and takes {seen.rows[0]}"
        case Norm(dim=dim) if not op.kernel and seen.rows and dim not in seen.rows:
            yield f"is declared to normalise {dim} channels, and normalises {seen.rows[0]}"
        case Norm(dim=dim) if op.kernel and (seen.settings.get("group_size") or dim) != dim:
            yield f"is declared to normalise {dim} channels, and normalises {seen.settings['group_size']}"
        case Scan():
            if (told := seen.settings.get("chunk")) != op.chunk:
                yield f"is declared to go in chunks of {op.chunk}, and its kernel is told {told}"
            state = sum(k.fixed() for k in op.kept)
            if op.kept and op.width * op.d_state != state:
                yield f"is declared to have a state of {op.width} x {op.d_state}, and keeps {state:,} numbers"
        case Attend():
            for name in ("window", "softcap"):
                if (told := seen.settings.get(name)) != getattr(op, name):
                    yield f"is declared with {name} {getattr(op, name)}, and its kernel is told {told}"
    if op.kernel and "activation" in seen.settings and not callable(seen.settings["activation"]):
        inside: set[Any] = {m.activation or m.fn for m in members if isinstance(m, Elementwise)} or {None}
        if seen.settings["activation"] not in inside:
            yield f"applies {seen.settings['activation']} in its kernel, and declares {', '.join(map(str, inside))}"


def _heads_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of biases as scores take them, (1, H, T, S), of that which a table gives, (T, S, H)."""
    return (1, shape[-1], *shape[:-1]) if len(shape) == 3 else shape


def _leads_to(op: Op, members: Sequence[Op], run: Run) -> bool:
    """Whether the element-wise ops of one call can make of an op's output what they are declared to give."""
    for reader in members:
        if op.name not in reader.inputs or not isinstance(reader, Elementwise):
            continue
        shape, parts = run.shape(reader.shape), [m for m in members if m.name in reader.inputs]
        if reader.fn == CONCAT:
            widths = [run.shape(m.shape)[-1] for m in parts]
            if shape != (*run.shape(op.shape)[:-1], sum(widths)):
                return False
        elif shape != run.shape(op.shape):
            return False
    return True


def _uncounted(op: Op) -> bool:
    """Whether PyTorch's counter has no eyes for an op: it does not count FFTs."""
    return isinstance(op, FFTConv | Elementwise)


def _same_shape(declared: tuple[int, ...], given: tuple[int, ...]) -> bool:
    """Whether shapes are equal, but for leading axes that were merged into rows and trailing ones of size 1."""
    declared, given = _without_ones(declared), _without_ones(given)
    if prod(declared) != prod(given) or len(given) > len(declared):
        return False
    tail = len(given) - 1
    return given[1:] == declared[len(declared) - tail :] if given else True


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    while shape and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


# Parameters


def parameter_problems(c: Component, ops: Sequence[Op], module: nn.Module, tied: Collection[str] = ()) -> list[str]:
    """Where names, shapes or order of the declared tensors are not those of the module; `tied` ones are another's."""
    params = registered([p for op in ops for p in op.params])
    kept = set(module.state_dict())
    have = [(n, tuple(p.shape)) for n, p in module.named_parameters() if n not in tied]
    buffers = [(n, tuple(b.shape)) for n, b in module.named_buffers() if n in kept]
    found = []
    for what, built, buffer in (("parameters", have, False), ("buffers", buffers, True)):
        declared = [(p.name.removeprefix("."), p.shape) for p in params if p.buffer == buffer]
        if declared != built:
            odd = [d for d in declared if d not in built] + [b for b in built if b not in declared]
            found.append(f"{c.kind}: {what} are not those of the module, first {odd[:1] or 'their order'}")
    return found


# Decoding state


def state_problems(c: Component, ops: Sequence[Op], state: dict[str, Any], run: Run, dtype: torch.dtype) -> list[str]:
    """Where a state, after run.S tokens, holds other tensors than the ops of its component declare."""
    declared: dict[str, Kept] = {k.name: k for op in ops for k in op.kept}
    have = {held.path: held for held in leaves(state)}
    found = [f"{c.kind}: the state should hold {name!r}, and does not" for name in declared.keys() - have.keys()]
    found += [f"{c.kind}: the state holds {name!r}, which no op declares" for name in have.keys() - declared.keys()]
    for name, kept in declared.items():
        if name in have:
            found += _tensor_problems(f"{c.kind}: {name!r} of the state", kept, have[name], run, dtype)
    return found


def _tensor_problems(what: str, kept: Kept, held: Held, run: Run, dtype: torch.dtype) -> Iterator[str]:
    tensor, wanted = held.tensor, dtype_of(kept, dtype)
    filled = tuple(held.filled(2).shape)  # the axis of `append`, whatever is declared
    if tensor.dtype != wanted:
        yield f"{what} is declared as {wanted}, and is {tensor.dtype}"
    if filled != kept.needed(run):
        yield f"{what} is declared as {kept.needed(run)}, and is {filled}"
    elif kept.grows == "S" and prod(tensor.shape) > prod(kept.held(run)):
        yield f"{what} is declared to hold at most {kept.held(run)}, and holds {tuple(tensor.shape)}"
