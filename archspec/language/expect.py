"""The author's contract: `expect: {params: 46_702_792_704, active: "~12.9B", kv_bytes_per_token: "<= 128 KiB"}`.

`~350M` holds of what rounds to 350M, so from 349.5M to 350.5M; `350M +- 5%` and `350M +- 2M` say how far it may be off.
What depends on the work that is done says so: `train_flops_per_token: {seq: 2048, at most: 45G}`; sizes that are not
given are those that `archspec cost` takes.
"""

import operator
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction

from archspec.errors import Mark
from archspec.language.problems import Problems
from archspec.language.rules import must_be
from archspec.language.topics import see
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
COSTS = {
    "train_flops_per_token": "FLOPs of a training step, for each token",
    "prefill_flops_per_token": "FLOPs of a prompt, for each token",
    "decode_flops_per_token": "FLOPs of one more token, the last of `context` tokens",
    "saved_bytes": "bytes that a training step keeps for the backward pass",
    "peak_bytes": "the most bytes that a training step holds at once",
}
ASKED = {
    "batch": "sequences; 1 where nothing is said",
    "seq": "tokens of each; max_seq_len where nothing is said",
    "memory": "tokens of an encoder's input",
    "context": "tokens that are seen when one more is decoded",
    "dtype": "of weights, activations and caches",
    "attention": "flash, eager or cpu",
    "checkpoint": "none or block",
    "mla": "absorbed or expanded",
    "optimizer": "whose states a training step holds",
    "gradient_dtype": "of gradients; that of the weights where nothing is said",
    "master_dtype": "of a second copy of the weights, which the optimizer steps",
}
LIMITS = {"at most": "<=", "at least": ">=", "below": "<", "above": ">", "is": "==", "about": "~"}
UNITS = {"": 1, "K": 10**3, "k": 10**3, "M": 10**6, "B": 10**9, "G": 10**9, "T": 10**12}
BINARY = {
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
    "B": 1,
    "KB": 10**3,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
COMPARE = {"==": operator.eq, "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}
FORM = re.compile(
    r"(?P<op>==|<=|>=|<|>|~)?\s*(?P<number>\d[\d_]*(?:\.\d+)?(?:[eE]\+?\d{1,2})?)\s*(?P<unit>[KMGT]i?B|[kKMBGT]|kB)?"
    r"(?:\s*(?:\+-|\+/-|\u00b1)\s*(?P<off>\d[\d_]*(?:\.\d+)?)\s*(?P<of>%|[KMGT]i?B|[kKMBGT]|kB)?)?"
)


@dataclass(frozen=True)
class Expectation:
    """`key op number`; `~` allows half a `step`: that of the last digit that was written, or what the text says itself.

    `asked` are the sizes of the work that it speaks of, `bound` the word that stood for `op`, where there was one.
    """

    key: str
    op: str
    number: Fraction
    step: Fraction
    text: str
    asked: tuple[tuple[str, int | str], ...] = ()
    bound: str = ""
    mark: Mark = field(default=Mark(""), compare=False)

    @property
    def range(self) -> tuple[Fraction, Fraction]:
        """The least and the most that an approximate one allows."""
        return self.number - self.step / 2, self.number + self.step / 2

    @property
    def said(self) -> int | str | dict[str, int | str]:
        """What stood in the spec."""
        value = int(self.text) if not self.step and self.text.isdecimal() else self.text
        return {**dict(self.asked), self.bound: value} if self.bound else value

    def holds(self, value: int) -> bool:
        """Whether a counted value meets it."""
        if self.op == "~":
            low, high = self.range
            return low <= value <= high
        return bool(COMPARE[self.op](value, self.number))


def parse_expect(node: Node | None, problems: Problems) -> tuple[tuple[str, Expectation], ...]:
    """The expectations of a spec."""
    fields = problems.mapping(node, "expect", "what is counted to a value")
    if node is not None:
        problems.unknown(node, KEYS | COSTS, "expect", "expect")
    found = []
    for key in [key for key in fields if key in KEYS | COSTS]:
        if key in COSTS and isinstance(fields[key].value, dict):
            found += [(key, e) for e in _of_work(key, fields[key], problems)]
            continue
        expectation = read(key, fields[key].value)
        if expectation is None:
            example = '"<= 128 KiB"' if is_bytes(key) else '"~46.7B" or "350M +- 5%"'
            message = must_be(key, fields[key], f"a whole number, or text such as {example}{see('expect')}")
            problems.tell(fields[key], f"expect.{key}", message)
        else:
            found.append((key, replace(expectation, mark=fields[key].mark)))
    return tuple(found)


def _of_work(key: str, node: Node, problems: Problems) -> Iterator[Expectation]:
    """The expectation of a mapping: sizes of the work, and one bound."""
    path, before = f"expect.{key}", len(problems)
    fields = problems.mapping(node, path, "the work and a bound")
    problems.unknown(node, (*ASKED, *LIMITS), path, path)
    bounds = [word for word in LIMITS if word in fields]
    if len(bounds) != 1:
        given = ", ".join(bounds) or "none"
        problems.tell(node, path, f"needs one bound, one of {', '.join(LIMITS)}; found {given}")
        return
    value = fields[bounds[0]].value
    plain = read(key, value)
    usual = ("==", "~") if bounds[0] == "about" else ("==",)
    if plain is None or (isinstance(value, str) and plain.op not in usual):
        example = '"80 GB"' if is_bytes(key) else "45G"
        problems.tell(fields[bounds[0]], path, must_be(bounds[0], fields[bounds[0]], f"a number, such as {example}"))
        return
    asked: list[tuple[str, int | str]] = []
    for name in (name for name in ASKED if name in fields):
        found = fields[name].value
        if isinstance(found, int | str) and not isinstance(found, bool):
            asked.append((name, found))
        else:
            problems.tell(fields[name], f"{path}.{name}", must_be(name, fields[name], "a number or a word"))
    if len(problems) == before:
        yield replace(plain, op=LIMITS[bounds[0]], bound=bounds[0], asked=tuple(asked), mark=node.mark)


def read(key: str, value: object) -> Expectation | None:
    """One expectation, or None when it cannot be read."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return Expectation(key, "==", Fraction(value), Fraction(0), str(value))
    match = FORM.fullmatch(value.strip()) if isinstance(value, str) else None
    digits, unit = (match["number"].replace("_", ""), match["unit"] or "") if match else ("", "none")
    scale = (UNITS | BINARY if is_bytes(key) else UNITS).get(unit)
    if match is None or scale is None:
        return None
    whole = Fraction(digits) * scale
    if match["off"] is None:
        return Expectation(key, match["op"] or "==", whole, _last_digit(digits) * scale, match.string)
    of = whole / 100 if match["of"] == "%" else (UNITS | BINARY if is_bytes(key) else UNITS).get(match["of"] or "")
    if of is None or match["op"] not in (None, "~"):
        return None
    return Expectation(key, "~", whole, 2 * Fraction(match["off"].replace("_", "")) * of, match.string)


def _last_digit(digits: str) -> Fraction:
    """What one more in the last digit of a number adds."""
    mantissa, _, exponent = digits.lower().partition("e")
    return Fraction(10) ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


def is_bytes(key: str) -> bool:
    """Whether a key counts bytes, so that `B` is a byte and KiB, MiB and GiB are units."""
    return "bytes" in key
