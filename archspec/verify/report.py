"""What a verification found."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One property: whether it holds, and the evidence in a few words."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class Report:
    """All checks of one spec; `scaled` says how it was cut to fit, or nothing."""

    name: str
    checks: tuple[Check, ...]
    scaled: str = ""

    @property
    def passed(self) -> bool:
        """Whether every check holds."""
        return all(check.ok for check in self.checks)

    def __str__(self) -> str:
        lines = [f"{self.name}: {'every check holds' if self.passed else 'FAILED'}"]
        lines += [f"  ({self.scaled})"] if self.scaled else []
        width = max(len(c.name) for c in self.checks)
        return "\n".join(
            [*lines, *(f"  {'ok  ' if c.ok else 'FAIL'} {c.name:<{width}}  {c.detail}" for c in self.checks)]
        )
