"""Running all checks of one spec."""

from collections.abc import Callable

import torch

from archspec.language.model import Spec
from archspec.passes.count import count
from archspec.verify.checks import CHECKS, declared, tensors
from archspec.verify.report import Check, Report
from archspec.verify.sample import Sample
from archspec.verify.shrink import shrink


def _declared(spec: Spec) -> Check:
    try:
        return declared(spec)
    except Exception as error:
        return Check("declared", False, f"raised {type(error).__name__}: {error}")


def verify(spec: Spec, *, seed: int = 0, progress: Callable[[str], None] | None = None) -> Report:
    """Check that the model of a spec is what it says and behaves as it must.

    The tensors are compared at full size (without memory); everything that runs does so at full size where the model
    is small, and on a copy of the same kinds and options with smaller sizes where it is not.

    Args:
        spec: a resolved spec.
        seed: of the weights and inputs.
        progress: called with the name of each check before it runs.

    Raises:
        SpecError: the model is too big to run and no smaller copy of it is valid.
    """
    say = progress or (lambda name: None)
    say("tensors")
    found: list[Check] = [tensors(spec)]
    say("declared")
    found.append(_declared(spec))
    small = shrink(spec)
    scaled = "" if small is spec else f"run on a copy with {count(small).total:,} of {count(spec).total:,} parameters"
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        for name, check in CHECKS:
            say(name)
            torch.manual_seed(seed)
            try:
                result = check(Sample(small, seed))
            except Exception as error:  # whatever a wrong model does is a finding, not the end of the report
                result = (False, f"raised {type(error).__name__}: {error}")
            if result is not None:
                found.append(Check(name, *result))
    torch.set_num_threads(threads)
    return Report(spec.name, tuple(found), scaled)
