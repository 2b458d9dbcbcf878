"""What is built: its tensors are those counted, its ops those declared, and its text does what is interpreted."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from archspec.codegen.load import build
from archspec.language.model import Spec
from archspec.layers.base import EmbeddingComponent
from archspec.layers.ops import Run, Scan
from archspec.modules import by_itself
from archspec.passes.count import count
from archspec.verify.answers import equal
from archspec.verify.answers import tensors as answers_of
from archspec.verify.claims import no_state
from archspec.verify.declared import dataflow_problems
from archspec.verify.given import components, given
from archspec.verify.report import Finding, judged
from archspec.verify.sample import Sample

TRACED = 64  # tokens of a sequence that is traced: whole chunks of the usual lengths


def tensors(spec: Spec) -> Finding:
    """Parameters and buffers by name, shape and order: the count against the module, which is built without memory."""
    model = build(spec, device="meta")
    built = {n: tuple(p.shape) for n, p in model.named_parameters()}
    kept = set(model.state_dict())
    built |= {n: tuple(b.shape) for n, b in model.named_buffers() if n in kept}
    counted = {t.name: t.shape for t in count(spec).tensors}
    parameters = [t.name for t in count(spec).tensors if not t.buffer]
    if built != counted:
        odd = sorted(set(built.items()) ^ set(counted.items()))[:3]
        return judged(False, f"counted and built tensors differ, first in {odd}")
    if parameters != [n for n, _ in model.named_parameters()]:
        return judged(False, "counted and built tensors stand in another order")
    total = sum(p.numel() for p in model.parameters())
    return judged(True, f"{len(built):,} tensors, {total:,} parameters, equal by name, shape and order")


def declared(spec: Spec) -> Finding:
    """Each component by itself, traced without memory: what its ops say of shapes, dataflow and FLOPs is what runs."""
    found: list[str] = []
    every = components(spec)
    for c, width in every:
        with torch.device("meta"):
            module = by_itself(c, width).eval()
        n = max(TRACED, *(op.chunk or 1 for op in c.ops() if isinstance(op, Scan)), 1)
        n = n if c.longest is None else min(n, c.longest)
        run = Run(B=3, T=n, S=n, M=7)
        if isinstance(c, EmbeddingComponent) and c.n_tokens != "T":
            run = Run(B=3, T=c.n_tokens, S=c.n_tokens, M=7)
        found += dataflow_problems(c, module, given(c, width, run, "meta"), run, c.ops())
    detail = f"shapes, edges and FLOPs of {sum(len(c.ops()) for c, _ in every):,} ops are those that run"
    return judged(not found, "; ".join(found[:3]) or detail)


def generated_equals_eager(sample: Sample) -> Finding:
    """The generated file and the interpreted spec, to the bit: outputs and gradients; masked, packed, decoded too."""
    model = sample.model()
    twin = sample.twin(model)
    inputs = sample.inputs()
    for training in (False, True):
        apart = _trained_apart(sample, model.train(training), twin.train(training), inputs)
        if apart:
            return judged(False, f"they differ in {'training' if training else 'evaluation'}, first in {apart[0]}")
    ways = ["outputs and gradients"]
    model, twin = model.eval(), twin.eval()
    with torch.no_grad():
        for what, given in _calls(sample):
            if not equal(sample.spec, model(*inputs, **given), twin(*inputs, **given)):
                return judged(False, f"they differ when given {what}")
            ways.append(what)
        if not no_state(sample):
            if not all(map(torch.equal, _decoded(sample, model, inputs), _decoded(sample, twin, inputs))):
                return judged(False, "they differ in decoding")
            ways.append("decoding")
    return judged(True, f"equal to the bit: {', '.join(ways)}, over {sample.tokens} tokens")


def _trained_apart(sample: Sample, model: nn.Module, twin: nn.Module, inputs: list[Tensor]) -> list[str]:
    """Where loss or gradients differ."""
    targets, losses = None, []
    for m in (model, twin):
        m.zero_grad()
        torch.manual_seed(sample.seed)
        loss, targets = sample.loss(m, inputs, targets)
        loss.backward()
        losses.append(loss)
    pairs = zip(model.named_parameters(), twin.parameters(), strict=True)
    apart = [n for (n, p), q in pairs if not _same(p.grad, q.grad)]
    return apart if torch.equal(*losses) else ["the loss", *apart]


def _calls(sample: Sample) -> Iterator[tuple[str, dict[str, Any]]]:
    """What else the model may be given: masks, positions and documents of all stacks that take them."""
    n = sample.tokens
    at = torch.arange(n)
    values = {"mask": at >= n // 4, "positions": at + 3, "documents": (at >= n // 3).long(), "global_mask": at % 7 == 2}
    for of, value in values.items():
        stacks = [s for s in sample.spec.stacks if s.embedding.n_tokens == "T"]
        names = [name for s in stacks if (name := sample.name(s.name, of)) is not None]
        longest = min((c.longest for s in stacks for c in s.everything if c.longest is not None), default=n + 3)
        if names and not (of == "positions" and longest < n + 3):
            batch = len(sample.inputs()[0])
            yield of, dict.fromkeys(names, value.expand(batch, -1))


def _decoded(sample: Sample, model: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
    """A prompt and some single tokens."""
    *context, x = inputs
    state: dict[str, Any] = {}
    steps = min(8, sample.tokens - 1)
    parts = x.split([sample.tokens - steps, *[1] * steps], dim=1)
    outputs = [model(*context, part, state=state) for part in parts]
    return [answer for output in outputs for answer in answers_of(sample.spec, output)]


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b))
