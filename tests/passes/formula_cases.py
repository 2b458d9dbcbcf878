"""Specs and components whose formulas are tried, and lengths on both sides of windows and chunks."""

import json
import re
from collections.abc import Iterator
from fractions import Fraction
from math import ceil, log2
from pathlib import Path
from typing import Any

from archspec.language.load import load
from archspec.language.model import Spec
from archspec.language.resolve import make
from archspec.layers.base import Component, NormComponent
from archspec.layers.ops import Op
from archspec.layers.registry import everything

SPECS = sorted(Path("specs").glob("*.yaml"), key=lambda p: p.stem)
SCOPE = {
    "d_model": 16, "d_memory": 12, "d_embedding": 16, "vocab_size": 11, "max_seq_len": 32, "n_heads": 4, "head_dim": 16,
}  # fmt: skip
LENGTHS = (2, 7, 64, 65, 300, 4095, 4096, 4097, 5000)


def spec_of(path: Path) -> Spec:
    return load(path)


def tokens(spec: Spec) -> tuple[int, ...]:
    """Lengths of its texts; one of an image."""
    fixed = spec.main.embedding.n_tokens
    return (fixed,) if isinstance(fixed, int) else LENGTHS


def examples() -> list[tuple[str, str, int]]:
    """Every example of every kind that has ops of its own."""
    return [
        (role, kind, i)
        for role, kinds in everything().items()
        if role not in ("init", "rope_scaling")
        for kind, cls in kinds.items()
        for i in range(len(cls.examples))
    ]


def component(role: str, kind: str, number: int) -> Component:
    settings: dict[str, Any] = json.loads(json.dumps(everything()[role][kind].examples[number]))
    return make(role, {"kind": kind, **settings}, **SCOPE)


def ops(c: Component, width: int) -> tuple[Op, ...]:
    return (c.op("norm", width),) if isinstance(c, NormComponent) else c.ops()


def lengths() -> Iterator[dict[str, int]]:
    """B, T, S and M that differ from one another and from all sizes."""
    for i, T in enumerate(LENGTHS):
        yield {"B": 1 + i % 3, "T": T, "S": LENGTHS[-1 - i] + T, "M": LENGTHS[(i + 4) % len(LENGTHS)]}


def computed(text: str, numbers: dict[str, int]) -> Fraction:
    """What a written formula comes to, read as people read it: juxtaposition multiplies."""
    code = re.sub(r"(?<=\d),(?=\d{3})", "", re.sub(r"(?<=[a-z])\.", "_", text))
    code = code.replace("ceil log2", "levels").replace("^", "**").replace(" x ", " * ")
    code = re.sub(r"(?<=[\w)]) (?=[\w(])", " * ", code)
    functions: dict[str, Any] = {"min": min, "levels": lambda a: ceil(log2(max(a, 2))), "ceil": ceil}
    functions["log2"] = lambda a: Fraction(log2(max(a, 2)))
    return Fraction(eval(code, {}, functions | {name.replace(".", "_"): Fraction(n) for name, n in numbers.items()}))
