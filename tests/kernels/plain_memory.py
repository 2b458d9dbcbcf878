"""What a step of training holds after its forward pass, and the most that it needs at once, in bytes."""

from typing import NamedTuple

import torch
from plain_cases import tensors
from torch.profiler import ProfilerActivity, profile


class Memory(NamedTuple):
    """Bytes that the allocator gave."""

    held: int
    peak: int


def memory_of(forward):
    """Of a forward and a backward pass on a CPU, by the events of the profiler: kernels of the package included."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        outputs = [y for y in tensors(forward()) if y.requires_grad]
        with torch.profiler.record_function("backward"):
            sum(y.real.sum() for y in outputs).backward()
    now, held, peak = 0, None, 0
    for event in sorted(run.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "backward" and held is None:
            held = now
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return Memory(held, peak)
