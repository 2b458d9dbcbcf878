"""What is to be priced: a training step, a prefill, or one decoded token, of so many sequences of such a length."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from archspec.errors import CostError
from archspec.language.model import Spec, Stack
from archspec.layers.tensors import Run

Phase = Literal["train", "prefill", "decode"]
Attention = Literal["flash", "eager", "cpu"]
Checkpoint = Literal["none", "block"]
Mla = Literal["absorbed", "expanded"]
PHASES: tuple[str, ...] = get_args(Phase)


@dataclass(frozen=True, slots=True)
class Workload:
    """A spec at work.

    Attributes:
        phase: train (forward and backward), prefill (forward, outputs at every token), or decode (one more token).
        batch: sequences, B.
        seq: tokens of each, T, new to the model but in decoding.
        context: tokens that a query may see, S: in decoding those of the state and the new one; otherwise T.
        memory: tokens of the memory, M, where the model has one: those of the stacks before the last.
        mla: whether latent attention decodes on the latents (absorbed) or expands all of them at every step.
    """

    phase: Phase
    batch: int
    seq: int
    context: int
    memory: int
    mla: Mla = "absorbed"

    def runs(self, spec: Spec) -> Mapping[str, Run]:
        """The run of each stack that works; in decoding that is the main one alone."""
        main, decodes = spec.main, self.phase == "decode"
        M = self.memory if main.memory else 0
        found = {main.name: Run(self.batch, self.seq, self.context, M, decodes, self.mla == "expanded")}
        for stack in spec.stacks[:-1] if not decodes else ():
            tokens = length_of(stack, self.memory)
            before = next((s for s in spec.stacks if s.name == stack.memory), None)
            M = 0 if before is None else length_of(before, self.memory)
            found[stack.name] = Run(self.batch, tokens, tokens, M)
        return found


def workload(
    spec: Spec,
    *,
    batch: int = 1,
    seq: int | None = None,
    memory: int | None = None,
    phase: Phase = "train",
    context: int | None = None,
    mla: Mla = "absorbed",
) -> Workload:
    """The workload of a spec, checked; lengths that are not given are the longest that the spec speaks of.

    Raises:
        CostError: a size is none, a length is beyond what the model takes, or the model does not decode.
    """
    if phase not in PHASES:
        raise CostError(f"phase = {phase!r} is unknown; known: {', '.join(PHASES)}")
    if mla not in get_args(Mla):
        raise CostError(f"mla = {mla!r} is unknown; known: {', '.join(get_args(Mla))}")
    if mla == "expanded" and phase != "decode":
        raise CostError(f"mla = 'expanded' is for the phase decode; {phase} has no latents of earlier tokens")
    main = spec.main
    _whole("batch", batch)
    if phase == "decode":
        _must_decode(spec)
        if seq is not None and context is not None:
            raise CostError(f"seq = {seq} and context = {context} say the same of the phase decode; give context")
    elif context is not None:
        raise CostError(f"context = {context} is for the phase decode; in {phase} a token sees the seq tokens given")
    named = ("context", context) if phase == "decode" and context is not None else ("seq", seq)
    T = _length(spec, main, *named)
    sources = spec.stacks[:-1]
    if not sources and memory is not None:
        raise CostError(f"memory = {memory}: {spec.name} has one stack, and no memory of another to read")
    M = _length(spec, sources[-1], "memory", memory if memory is not None else T) if sources else 0
    return Workload(phase, batch, 1 if phase == "decode" else T, T, M, mla)


def length_of(stack: Stack, tokens: int) -> int:
    """The tokens of a stack: those given, unless its embedding makes a fixed number of them (images)."""
    fixed = stack.embedding.n_tokens
    return fixed if isinstance(fixed, int) else tokens


def _length(spec: Spec, stack: Stack, name: str, given: int | None) -> int:
    fixed = stack.embedding.n_tokens
    if isinstance(fixed, int):
        if given not in (None, fixed) and stack is spec.main:
            raise CostError(
                f"{name} = {given}: the {stack.embedding.title.lower()} of {spec.name} makes {fixed} tokens"
            )
        return fixed
    if given is None:
        if spec.max_seq_len is None:
            raise CostError(f"{spec.name} has no max_seq_len; give {name}, the number of tokens")
        return spec.max_seq_len
    _whole(name, given)
    if spec.max_seq_len is not None and given > spec.max_seq_len:
        raise CostError(f"{name} = {given:,} is beyond max_seq_len = {spec.max_seq_len:,} of {spec.name}")
    return given


def _must_decode(spec: Spec) -> None:
    if spec.causal and spec.main.embedding.n_tokens == "T":
        return
    ahead = [part.kind for part in spec.main.parts if not part.causal]
    pooled = next((head for head in spec.heads if not head.component.causal), spec.heads[0])
    its = f"its head {pooled.name}" if pooled.name else "its head"
    why = f"{ahead[0]} sees later tokens" if ahead else f"{its} is {pooled.component.kind}"
    raise CostError(f"{spec.name} does not decode: {why}; ask for the phases train or prefill")


def _whole(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise CostError(f"{name} = {value!r} must be a whole number, at least 1")
