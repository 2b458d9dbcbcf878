"""A small copy of a spec: the same kinds, wiring and options, with sizes that fit on any machine.

Widths are divided by a power of two, lengths and repeats are cut to a few, and sizes that follow from others are
computed again; what else must change, a component says itself (`Component.smaller`). Where a rule of a component breaks
at one size, a larger one is tried.
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import Any, TypeVar

from archspec.errors import Fault, SpecError
from archspec.language.arithmetic import evaluate
from archspec.language.init_names import init_names
from archspec.language.model import Layer, Segment, Spec, Stack
from archspec.language.resolve import make
from archspec.layers.base import Component, MixerComponent, NormComponent
from archspec.layers.fields import LARGEST, LENGTH, WIDTH, acts, extra, unit
from archspec.passes.count import count

TARGET = 3_000_000
FEW_LAYERS, SMALL_VOCABULARY = 2, 64
LONGEST = 160  # tokens of a sequence: past PROVABLE, and past 64, by which states and sums of kernels go
FEW_TOKENS = 8  # of windows, chunks and the like, so that a sample reaches past them
WIDTHS = (32, 64, 128, 256)

C = TypeVar("C", bound=Component)


def shrink(spec: Spec, target: int = TARGET) -> Spec:
    """The spec itself where proofs can run on it, else the smallest copy that stays valid.

    They can with at most `target` parameters and with windows, chunks and limits that LONGEST tokens reach past.

    Raises:
        SpecError: no smaller copy is valid and the spec is too big. It says which rule broke, of which component.
    """
    if count(spec).total <= target and past(spec) <= LONGEST:
        return spec
    problem: SpecError | None = None
    for width, tokens in product(WIDTHS, (FEW_TOKENS, None)):
        try:
            return _Shrinking(spec, width, tokens).spec()
        except SpecError as error:
            problem = error
    assert problem is not None
    raise problem


def past(spec: Spec) -> int:
    """Tokens of a text that goes past every window, chunk and limit which a text of the spec can reach at all."""
    longest = spec.max_seq_len or LARGEST
    parts = (c for stack in spec.stacks for c in (*stack.parts, stack.embedding))
    return 3 + max((c.reach for c in parts if c.reach < longest), default=1)


class _Shrinking:
    """One attempt, towards a width of about `width`; lengths are cut to `tokens`, or stay."""

    def __init__(self, spec: Spec, width: int, tokens: int | None):
        self.old, self.tokens = spec, tokens
        self.divisor = 1
        while spec.main.d_model // (2 * self.divisor) >= width and spec.main.d_model % (2 * self.divisor) == 0:
            self.divisor *= 2
        self.numbers: dict[str, int] = {}

    def spec(self) -> Spec:
        """The small spec."""
        old = self.old
        vocab_size = None if old.vocab_size is None else min(old.vocab_size, SMALL_VOCABULARY)
        max_seq_len = None if old.max_seq_len is None else min(old.max_seq_len, LONGEST)
        common = {"vocab_size": vocab_size, "max_seq_len": max_seq_len}
        self.numbers = {k: v for k, v in common.items() if v is not None}
        stacks = tuple(self.stack(s) for s in old.stacks)
        main = stacks[-1]
        numbers = {"d_model": main.d_model, "n_layers": main.n_layers, "n_branches": main.n_branches}
        numbers["d_embedding"] = main.embedding.table_width
        heads = tuple(replace(head, component=self.component(head.component, numbers)) for head in old.heads)
        init = self.component(old.init, numbers).of_model(init_names(stacks, heads))
        small = replace(old, name=f"{old.name}_small", stacks=stacks, heads=heads, init=init, expect=())
        return replace(small, vocab_size=vocab_size, max_seq_len=max_seq_len, vocabulary=None)

    def stack(self, stack: Stack) -> Stack:
        """One stack: every segment keeps its period and at most two repeats of it."""
        segments, start = [], 0
        for s in stack.segments:
            repeat = min(s.repeat, FEW_LAYERS)
            segments.append(Segment(start, s.layers, repeat, s.shared and repeat > 1))
            start += repeat * len(s.layers)
        d_model = self.width(stack.d_model)
        numbers = {"d_model": d_model, "d_memory": d_model, "n_layers": start}
        small = tuple(replace(s, layers=tuple(self.layer(la, numbers) for la in s.layers)) for s in segments)
        embedding = self.component(stack.embedding, numbers)
        found = replace(stack, d_model=d_model, embedding=embedding, segments=small)
        biases = (p.shared_bias for p in found.parts if isinstance(p, MixerComponent) and p.shared_bias is not None)
        return replace(found, position_bias=next(biases, None))

    def layer(self, layer: Layer, numbers: Mapping[str, Any]) -> Layer:
        """One layer."""
        parts = tuple((name, self.component(part, numbers)) for name, part in layer.block.parts)
        return replace(layer, block=replace(layer.block, parts=parts))

    def component(self, c: C, numbers: Mapping[str, Any]) -> C:
        """One component with smaller sizes; sizes that follow from others are left to follow."""
        if isinstance(c, NormComponent):
            return c
        found = make(c.role, self.fields(c), **{**self.numbers, **numbers, **c.linked})
        assert isinstance(found, type(c))
        return found

    def fields(self, c: Component) -> dict[str, Any]:
        """The component as plain data, cut."""
        found: dict[str, Any] = {"kind": c.kind}
        for name, info in type(c).model_fields.items():
            value, marks = getattr(c, name), extra(info)
            if name == "kind" or marks.get("inherited") or not acts(c, name):
                continue
            if isinstance(value, Component):
                found[name] = self.fields(value)
            elif "slot" in marks:
                found[name] = None
            elif marks.get("named"):
                found[name] = dict(value)
            elif not ("formula" in marks and self.follows(c, name)):
                found[name] = self.size(value, unit(info))
        for name, value in c.smaller(self.width).items():
            if "formula" in extra(type(c).model_fields[name]) and self.follows(c, name):
                continue
            found[name] = {**found[name], **value} if isinstance(value, dict) else value
        return found

    def size(self, value: Any, what: str) -> Any:
        """A setting, cut if it is a width or a length."""
        if isinstance(value, int) and what == WIDTH:
            return self.width(value)
        if isinstance(value, int) and what == LENGTH and self.tokens is not None:
            return min(value, self.tokens)
        return list(value) if isinstance(value, tuple) else value

    def follows(self, c: Component, name: str) -> bool:
        """Whether a derived size has the value that its formula gives, in the old surroundings."""
        old = self.old
        around = {"max_seq_len": old.max_seq_len, "vocab_size": old.vocab_size, "d_model": old.main.d_model}
        around["d_embedding"] = old.main.embedding.table_width

        def lookup(word: str) -> int | float:
            value = getattr(c, word, around.get(word))
            if not isinstance(value, int | float):
                raise Fault(word)
            return value

        try:
            value = evaluate(extra(type(c).model_fields[name])["formula"], lookup)
        except Fault:
            return False
        actual: float = getattr(c, name)
        return abs(value - actual) <= 1e-9 * abs(actual)

    def width(self, value: int) -> int:
        """A width, cut."""
        return max(value // self.divisor, 4) if value > 8 else value
