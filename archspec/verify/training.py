"""Training: every parameter has a gradient, the gradient is that of the loss, and the loss falls along it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from archspec.graph import graph
from archspec.language.model import Spec
from archspec.layers.ops import Attend, projection
from archspec.verify.report import Finding, by_design, judged, not_made
from archspec.verify.sample import Sample

STEPS = (1e-5, 1e-6, 1e-4, 1e-7)  # of a parameter's tensor as a whole, tried in turn
TOLERANCE = 1e-5  # of the derivative along a direction, in units of the gradients' sizes
DIRECTIONS = 3
NOISE = 1e-14  # of the largest entry of all gradients: what rounding leaves of a gradient of zero
DESCENT = 5  # steps of training
FAR_ENOUGH = 0.5  # of what the gradient says the loss must fall

Loss = Callable[[], Tensor]


def gradients(sample: Sample) -> Finding:
    """Every parameter is reached by the loss, and the gradient says how the loss changes along random directions.

    Softmax takes no notice of what all its scores share, so a bias of the keys may have a gradient of zero. Where the
    spec was accepted with a warning, some setting makes no difference, and with it parameters need not.
    """
    model = sample.model().train()
    loss = _of_batch(sample, model)
    loss().backward()
    found = {n: p.grad for n, p in model.named_parameters()}
    free = key_biases(sample.spec)
    least = NOISE * max((float(g.abs().max()) for g in found.values() if g is not None), default=0.0)
    without = [n for n, g in found.items() if g is None or not (g.abs().max() > least or n.endswith(free))]
    bad = [n for n, g in found.items() if g is not None and not g.isfinite().all()]
    warned = sample.spec.warnings
    if without and sample.tokens < 2:
        return not_made(f"no gradient: {without[:3]}; sequences have one token, and nothing to compare")
    if bad or (without and not warned):
        return judged(False, f"not finite: {bad[:3]}" if bad else f"no gradient: {without[:3]}")
    worst = max(_mismatch(loss, model, d) for d in _directions(model, sample))
    if worst >= TOLERANCE:
        return judged(False, f"gradient and differences of the loss are {worst:.1e} of the gradient's size apart")
    said = f"differences of the loss are the gradient but for {worst:.1e}"
    if without:
        return by_design(f"no gradient: {without[:3]}; the spec has a warning, {warned[0].message}; {said}")
    return judged(True, f"all {len(found)} parameters get a finite gradient, not zero everywhere; {said}")


def key_biases(spec: Spec) -> tuple[str, ...]:
    """The ends of the names of biases that move all keys of an attention alike."""
    ops = {node.name: node.op for node in graph(spec).nodes}
    keys = [projection(ops, op.inputs[1]) for op in ops.values() if isinstance(op, Attend)]
    return tuple(".".join(op.name.split(".")[-2:]) + ".bias" for op in keys if op is not None)


def _of_batch(sample: Sample, model: nn.Module) -> Loss:
    """The loss of one batch with the same targets; dropout and jitter draw the same each time."""
    inputs, targets = sample.inputs(), None

    def loss() -> Tensor:
        nonlocal targets
        torch.manual_seed(sample.seed)
        value, targets = sample.loss(model, inputs, targets)
        return value

    return loss


def _directions(model: nn.Module, sample: Sample) -> Iterator[list[Tensor]]:
    """Along the gradient, and at random; each tensor moves by a unit."""
    parameters = list(model.parameters())
    yield [_unit(torch.zeros_like(p) if p.grad is None else p.grad) for p in parameters]
    for _ in range(DIRECTIONS - 1):
        noise = (torch.randn(p.shape, generator=sample.generator, dtype=p.dtype) for p in parameters)
        yield [_unit(n) for n in noise]


def _unit(x: Tensor) -> Tensor:
    return x / x.norm().clamp_min(1e-300)


def _mismatch(loss: Loss, model: nn.Module, direction: Sequence[Tensor]) -> float:
    """How far the derivative along a direction is from central differences, in units of the sizes of all gradients.

    The best of a few steps counts: rounding spoils the smallest, curvature the largest, and one may by chance cross a
    kink of the model, such as another choice of experts.
    """
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    scale = max(sum(float(g.norm()) for g in gradients), 1e-300)
    said = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))
    best = float("inf")
    for step in STEPS:
        with torch.no_grad(), _moved(model, direction, step):
            above = float(loss())
        with torch.no_grad(), _moved(model, direction, -step):
            below = float(loss())
        best = min(best, abs((above - below) / (2 * step) - said) / scale)
        if best < TOLERANCE:
            return best
    return best


@contextmanager
def _moved(model: nn.Module, direction: Sequence[Tensor], step: float) -> Iterator[None]:
    """The parameters moved along a direction, and put back as they were."""
    kept = [p.detach().clone() for p in model.parameters()]
    try:
        for p, d in zip(model.parameters(), direction, strict=True):
            p.add_(d, alpha=step)
        yield
    finally:
        for p, old in zip(model.parameters(), kept, strict=True):
            p.copy_(old)


def learns(sample: Sample) -> Finding:
    """From its start the model trains: each step along the gradient lowers the loss by what the gradient promises.

    A step is halved until the loss falls by half of its length times the squared gradient, as it must for small steps
    wherever the gradient is right: how far the loss gets is no part of it.
    """
    model = sample.fresh().double().train()
    loss = _of_batch(sample, model)
    first = last = float(loss().detach())
    for number in range(DESCENT):
        model.zero_grad()
        loss().backward()
        fallen = _descended(loss, model, last)
        if fallen is None:
            return judged(False, f"{last:.6g} after {number} steps, and no step along the gradient lowers it")
        last = fallen
    return judged(last < first, f"{first:.6g} to {last:.6g} in {DESCENT} steps, each as its gradient says")


def _descended(loss: Loss, model: nn.Module, before: float) -> float | None:
    """The loss after one step along the gradient; None where no length of it lowers the loss as promised."""
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    square = sum(float((g * g).sum()) for g in gradients)
    if not square > 0 or square == float("inf"):
        return None
    length = max(abs(before), 1e-3) / square
    for _ in range(60):
        with torch.no_grad():
            with _moved(model, gradients, -length):
                after = float(loss())
            if after < before and before - after >= FAR_ENOUGH * length * square:
                for p, g in zip(model.parameters(), gradients, strict=True):
                    p.sub_(g, alpha=length)
                return after
        length /= 4
    return None
