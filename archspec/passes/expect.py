"""The author's contract held against what was counted: `expect: {params: 1253}`.

bert_tiny.yaml:15:18: expect.params: 1,254 was promised, 1,253 counted
"""

from math import ceil, floor
from typing import Any

from archspec.errors import CostError, Mark, Problem
from archspec.language.expect import COSTS, Expectation
from archspec.language.model import Spec
from archspec.passes.count import Count


def check(spec: Spec, count: Count) -> list[Problem]:
    """A problem for each expectation of the spec that its count, or its cost, does not meet."""
    problems = (_problem(spec, count, key, expectation) for key, expectation in spec.expect)
    return [problem for problem in problems if problem is not None]


def _problem(spec: Spec, count: Count, key: str, e: Expectation) -> Problem | None:
    place, path = e.mark if e.mark.file else Mark(spec.file or spec.name), f"expect.{key}"
    try:
        value = priced(spec, key, dict(e.asked)) if key in COSTS else counted(count, key)
    except CostError as error:
        return Problem(place, path, str(error))
    if e.holds(value):
        return None
    return Problem(place, path, f"{promised(e)} was promised{allowed(e)}, {value:,} {found(key)}")


def found(key: str) -> str:
    """How a value was found: counted, or by a cost model that has estimates."""
    if key not in COSTS:
        return "counted"
    return "estimated" if key in ("saved_bytes", "peak_bytes") else "computed"


def counted(count: Count, key: str) -> int:
    """The counted value that a key of `expect` speaks of."""
    return int(getattr(count, "total" if key == "params" else key))


def priced(spec: Spec, key: str, asked: dict[str, Any]) -> int:
    """The cost that a key of `expect` speaks of, for the work that it names.

    Raises:
        CostError: the work cannot be priced.
    """
    from archspec.passes.cost import cost  # most specs promise no cost

    phase, _, of = key.partition("_")
    if of != "flops_per_token":
        return int(getattr(cost(spec, **asked), key))
    found = cost(spec, phase=phase, **asked)  # type: ignore[arg-type]
    return round(found.flops / found.tokens)


def allowed(expectation: Expectation) -> str:
    """What an approximate promise means, in numbers: from where to where it holds."""
    if expectation.op != "~":
        return ""
    low, high = expectation.range
    wish = "" if "%" in expectation.text or "+" in expectation.text else "; `+- 5%` behind it allows more"
    return f" ({ceil(low):,} to {floor(high):,}{wish})"


def promised(expectation: Expectation) -> str:
    """What the author wrote; plain whole numbers with their thousands apart."""
    number = expectation.text
    text = f"{int(number):,}" if number.isdecimal() else number
    work = ", ".join(f"{name} {value}" for name, value in expectation.asked)
    return f"{expectation.bound} {text}".strip() + (f" with {work}" if work else "")
