"""The properties that every model must have, each as a function of a `Sample`; None where one does not apply."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from archspec.codegen.load import build
from archspec.graph import graph
from archspec.language.model import Spec
from archspec.layers.base import Component, EmbeddingComponent, NormComponent
from archspec.layers.ops import Attend, Experts, FFTConv, Run, Scan, projection
from archspec.modules import submodule
from archspec.passes.count import count
from archspec.verify.batches import packing, padding
from archspec.verify.declared import dataflow_problems, state_problems
from archspec.verify.given import given
from archspec.verify.report import Check
from archspec.verify.sample import BATCH, Sample

Result = tuple[bool, str] | None
ONE_TOKEN: Result = (True, "not run: there is one token, since tables or ropes hold no more")
TRACED = 64  # tokens of a sequence that is traced: whole chunks of the usual lengths
TOLERANCE = 1e-8  # in float64, in units of the largest output


def tensors(spec: Spec) -> Check:
    """Parameters and buffers by name, shape and order: the count against the module, which is built without memory."""
    model = build(spec, device="meta")
    built = {n: tuple(p.shape) for n, p in model.named_parameters()}
    kept = set(model.state_dict())
    built |= {n: tuple(b.shape) for n, b in model.named_buffers() if n in kept}
    counted = {t.name: t.shape for t in count(spec).tensors}
    parameters = [t.name for t in count(spec).tensors if not t.buffer]
    if built != counted:
        odd = sorted(set(built.items()) ^ set(counted.items()))[:3]
        return Check("tensors", False, f"counted and built tensors differ, first in {odd}")
    if parameters != [n for n, _ in model.named_parameters()]:
        return Check("tensors", False, "counted and built tensors stand in another order")
    total = sum(p.numel() for p in model.parameters())
    return Check("tensors", True, f"{len(built):,} tensors, {total:,} parameters, equal by name, shape and order")


def declared(spec: Spec) -> Check:
    """Each component by itself, traced without memory: what its ops say of shapes, dataflow and FLOPs is what runs."""
    found: list[str] = []
    every = components(spec)
    for c, width in every:
        with torch.device("meta"):
            module = (submodule(c, width) if isinstance(c, NormComponent) else submodule(c)).eval()
        n = max(TRACED, *(op.chunk or 1 for op in c.ops() if isinstance(op, Scan)), 1)
        n = n if c.longest is None else min(n, c.longest)
        run = Run(B=3, T=n, S=n, M=7)
        if isinstance(c, EmbeddingComponent) and c.n_tokens != "T":
            run = Run(B=3, T=c.n_tokens, S=c.n_tokens, M=7)
        found += dataflow_problems(c, module, given(c, width, run, "meta"), run, c.ops())
    detail = f"shapes, edges and FLOPs of {sum(len(c.ops()) for c, _ in every):,} ops are those that run"
    return Check("declared", not found, "; ".join(found[:3]) or detail)


def components(spec: Spec) -> list[tuple[Component, int]]:
    """Every different component that runs by itself, with the width of what it takes; norms apart."""
    found = {(c, stack.d_model): None for stack in spec.stacks for c in (*stack.parts, stack.embedding)}
    found |= {(spec.head, spec.main.d_model): None}
    return [(c, width) for c, width in found if not isinstance(c, NormComponent)]


def generated_equals_eager(sample: Sample) -> Result:
    """The generated file and the interpreted spec, to the bit, outputs and gradients."""
    model = sample.model()
    twin = sample.twin(model)
    inputs = sample.inputs()
    loss, target = sample.loss(model, inputs)
    other, _ = sample.loss(twin, inputs, target)
    loss.backward()
    other.backward()
    pairs = zip(model.named_parameters(), twin.parameters(), strict=True)
    apart = [n for (n, p), q in pairs if not _same(p.grad, q.grad)]
    ok = torch.equal(loss, other) and not apart
    return ok, "outputs and gradients equal to the bit" if ok else f"they differ, first in {apart[:1] or 'the loss'}"


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b))


def gradients(sample: Sample) -> Result:
    """Every parameter is reached by the loss: some entry of its gradient is not zero.

    Softmax takes no notice of what all its scores share, so a bias of the keys may have a gradient of zero.
    """
    model = sample.model().train()
    sample.loss(model, sample.inputs())[0].backward()
    found = {n: p.grad for n, p in model.named_parameters()}
    free = key_biases(sample.spec)
    without = [n for n, g in found.items() if g is None or not (g.any() or n.endswith(free))]
    bad = [n for n, g in found.items() if g is not None and not g.isfinite().all()]
    if without or bad:
        return False, f"no gradient: {without[:3]}" if without else f"not finite: {bad[:3]}"
    return True, f"all {len(found)} parameters get a finite gradient, not zero everywhere"


def key_biases(spec: Spec) -> tuple[str, ...]:
    """The ends of the names of biases that move all keys of an attention alike."""
    ops = {node.name: node.op for node in graph(spec).nodes}
    keys = [projection(ops, op.inputs[1]) for op in ops.values() if isinstance(op, Attend)]
    return tuple(".".join(op.name.split(".")[-2:]) + ".bias" for op in keys if op is not None)


@torch.no_grad()
def causal(sample: Sample) -> Result:
    """A later token changes no earlier output: to the bit, or but for rounding where tokens share a computation.

    An expert multiplies the rows that chose it as one matrix, whose rounding depends on how many rows there are; an FFT
    spreads every input, and its rounding, over all outputs.
    """
    if not sample.spec.causal or not _by_token(sample):
        return None
    if sample.tokens < 2:
        return ONE_TOKEN
    model = sample.model()
    inputs = sample.inputs()
    before = model(*inputs)
    shared = any(isinstance(node.op, Experts | FFTConv) for node in graph(sample.spec).nodes)
    limit = 1e-12 if shared else 0.0
    for t in range(1, sample.tokens):
        changed = _changed(inputs[-1], t, sample)
        after = model(*inputs[:-1], changed)
        if _error(before[:, :t], after[:, :t], before) > limit:
            return False, f"token {t} changes an output before it"
        if torch.equal(before[:, t], after[:, t]):
            return False, f"token {t} does not change its own output"
    exact = "but for rounding below 1e-12 (experts, FFTs)" if shared else "to the bit"
    return True, f"changing any of {sample.tokens} tokens leaves every earlier output as it was, {exact}"


def _by_token(sample: Sample) -> bool:
    return sample.spec.arguments[0].of != "images"


def _changed(x: Tensor, t: int, sample: Sample) -> Tensor:
    x, n_ids = x.clone(), sample.spec.main.embedding.n_ids
    x[:, t] = x[:, t] + 1 if n_ids is None else (x[:, t] + 1) % n_ids
    return x


@torch.no_grad()
def lengths(sample: Sample) -> Result:
    """f(x[:k]) = f(x)[:k] for every k."""
    if not sample.spec.causal or not _by_token(sample):
        return None
    if sample.tokens < 2:
        return ONE_TOKEN
    model = sample.model()
    *context, x = sample.inputs()
    whole = model(*context, x)
    worst = max(_error(model(*context, x[:, :k]), whole[:, :k], whole) for k in range(1, sample.tokens))
    return worst < TOLERANCE, f"largest difference {worst:.1e} over every length up to {sample.tokens}"


@torch.no_grad()
def state(sample: Sample) -> Result:
    """After a prompt and after one more token, the state holds the tensors that are declared, and no more."""
    if not sample.spec.causal or not sample.spec.main.has_state:
        return None
    found: list[str] = []
    n = max(sample.tokens, 2)
    for dtype in (torch.float32, torch.bfloat16):
        for c, width in components(sample.spec):
            if "state" not in c.arguments or c.role == "embedding" or not any(c is p for p in sample.spec.main.parts):
                continue
            module, kept = submodule(c).to(dtype).eval(), dict[str, Any]()
            for start, end in ((0, n - 1), (n - 1, n)):
                run = Run(B=BATCH, T=end - start, S=end, M=n)
                x = given(c, width, run, dtype=dtype)
                module(x.pop("x"), **x, state=kept)
                found += state_problems(c, c.ops(), kept, run, dtype)
    return not found, "; ".join(
        found[:3]
    ) or f"holds what is declared after {n - 1} and {n} tokens, float32 and bfloat16"


@torch.no_grad()
def decoding(sample: Sample) -> Result:
    """The whole sequence at once, in pieces, and token by token with the state."""
    if not sample.spec.causal or not sample.spec.main.has_state:
        return None
    if sample.tokens < 2:
        return ONE_TOKEN
    model = sample.model()
    *context, x = sample.inputs()
    whole = model(*context, x)
    n = sample.tokens
    pieces = {"token by token": [1] * n, "in two": [n // 2, n - n // 2], "a prompt, then tokens": [n - 2, 1, 1]}
    errors = {}
    for name, sizes in pieces.items():
        state: dict[str, Any] = {}
        parts = [model(*context, part, state=state) for part in x.split([s for s in sizes if s], dim=1)]
        errors[name] = _error(torch.cat(parts, dim=1), whole, whole)
    worst = max(errors.values())
    return worst < TOLERANCE, f"largest difference {worst:.1e}: {', '.join(errors)}"


def _error(a: Tensor, b: Tensor, scale: Tensor) -> float:
    return float((a - b).abs().max() / scale.abs().max().clamp_min(1e-30))


def learns(sample: Sample) -> Result:
    """The loss on one batch falls in a few steps of training."""
    model = build(sample.spec).train()
    inputs = sample.inputs(torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    first, target = sample.loss(model, inputs)
    last = first
    for _ in range(30):
        optimizer.zero_grad()
        last, _ = sample.loss(model, inputs, target)
        last.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    detail = f"{float(first.detach()):.3f} to {float(last.detach()):.3f} in 30 steps"
    return bool(last.isfinite()) and float(last.detach()) < 0.9 * float(first.detach()), detail


CHECKS: tuple[tuple[str, Callable[[Sample], Result]], ...] = (
    ("generated = eager", generated_equals_eager),
    ("gradients", gradients),
    ("causal", causal),
    ("any length", lengths),
    ("decoding", decoding),
    ("state", state),
    ("padding", padding),
    ("packing", packing),
    ("loss falls", learns),
)
