"""A component by itself on the device of one's choice, what its forward takes, and how its facts may be wrong."""

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from contract_specs import D_MODEL, LENGTH, SIZES, example
from torch import nn

from archspec.language.resolve import make
from archspec.layers.base import Component, EmbeddingComponent, NormComponent
from archspec.layers.ops import Attend, Elementwise, FFTConv, Kept, Linear, Norm, Op, Param, Run, Scan
from archspec.modules import by_itself
from archspec.verify.declared import Groups
from archspec.verify.given import given

B, M, D_MEMORY = 5, 7, 12  # unlike any size of the examples


def component(role: str, kind: str, number: int) -> Component:
    scope = {**SIZES, "d_embedding": D_MODEL, "n_heads": 4, "head_dim": 16, "d_memory": D_MEMORY}
    return make(role, example(role, kind, number), **scope)


def module(c: Component, device: str = "cpu") -> nn.Module:
    with torch.device(device):
        return by_itself(c, D_MODEL).eval()


def ops(c: Component) -> tuple[Op, ...]:
    return (c.op("", D_MODEL),) if isinstance(c, NormComponent) else c.ops()


def length(c: Component) -> int:
    """Tokens of a whole number of chunks, or as many as it takes."""
    chunks = [op.chunk for op in ops(c) if isinstance(op, Scan) and op.chunk is not None]
    return min(max([16, *chunks]), c.longest or 2 * LENGTH)


def arguments(c: Component, run: Run, device: str = "cpu", dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """What forward takes, by name, the first of them x; no mask and no state."""
    return given(c, D_MODEL, run, device, dtype)


def sizes(c: Component) -> Run:
    """The sizes at which it is traced."""
    tokens = length(c)
    if isinstance(c, EmbeddingComponent) and c.n_tokens != "T":
        tokens = c.n_tokens
    return Run(B=B, T=tokens, S=tokens, M=M)


# Wrong facts


def wrong_dataflow(every: Sequence[Op]) -> Iterator[tuple[str, list[Op]]]:
    """The ops with one fact about shapes, edges or FLOPs changed, and what was changed.

    An edge that leads from where another one leads already, through element-wise steps, is none.
    """
    flow = Groups(every)
    for i, op in enumerate(every):
        if isinstance(op, Elementwise) or op.within:
            continue
        for j, size in enumerate(op.shape):
            if isinstance(size, int):
                yield f"{op.name}: axis {j}", _with(every, i, shape=(*op.shape[:j], size + 1, *op.shape[j + 1 :]))
        yield f"{op.name}: rows", _with(every, i, shape=("B", *op.shape))
        yield from ((f"{op.name}: {what}", _with(every, i, **facts)) for what, facts in _wrong_facts(op))
        if op.flops(Run(B=B, T=8, S=8, M=M)) and not isinstance(op, FFTConv):
            yield f"{op.name}: FLOPs", [*every[:i], dearer(op), *every[i + 1 :]]
        edges = [tuple(n for n in op.inputs if n != name) for name in op.inputs]
        edges += [(*op.inputs, other) for other in ("x", *(o.name for o in every[:i])) if other not in op.inputs]
        for inputs in edges:
            wrong = _with(every, i, inputs=inputs)
            if Groups(wrong).reads(flow.leader(op.name)) != flow.reads(flow.leader(op.name)):
                yield f"{op.name}: reads {inputs}", wrong


def _wrong_facts(op: Op) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a class of ops says beside shapes and edges, changed."""
    if isinstance(op, Linear):
        yield "heads", {"heads": 2 * op.heads if op.heads else 2} if op.heads else {"d_in": op.d_in + 1}
    if isinstance(op, Norm):
        yield "dim", {"dim": 2 * op.dim}
    if isinstance(op, Scan):
        yield "width", {"width": op.width + 1}
        yield "d_state", {"d_state": op.d_state + 1}
        yield "chunk", {"chunk": 2 * op.chunk if op.chunk else 2}
    if isinstance(op, Attend):
        yield "window", {"window": 1 if op.window is None else op.window + 1}
        yield "softcap", {"softcap": 3.0 if op.softcap is None else None}
    if op.kernel:
        yield "kernel", {"kernel": op.kernel + "_"}


def wrong_states(every: Sequence[Op], run: Run) -> Iterator[tuple[str, list[Op]]]:
    """The ops with one fact about what they keep changed, so that it shows at these sizes."""
    for i, op in enumerate(every):
        for j, kept in enumerate(op.kept):
            for name, wrong in _wrong_kept(kept, run):
                yield f"{op.name}: {kept.name} {name}", _with(every, i, kept=(*op.kept[:j], wrong, *op.kept[j + 1 :]))
            yield f"{op.name}: no {kept.name}", _with(every, i, kept=(*op.kept[:j], *op.kept[j + 1 :]))
        yield f"{op.name}: keeps more", _with(every, i, kept=(*op.kept, Kept("more", ("B", 1))))


def _wrong_kept(kept: Kept, run: Run) -> Iterator[tuple[str, Kept]]:
    for dtype in ("model", "float32", "int64"):
        if dtype != kept.dtype:
            yield dtype, kept._replace(dtype=dtype)  # type: ignore[arg-type]
    yield "name", kept._replace(name=kept.name + "_")
    for i in range(len(kept.shape) - 1):
        a, b = kept.shape[i : i + 2]
        swapped = kept._replace(shape=(*kept.shape[:i], b, a, *kept.shape[i + 2 :]))
        if swapped.needed(run) != kept.needed(run):
            yield f"axes {i} and {i + 1} swapped", swapped
    for i, size in enumerate(kept.shape):
        other = 2 * size + 1 if isinstance(size, int) else 1
        yield f"axis {i}", kept._replace(shape=(*kept.shape[:i], other, *kept.shape[i + 1 :]))


def wrong_params(every: Sequence[Op]) -> Iterator[tuple[str, list[Op]]]:
    """The ops with one fact about a parameter changed."""
    for i, op in enumerate(every):
        for j, p in enumerate(op.params):
            for name, wrong in (
                ("name", p._replace(name=p.name + "_")),
                ("shape", p._replace(shape=(*p.shape, 2))),
                ("buffer", p._replace(buffer=not p.buffer)),
            ):
                yield f"{p.name}: {name}", _with(every, i, params=(*op.params[:j], wrong, *op.params[j + 1 :]))
            yield f"{p.name}: none", _with(every, i, params=(*op.params[:j], *op.params[j + 1 :]))
        yield f"{op.name}: one more", _with(every, i, params=(*op.params, Param("more.weight", (3,))))


def dearer(op: Op) -> Op:
    """An op that claims one FLOP more than it takes."""
    cls = type(type(op).__name__, (type(op),), {"__slots__": (), "flops": lambda _, run: op.flops(run) + 1})
    found = cls(**{f.name: getattr(op, f.name) for f in fields(op)})
    assert isinstance(found, Op)
    return found


def _with(every: Sequence[Op], i: int, **facts: Any) -> list[Op]:
    return [*every[:i], replace(every[i], **facts), *every[i + 1 :]]
