"""What a verification found."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

WIDTH = 17  # of the longest name of a check


class Verdict(Enum):
    """What a check says; the value is how a report marks it.

    A property that a component gives up on purpose (an expert that chooses among all tokens looks ahead) is neither
    proved nor a fault, and a property of which there is nothing to look at is neither.
    """

    HOLDS = "ok"
    FAILS = "FAIL"
    BY_DESIGN = "no"
    NOT_MADE = "--"


class Finding(NamedTuple):
    """The verdict of a check, and the evidence in a few words."""

    verdict: Verdict
    detail: str


def judged(right: bool, detail: str) -> Finding:
    """A property that must hold."""
    return Finding(Verdict.HOLDS if right else Verdict.FAILS, detail)


def not_made(reason: str) -> Finding:
    """A property of which there is nothing to look at, and why."""
    return Finding(Verdict.NOT_MADE, reason)


def by_design(detail: str) -> Finding:
    """A property that does not hold, or not everywhere, and which component gives it up."""
    return Finding(Verdict.BY_DESIGN, detail)


@dataclass(frozen=True)
class Check:
    """One property: its verdict, and the evidence in a few words."""

    name: str
    verdict: Verdict
    detail: str

    @property
    def ok(self) -> bool:
        """Whether the property was looked at and holds."""
        return self.verdict is Verdict.HOLDS

    @property
    def failed(self) -> bool:
        """Whether the property was looked at and does not hold, though it should."""
        return self.verdict is Verdict.FAILS

    def __str__(self) -> str:
        return f"  {self.verdict.value:<4} {self.name:<{WIDTH}}  {self.detail}"


@dataclass(frozen=True)
class Report:
    """All checks of one spec; `scaled` says how it was cut to fit, or nothing."""

    name: str
    checks: tuple[Check, ...]
    scaled: str = ""

    @property
    def passed(self) -> bool:
        """Whether no check fails. What does not hold by design, or cannot be looked at, is no failure."""
        return not any(check.failed for check in self.checks)

    @property
    def summary(self) -> str:
        """How many checks came to what, in a line."""
        return f"{self.name}: {_summary(self.checks)}"

    def __str__(self) -> str:
        return "\n".join([heading(self.name, self.scaled), *map(str, self.checks), self.summary])


def heading(name: str, scaled: str) -> str:
    """What stands above the checks."""
    return f"{name}, {scaled}:" if scaled else f"{name}:"


def _summary(checks: Iterable[Check]) -> str:
    words = {
        Verdict.FAILS: ("fails", "fail"),
        Verdict.HOLDS: ("holds", "hold"),
        Verdict.BY_DESIGN: ("does not by design", "do not by design"),
        Verdict.NOT_MADE: ("has nothing to look at", "have nothing to look at"),
    }
    found = [check.verdict for check in checks]
    if set(found) == {Verdict.HOLDS}:
        return f"every check holds ({len(found)})"
    counts = [(found.count(v), *w) for v, w in words.items()]
    said = ", ".join(f"{n} {one if n == 1 else many}" for n, one, many in counts if n)
    return f"{'FAILED' if Verdict.FAILS in found else 'no fault found'}: of {len(found)} checks {said}"
