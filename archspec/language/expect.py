"""The author's contract: `expect: {params: 46_702_792_704, active: "~12.9B", kv_bytes_per_token: "<= 128 KiB"}`."""

import operator
import re
from dataclasses import dataclass, field, replace
from fractions import Fraction

from archspec.errors import Mark
from archspec.language.problems import Problems
from archspec.language.rules import must_be
from archspec.language.tree import Node

KEYS = {
    "params": "all parameters, tied ones once",
    "trainable": "parameters that are trained",
    "active": "parameters that one token uses",
    "embedding": "parameters of the embeddings",
    "buffers": "elements of persistent buffers",
    "layers": "layers that run, of all stacks",
    "kv_bytes_per_token": "bytes that the decoding caches grow by for each token, at 2 bytes an element",
    "memory_bytes_per_token": "bytes that cross-attention keeps for each token of the memory, at 2 bytes an element",
    "state_bytes": "bytes of fixed decoding state for each sequence, at 2 bytes an element, 4 where states are exact",
}
UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9, "T": 10**12}
BINARY = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "B": 1}
COMPARE = {"==": operator.eq, "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}
FORM = re.compile(
    r"(?P<op>==|<=|>=|<|>|~)?\s*(?P<number>\d[\d_]*(?:\.\d+)?(?:[eE]\+?\d{1,2})?)\s*(?P<unit>[KMBGT]|[KMG]iB)?"
)


@dataclass(frozen=True)
class Expectation:
    """`key op number`; `~` compares after rounding to the digits that were written."""

    key: str
    op: str
    number: Fraction
    step: Fraction
    text: str
    mark: Mark = field(default=Mark(""), compare=False)

    def holds(self, value: int) -> bool:
        """Whether a counted value meets it."""
        if self.op == "~":
            return abs(value - self.number) <= self.step / 2
        return bool(COMPARE[self.op](value, self.number))


def parse_expect(node: Node | None, problems: Problems) -> tuple[tuple[str, Expectation], ...]:
    """The expectations of a spec."""
    fields = problems.mapping(node, "expect", "what is counted to a value")
    if node is not None:
        problems.unknown(node, KEYS, "expect", "expect")
    found = []
    for key in [key for key in fields if key in KEYS]:
        expectation = read(key, fields[key].value)
        if expectation is None:
            example = '"<= 128 KiB"' if is_bytes(key) else '"~46.7B"'
            message = must_be(key, fields[key], f"a whole number, or text such as {example}")
            problems.tell(fields[key], f"expect.{key}", message)
        else:
            found.append((key, replace(expectation, mark=fields[key].mark)))
    return tuple(found)


def read(key: str, value: object) -> Expectation | None:
    """One expectation, or None when it cannot be read."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return Expectation(key, "==", Fraction(value), Fraction(0), str(value))
    match = FORM.fullmatch(value.strip()) if isinstance(value, str) else None
    digits, unit = (match["number"].replace("_", ""), match["unit"] or "") if match else ("", "none")
    scale = (UNITS | BINARY if is_bytes(key) else UNITS).get(unit)
    if match is None or scale is None:
        return None
    step = Fraction(1, 10 ** len(digits.partition("e")[0].partition(".")[2])) * scale
    return Expectation(key, match["op"] or "==", Fraction(digits) * scale, step, match.string)


def is_bytes(key: str) -> bool:
    """Whether a key counts bytes, so that `B` is a byte and KiB, MiB and GiB are units."""
    return "bytes" in key
