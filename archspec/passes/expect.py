"""The author's contract held against what was counted: `expect: {params: 1253}`.

bert_tiny.yaml:15:18: expect.params: 1,254 was promised, 1,253 counted
"""

from archspec.errors import Mark, Problem
from archspec.language.expect import Expectation
from archspec.language.model import Spec
from archspec.passes.count import Count


def check(spec: Spec, count: Count) -> list[Problem]:
    """A problem for each expectation of the spec that its count does not meet."""
    found = ((key, expectation, counted(count, key)) for key, expectation in spec.expect)
    return [
        Problem(
            e.mark if e.mark.file else Mark(spec.file or spec.name),
            f"expect.{key}",
            f"{promised(e)} was promised, {value:,} counted",
        )
        for key, e, value in found
        if not e.holds(value)
    ]


def counted(count: Count, key: str) -> int:
    """The counted value that a key of `expect` speaks of."""
    return int(getattr(count, "total" if key == "params" else key))


def promised(expectation: Expectation) -> str:
    """What the author wrote; plain whole numbers with their thousands apart."""
    return f"{int(expectation.text):,}" if expectation.text.isdecimal() else expectation.text
