"""Timing two implementations in turns, so that what else the machine does falls on both alike."""

import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Run = Callable[[], object]


def cpu_seconds(pair: dict[str, Run], rounds: int, clock: Callable[[], float] = time.process_time) -> dict[str, float]:
    """The median CPU seconds of each after one warm-up; `clock` may be wall time where threads wait for one another."""
    times: dict[str, list[float]] = {name: [] for name in pair}
    for run in pair.values():
        run()
    for _ in range(rounds):
        for name, run in pair.items():
            start = clock()
            run()
            times[name].append(clock() - start)
    return {name: statistics.median(t) for name, t in times.items()}


def training(forward: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Run:
    """Forward and backward of a function of tensors, all of which have gradients."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]

    def run() -> object:
        y = forward(*leaves)
        return torch.autograd.grad(y, leaves, torch.ones_like(y), allow_unused=True)

    return run


def saved_bytes(forward: Callable[..., Tensor], inputs: Sequence[Tensor]) -> int:
    """Bytes that autograd keeps between forward and backward, each piece of memory once, the inputs not counted."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    own = {x.untyped_storage().data_ptr() for x in leaves}
    kept: dict[int, int] = {}

    def note(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        y = forward(*leaves)  # held until the sum is made, so that no two pieces share an address
        total = sum(kept.values())
    del y
    return total


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """The largest difference over the largest entry."""
    return float((got - wanted).abs().max() / wanted.abs().max())
