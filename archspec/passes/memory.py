"""What a training step holds in memory: weights, gradients, optimizer states, and what the backward pass needs.

    peak = max(weights + states + saved + loss + 2 logits,  weights + gradients + states + workspace)

the first at the start of the backward pass, the second in the step of the optimizer. Gradients are freed before the
forward pass (`zero_grad(set_to_none=True)`), the logits given up once there is a loss. `saved_bytes` is what autograd
keeps of a forward pass beside weights and inputs, to the byte, for what the package's kernels do on a CPU; with another
`attention` it is what the operators for a GPU keep, which nobody has measured. `estimates` names the figures that are
not proved. What the losses of routers keep is not among them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Literal, NamedTuple

from archspec.errors import CostError
from archspec.formulas import Formula, Size
from archspec.graph import Graph, Node, graph
from archspec.language.model import Head, Spec, need_spec
from archspec.layers.ops import How, Param, Run
from archspec.passes.dtypes import bytes_of, trains
from archspec.passes.optimizers import optimizer as optimizer_of
from archspec.passes.storages import Key, Storages, storages
from archspec.passes.workload import Attention, Checkpoint, Workload, workload

Moment = Literal["start of the backward pass", "optimizer step"]
BACKWARD: Moment = "start of the backward pass"
STEP: Moment = "optimizer step"


class OfNode(NamedTuple):
    """Bytes that the backward pass needs because of one op, in all layers that it stands for."""

    node: Node
    bytes: int


@dataclass(frozen=True)
class Memory:
    """The memory of a training step; all are whole numbers of bytes for the whole batch.

    Attributes:
        weight_bytes, gradient_bytes, optimizer_bytes: of the trained parameters; with the optimizer are `master_bytes`.
        buffer_bytes: of buffers, constants that no file saves included (frequencies of RoPE).
        saved_bytes: what the forward pass of the model leaves for the backward pass.
        recomputed_bytes: with checkpoints, the most that one layer holds while it is run again; 0 without.
        loss_bytes: what cross-entropy (or the squared error) keeps beside it.
        output_bytes: of the model's output.
        workspace_bytes: of the optimizer's step.
        peak_bytes, peak_moment: the most that is held at once, and when.
        estimates: the names of the figures that are not proved.
        by_node: `saved_bytes` by op, each storage at the first op that needs it.
    """

    name: str
    workload: Workload
    dtype: str
    attention: Attention
    checkpoint: Checkpoint
    optimizer: str
    gradient_dtype: str
    master_dtype: str | None
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    master_bytes: int
    buffer_bytes: int
    saved_bytes: int
    recomputed_bytes: int
    loss_bytes: int
    output_bytes: int
    workspace_bytes: int
    peak_bytes: int
    peak_moment: Moment
    estimates: tuple[str, ...]
    by_node: tuple[OfNode, ...] = field(repr=False, compare=False)


def memory(
    spec: Spec,
    *,
    batch: int = 1,
    seq: int | None = None,
    memory_tokens: int | None = None,
    dtype: str = "bfloat16",
    attention: Attention = "cpu",
    checkpoint: Checkpoint = "none",
    optimizer: str = "adamw",
    gradient_dtype: str | None = None,
    master_dtype: str | None = None,
) -> Memory:
    """The memory of a training step of a spec.

    Args:
        spec: a resolved spec.
        batch, seq, memory_tokens: sequences, tokens of each (by default max_seq_len), and those of a memory.
        dtype: of weights and activations.
        attention: cpu is what the package's kernels do on a CPU; flash and eager are what they do on a GPU.
        checkpoint: block keeps the inputs of each layer alone, and runs it again in the backward pass.
        optimizer: a name of `archspec.passes.optimizers`.
        gradient_dtype: of gradients, by default that of the weights.
        master_dtype: of a second copy of the weights, which the optimizer steps; its states are then as wide.

    Raises:
        CostError: an option is unknown, or a length is beyond what the model takes.
    """
    need_spec(spec)
    asked = workload(spec, batch=batch, seq=seq, memory=memory_tokens)
    if attention not in ("flash", "eager", "cpu"):
        raise CostError(f"attention = {attention!r} is unknown; known: flash, eager, cpu")
    if checkpoint not in ("none", "block"):
        raise CostError(f"checkpoint = {checkpoint!r} is unknown; known: none, block")
    every, runs, chosen = graph(spec), asked.runs(spec), optimizer_of(optimizer)
    width, how = trains(dtype), How(attention=attention, width=bytes_of(dtype))
    found = storages(every, runs, how)
    kept = _kept(found, checkpoint)
    params = [(node, p) for node in every.nodes for p in node.params]
    trained = [(node, p) for node, p in params if not p.buffer]
    stepped = width if master_dtype is None else trains(master_dtype, "master_dtype")
    weights = width * _numbers(trained)
    gradients = (width if gradient_dtype is None else trains(gradient_dtype, "gradient_dtype")) * _numbers(trained)
    master = 0 if master_dtype is None else stepped * _numbers(trained)
    states = master + sum(n.copies * chosen.bytes_of(p, stepped, n.segment >= 0) for n, p in trained)
    buffers = sum(4 * n.copies * p.numel for n, p in params if p.buffer) + 4 * _constants(every)
    saved, again = sum(map(found.total, kept)), _recomputed(found, kept) if checkpoint == "block" else 0
    given = [width * n for n in _outputs(every, runs)]
    output, widest = sum(given), max(given)
    loss = _losses(spec, every, runs, width)
    workspace = stepped * (chosen.workspace or 0) * max((p.numel for _, p in trained), default=0)
    held = weights + buffers + states
    moments = {BACKWARD: held + saved + loss + width + max(output + widest, again), STEP: held + gradients + workspace}
    moment: Moment = STEP if moments[STEP] > moments[BACKWARD] else BACKWARD
    return Memory(
        name=spec.name,
        workload=asked,
        dtype=dtype,
        attention=attention,
        checkpoint=checkpoint,
        optimizer=optimizer,
        gradient_dtype=gradient_dtype or dtype,
        master_dtype=master_dtype,
        weight_bytes=weights,
        gradient_bytes=gradients,
        optimizer_bytes=states,
        master_bytes=master,
        buffer_bytes=buffers,
        saved_bytes=saved,
        recomputed_bytes=again,
        loss_bytes=loss,
        output_bytes=output,
        workspace_bytes=workspace,
        peak_bytes=moments[moment],
        peak_moment=moment,
        estimates=tuple(_estimates(spec, every, how)),
        by_node=tuple(_by_node(every, found, kept)),
    )


def _kept(found: Storages, checkpoint: Checkpoint) -> dict[Key, str]:
    """The storages that are there when the backward pass starts, each with the node that it is for."""
    if checkpoint == "none":
        return {key: name for key, (name, _) in found.kept.items()}
    outside = {key: name for key, (name, place) in found.kept.items() if place.segment < 0}
    for place, entering in found.entering.items():
        if place.segment >= 0:
            outside |= {key: key[0] for key in entering if key not in outside}
    return outside


def _recomputed(found: Storages, kept: Mapping[Key, str]) -> int:
    """The most that the storages of one layer come to that are not kept from the forward pass."""
    layers = (wanted for place, wanted in found.wanted.items() if place.segment >= 0)
    return max((sum(found.sizes[key] for key in wanted if key not in kept) for wanted in layers), default=0)


def _numbers(params: Iterable[tuple[Node, Param]]) -> int:
    return sum(node.copies * p.numel for node, p in params)


def _outputs(every: Graph, runs: Mapping[str, Run]) -> list[int]:
    """The numbers that each head gives."""
    last = [node for name in every.outputs for node in every.nodes if node.name == name]
    return [prod(runs[node.stack].shape(node.op.shape)) for node in last]


def _losses(spec: Spec, every: Graph, runs: Mapping[str, Run], width: int) -> int:
    """What the losses of all heads keep: `Model.loss` of heads by name, PyTorch's own of one in the model's type."""
    sizes = zip(spec.heads, _outputs(every, runs), strict=True)
    if not spec.by_name:
        return sum(_loss(head, width * n, width) for head, n in sizes)
    wide = max(width, 4)
    run = runs[spec.main.name]
    moved, counted = 8 * run.B * run.T, 8  # whole numbers: targets that `loss` moves, and how many count
    return sum(
        _loss(head, wide * n, wide)
        + (moved if spec.ahead(head) else 0)
        + (counted if head.component.learns == "classes" else 0)
        for head, n in sizes
    )


def _loss(head: Head, output: int, width: int) -> int:
    """Of cross-entropy the logarithms of all probabilities and a scalar; of the squared error the outputs."""
    return output + width if head.component.learns == "classes" else output


def _estimates(spec: Spec, every: Graph, how: How) -> Iterable[str]:
    if not how.on_cpu or unproved(every) or draws(spec, every):
        yield from ("saved_bytes", "by_node", "recomputed_bytes", "loss_bytes")
    yield from ("workspace_bytes", "peak_bytes")


def unproved(every: Graph) -> list[str]:
    """The ops that keep what no rule knows to the byte."""
    return [node.name for node in every.nodes if not node.op.proved]


def draws(spec: Spec, every: Graph) -> bool:
    """Whether training draws random numbers, whose masks are kept and not counted: dropout, noise of routers."""
    components = (node.component for node in every.nodes if node.component is not None)
    return bool(every.dropped) or any(c.draws for c in components)


def _constants(every: Graph) -> int:
    """Numbers that the modules of all components hold and no file saves."""
    parts = {(n.stack, n.segment, n.layer, n.part): n for n in every.nodes if n.component is not None}
    return sum(n.copies * n.component.constants for n in parts.values() if n.component is not None)


def saved_formula(
    spec: Spec,
    *,
    batch: int = 1,
    seq: int | None = None,
    memory_tokens: int | None = None,
    dtype: str = "bfloat16",
    attention: Attention = "cpu",
) -> Formula:
    """`saved_bytes` as a formula in B, T (and M), in the form that the kernels take at these sizes.

    Raises:
        CostError: as `memory`.
    """
    need_spec(spec)
    runs = workload(spec, batch=batch, seq=seq, memory=memory_tokens).runs(spec)
    named = {name: _named(run, "T" if name == spec.main.name else "M") for name, run in runs.items()}
    found = storages(graph(spec), named, How(attention=attention, width=bytes_of(dtype)))
    return sum((Formula.of(found.total(key)) for key in found.kept), Formula({}))


def _named(run: Run, length: str) -> Run:
    """A run whose sizes know their names."""
    T, memory = Size.of(run.T, length), Size.of(run.M, "M") if run.M else 0
    return run._replace(B=Size.of(run.B, "B"), T=T, S=T, M=memory)


def _by_node(every: Graph, found: Storages, kept: Mapping[Key, str]) -> Iterable[OfNode]:
    total: dict[str, int] = {}
    for key, name in kept.items():
        total[name] = total.get(name, 0) + found.total(key)
    return (OfNode(node, total[node.name]) for node in every.nodes if node.name in total)
