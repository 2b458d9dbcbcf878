"""Running all checks of one spec."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from archspec.language.model import Spec
from archspec.passes.count import count
from archspec.verify.checks import OF_SAMPLE, OF_SPEC
from archspec.verify.report import Check, Finding, Report, Verdict, heading
from archspec.verify.sample import Sample
from archspec.verify.shrink import past, shrink


def verify(
    spec: Spec,
    *,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
    found: Callable[[Check], None] | None = None,
    begun: Callable[[str], None] | None = None,
) -> Report:
    """Check that the model of a spec is what it says and behaves as it must.

    The tensors are compared at full size (without memory); everything that runs does so at full size where the model
    is small, and on a copy of the same kinds and options with smaller sizes where it is not.

    Args:
        spec: a resolved spec.
        seed: of the weights and inputs.
        progress: called with the name of each check before it runs.
        found: called with each check when it is done.
        begun: called before the first check with a heading: the name of the spec, and how it was cut to fit.

    Raises:
        SpecError: the model is too big to run and no smaller copy of it is valid.
    """
    small = shrink(spec)
    cut = "" if small is spec else _cut(spec, small)
    if begun is not None:
        begun(heading(spec.name, cut))
    checks = []
    for name, check in _checks(spec, Sample(small, seed)):
        if progress is not None:
            progress(name)
        with torch.random.fork_rng(devices=[]), _one_thread():
            torch.manual_seed(seed)
            checks.append(Check(name, *_tried(check)))
        if found is not None:
            found(checks[-1])
    return Report(spec.name, tuple(checks), cut)


def _cut(spec: Spec, small: Spec) -> str:
    """How a spec was cut."""
    said = f"run on a copy with {count(small).total:,} of {count(spec).total:,} parameters"
    return said if past(small) == past(spec) else f"{said}, and with shorter windows, chunks or limits"


def _checks(spec: Spec, sample: Sample) -> Iterator[tuple[str, Callable[[], Finding]]]:
    """The checks by name, those of declarations at full size."""
    for name, of_spec in OF_SPEC:
        yield name, lambda check=of_spec: check(spec)  # type: ignore[misc]
    for name, of_sample in OF_SAMPLE:
        sample.restart()
        yield name, lambda check=of_sample: check(sample)  # type: ignore[misc]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Without threads: they have nothing to share in so small a model, and on a busy machine wait for one another.

    On two cores with other work, GPT-2's copy took 218 seconds with two threads and 4 with one.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _tried(check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:  # whatever a wrong model does is a finding, not the end of the report
        return Finding(Verdict.FAILS, f"raised {type(error).__name__}: {error}")
