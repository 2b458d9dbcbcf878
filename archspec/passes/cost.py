"""What a spec costs: a training step, a prefill or one decoded token, from the rules of its ops, without building it.

    forward + backward + what checkpoints run again;  bytes moved;  bytes held;  steps that must follow one another

FLOPs are those of products, two a multiply-add, as PyTorch's counter has them: attention over every pair of a query and
a key that is kept, padding of chunks included, logits at every position. `flops_needed` leaves out the pairs that a
causal mask or a window hides. Element-wise work, which no counter sees, and FFTs are estimates.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

from archspec.errors import CostError
from archspec.graph import Graph, graph
from archspec.language.model import Spec, need_spec
from archspec.layers.ops import CLASSES, ELEMENTWISE, Attend, FFTConv, How, LatentAttend, Scan
from archspec.passes.count import kept
from archspec.passes.dtypes import bytes_of
from archspec.passes.html import html_table
from archspec.passes.memory import Memory
from archspec.passes.memory import memory as held_in_training
from archspec.passes.mfu import megatron, torchtitan
from archspec.passes.steps import sequential_steps
from archspec.passes.work import Line, lines
from archspec.passes.workload import Attention, Checkpoint, Mla, Phase, Workload, workload


@dataclass(frozen=True)
class Cost:
    """The cost of a workload. All are whole numbers, of FLOPs or bytes, for the whole batch.

    Attributes:
        flops_forward, flops_backward, flops_again: of products; again is the part that checkpoints run twice.
        flops: their sum.
        flops_needed: forward, with the visible pairs of attention alone.
        by_class: forward FLOPs by class of work; `elementwise` is an estimate, and in none of the sums above.
        bytes_moved: of the forward pass, each op by itself (fused kernels as one op); an estimate.
        bytes_moved_unfused: the same where scans write the states of all tokens to memory.
        weight_bytes, cache_bytes, state_bytes: parameters; decoding state that grows with the text, and that does not.
        peak_bytes, peak_moment: the most that is held at once, and when: of a training step as `memory` says, otherwise
            weights, state and output at the end of the forward pass.
        memory: what a training step holds, part by part (`passes.memory`); None in other phases.
        sequential_steps: ops that must follow one another on the longest way through the model.
        mfu: FLOPs of a training step in the dialects of trainers (`passes.mfu`); empty in other phases.
        estimates: the names of figures that are estimates; all others are exact.
    """

    name: str
    workload: Workload
    dtype: str
    attention: Attention
    checkpoint: Checkpoint
    tokens: int
    flops_forward: int
    flops_backward: int
    flops_again: int
    flops_needed: int
    by_class: dict[str, int]
    bytes_moved: int
    bytes_moved_unfused: int
    weight_bytes: int
    cache_bytes: int
    state_bytes: int
    peak_bytes: int
    peak_moment: str
    memory: Memory | None
    sequential_steps: int
    mfu: dict[str, int]
    estimates: tuple[str, ...]
    lines: tuple[Line, ...] = field(repr=False, compare=False)

    @property
    def flops(self) -> int:
        """Forward, backward and what is run again."""
        return self.flops_forward + self.flops_backward + self.flops_again

    @property
    def saved_bytes(self) -> int:
        """What the forward pass leaves for the backward pass; 0 where there is none."""
        return 0 if self.memory is None else self.memory.saved_bytes

    @property
    def gradient_bytes(self) -> int:
        """Gradients; 0 outside training."""
        return 0 if self.memory is None else self.memory.gradient_bytes

    @property
    def optimizer_bytes(self) -> int:
        """States of the optimizer, master weights among them; 0 outside training."""
        return 0 if self.memory is None else self.memory.optimizer_bytes

    @property
    def flops_per_token(self) -> float:
        """FLOPs of a token of the main stack."""
        return self.flops / self.tokens

    @property
    def intensity(self) -> float:
        """Forward FLOPs a byte moved."""
        return self.flops_forward / self.bytes_moved

    @cached_property
    def numbers(self) -> dict[str, Any]:
        """Every figure by its name."""
        names = (
            "flops", "flops_forward", "flops_backward", "flops_again", "flops_needed", "bytes_moved",
            "bytes_moved_unfused", "weight_bytes", "gradient_bytes", "optimizer_bytes", "saved_bytes", "peak_bytes",
            "cache_bytes", "state_bytes", "sequential_steps", "tokens",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def _repr_html_(self) -> str:
        phase = self.workload.phase
        lines = [(name, f"{n:,}", "estimate" if name in self.estimates else "") for name, n in self.numbers.items()]
        return html_table([("figure", phase, ""), *lines], self.name)


def cost(
    spec: Spec,
    *,
    batch: int = 1,
    seq: int | None = None,
    memory: int | None = None,
    phase: Phase = "train",
    context: int | None = None,
    dtype: str = "bfloat16",
    attention: Attention = "flash",
    checkpoint: Checkpoint = "none",
    mla: Mla = "absorbed",
    optimizer: str = "adamw",
    gradient_dtype: str | None = None,
    master_dtype: str | None = None,
) -> Cost:
    """What a spec costs.

    Args:
        spec: a resolved spec.
        batch: sequences.
        seq: tokens of each; by default max_seq_len.
        memory: tokens of the stacks before the last (an encoder's); by default as many.
        phase: train, prefill or decode (one token).
        context: when decoding, the tokens that are seen, the new one included; by default seq.
        dtype: of weights, activations and caches.
        attention: flash computes scores twice in training, eager keeps them; cpu is whichever of them the package's
            kernels do on a CPU for these sizes.
        mla: absorbed decodes on latents, expanded brings all of them to keys and values at every step.
        checkpoint: block runs the forward pass of each layer again in the backward pass.
        optimizer, gradient_dtype, master_dtype: what a training step holds beside the weights, as `memory` takes them.

    Raises:
        CostError: a size is none, a length is beyond what the model takes, or the model does not decode.
    """
    need_spec(spec)
    asked = workload(spec, batch=batch, seq=seq, memory=memory, phase=phase, context=context, mla=mla)
    width = bytes_of(dtype)
    if attention not in ("flash", "eager", "cpu"):
        raise CostError(f"attention = {attention!r} is unknown; known: flash, eager, cpu")
    if checkpoint not in ("none", "block"):
        raise CostError(f"checkpoint = {checkpoint!r} is unknown; known: none, block")
    if phase != "train":
        _not_of_training(phase, checkpoint=checkpoint, optimizer=optimizer,
                         gradient_dtype=gradient_dtype, master_dtype=master_dtype)  # fmt: skip
    found = graph(spec)
    if mla != "absorbed" and not any(isinstance(node.op, LatentAttend) for node in found.nodes):
        raise CostError(f"mla = {mla!r} has no effect: {spec.name} has no latent attention; leave it out")
    runs = asked.runs(spec)
    every = lines(found, runs, How(attention=attention), phase, checkpoint)
    moved = sum(line.times * (line.read + line.written) for line in every)
    main = runs[spec.main.name]
    decoding = [n for n in found.nodes if n.stack == spec.main.name] if spec.main.has_state else []
    training = None
    if phase == "train":
        training = held_in_training(
            spec,
            batch=batch,
            seq=seq,
            memory_tokens=memory,
            dtype=dtype,
            attention=attention,
            checkpoint=checkpoint,
            optimizer=optimizer,
            gradient_dtype=gradient_dtype,
            master_dtype=master_dtype,
        )
    held = [(k.grows, n.repeat * k.width(width) * prod(k.needed(main))) for n, k in kept(decoding)]
    weights = width * sum(n.copies * p.numel for n in found.nodes for p in n.params if not p.buffer)
    outputs = {line.node.name: main.size(line.node.op.shape) for line in every if line.node.name in found.outputs}
    output = width * sum(outputs.values())
    return Cost(
        name=spec.name,
        workload=asked,
        dtype=dtype,
        attention=attention,
        checkpoint=checkpoint,
        tokens=main.B * main.T,
        flops_forward=sum(line.times * line.forward for line in every),
        flops_backward=sum(line.times * line.backward for line in every),
        flops_again=sum(line.times * line.again for line in every),
        flops_needed=sum(line.times * line.needed for line in every),
        by_class=by_class(every),
        bytes_moved=width * moved,
        bytes_moved_unfused=width * (moved + sum(_unfused(line) for line in every)),
        weight_bytes=weights,
        cache_bytes=sum(size for grows, size in held if grows),
        state_bytes=sum(size for grows, size in held if not grows),
        peak_bytes=weights + sum(size for _, size in held) + output if training is None else training.peak_bytes,
        peak_moment="end of the forward pass" if training is None else training.peak_moment,
        memory=training,
        sequential_steps=sequential_steps(found, every),
        mfu=_mfu(spec, found, every) if phase == "train" else {},
        estimates=(*_estimates(every), *(("peak_bytes",) if training is None else training.estimates)),
        lines=tuple(every),
    )


def _not_of_training(phase: Phase, **given: str | None) -> None:
    """Refuse what says how a training step is done, where there is none."""
    for name, value in given.items():
        if value not in (None, "none", "adamw"):
            raise CostError(f"{name} = {value!r} is for the phase train; {phase} has no backward pass")


def by_class(every: Iterable[Line]) -> dict[str, int]:
    """Forward FLOPs by class of work: products by the class of their op, and all that is element-wise."""
    found = dict.fromkeys(CLASSES, 0)
    for line in every:
        found[line.work] += line.times * line.forward
        rest = line.work if isinstance(line.node.op, Scan) else ELEMENTWISE
        found[rest] += line.times * line.arithmetic
    return found


def _mfu(spec: Spec, found: Graph, every: list[Line]) -> dict[str, int]:
    active = sum(n.copies * p.numel * p.active[0] // p.active[1] for n in found.nodes for p in n.params if not p.buffer)
    tied = any(head.component.tied_shape is not None for head in spec.heads)
    one = len(spec.stacks) == 1  # torchtitan has no models of two stacks, whose weights see other numbers of tokens
    return {"megatron": megatron(found, every)} | ({"torchtitan": torchtitan(every, active, tied)} if one else {})


def _unfused(line: Line) -> int:
    return line.times * line.node.op.unfused(line.run) if isinstance(line.node.op, Scan) else 0


def _estimates(every: Iterable[Line]) -> Iterable[str]:
    yield from ("by_class.elementwise", "bytes_moved", "bytes_moved_unfused")
    if any(isinstance(line.node.op, FFTConv) for line in every):
        yield from ("flops_forward", "flops_backward", "flops", "by_class.convolution")
    if any(isinstance(line.node.op, Scan) for line in every):
        yield "by_class.scan"
    if any(isinstance(line.node.op, Attend) and line.node.op.global_tokens for line in every):
        yield "flops_needed"
