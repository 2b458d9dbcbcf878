"""A small copy of a spec: the same kinds, wiring and options, with sizes that fit on any machine.

Widths are divided by a power of two, counts of heads, experts and layers are cut, and sizes that follow from others are
computed again. Where a size cannot be cut without breaking a rule of its component, less is cut.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from archspec.errors import Fault, SpecError
from archspec.language.arithmetic import evaluate
from archspec.language.model import Block, Layer, Segment, Spec, Stack
from archspec.language.resolve import make, numeric
from archspec.layers.base import Component, NormComponent
from archspec.layers.fields import acts, extra
from archspec.passes.count import count

TARGET = 3_000_000
COUNTS = ("n_", "top_", "d_conv", "image", "patch", "channels", "depth", "order", "chunk", "max_", "original_")
FEW_LAYERS, FEW_TOKENS, SMALL_VOCABULARY = 2, 48, 64


def shrink(spec: Spec, target: int = TARGET) -> Spec:
    """The spec itself if it has at most `target` parameters, else the smallest copy that stays valid.

    Raises:
        SpecError: no smaller copy is valid and the spec is too big.
    """
    if count(spec).total <= target:
        return spec
    problem: SpecError | None = None
    for width in (32, 64, 128, 256):
        for counts in (COUNTS, tuple(c for c in COUNTS if c != "original_")):
            try:
                return _Shrinking(spec, width, counts).spec()
            except SpecError as error:
                problem = error
    assert problem is not None
    raise problem


class _Shrinking:
    """One attempt, towards a width of about `width`; fields whose names start with one of `counts` are no widths."""

    def __init__(self, spec: Spec, width: int, counts: tuple[str, ...]):
        self.old, self.counts = spec, counts
        self.divisor = 1
        while spec.main.d_model // (2 * self.divisor) >= width and spec.main.d_model % (2 * self.divisor) == 0:
            self.divisor *= 2
        self.done: dict[Component, Component] = {}
        self.numbers: dict[str, Any] = {}

    def spec(self) -> Spec:
        """The small spec."""
        old = self.old
        common = {
            "vocab_size": None if old.vocab_size is None else min(old.vocab_size, SMALL_VOCABULARY),
            "max_seq_len": None if old.max_seq_len is None else min(old.max_seq_len, FEW_TOKENS),
        }
        self.numbers = {k: v for k, v in common.items() if v is not None}
        stacks = tuple(self.stack(s) for s in old.stacks)
        main = stacks[-1]
        numbers = {"d_model": main.d_model, "n_layers": main.n_layers, "n_branches": main.n_branches}
        numbers["d_embedding"] = getattr(main.embedding, "tied_width", main.d_model)
        head = self.component(old.head, numbers)
        numbers |= {n: getattr(old.init, n, 0) for n in ("n_stacked", "n_recurrent")}
        init = self.component(old.init, numbers)
        small = replace(old, name=f"{old.name}_small", stacks=stacks, head=head, init=init, expect=())
        return replace(small, vocab_size=common["vocab_size"], max_seq_len=common["max_seq_len"])

    def stack(self, stack: Stack) -> Stack:
        """One stack: every segment keeps its period and at most two repeats of it."""
        segments, start = [], 0
        for s in stack.segments:
            repeat = min(s.repeat, FEW_LAYERS)
            segments.append(Segment(start, s.layers, repeat, s.shared and repeat > 1))
            start += repeat * len(s.layers)
        d_model = self.size(stack.d_model)
        numbers = {"d_model": d_model, "d_memory": d_model, "n_layers": start}
        small = tuple(replace(s, layers=tuple(self.layer(la, numbers) for la in s.layers)) for s in segments)
        parts = [p for s in small for la in s.layers for _, p in la.block.parts]
        biases = [b for p in parts if (b := getattr(p, "shared_bias", None)) is not None]
        return replace(
            stack,
            d_model=d_model,
            embedding=self.component(stack.embedding, numbers),
            segments=small,
            position_bias=biases[0] if biases else None,
        )

    def layer(self, layer: Layer, numbers: Mapping[str, Any]) -> Layer:
        """One layer."""
        parts = tuple((name, self.component(part, numbers)) for name, part in layer.block.parts)
        return replace(layer, block=Block(parts, layer.block.wiring, layer.block.dropout))

    def component(self, c: Component, numbers: Mapping[str, Any]) -> Component:
        """One component with smaller sizes; sizes that follow from others are left to follow."""
        if isinstance(c, NormComponent):
            return c
        return make(c.role, self.fields(c), **{**self.numbers, **numbers})

    def fields(self, c: Component) -> dict[str, Any]:
        """The component as plain data, cut."""
        found: dict[str, Any] = {"kind": getattr(c, "kind")}  # noqa: B009 - a field of every kind
        cut = _counts(c)
        for name, info in type(c).model_fields.items():
            value, marks = getattr(c, name), extra(info)
            if name == "kind" or marks.get("inherited") or not acts(c, name):
                continue
            if isinstance(value, Component):
                found[name] = self.fields(value)
            elif "slot" in marks:
                found[name] = None
            elif "formula" in marks and self.follows(c, name):
                continue
            elif name in cut:
                found[name] = cut[name]
            elif numeric(type(c), name) is int and not name.startswith(self.counts) and value is not None:
                found[name] = self.size(value)
            else:
                found[name] = list(value) if isinstance(value, tuple) else value
        return found

    def follows(self, c: Component, name: str) -> bool:
        """Whether a derived size has the value that its formula gives, in the old surroundings."""
        old = self.old
        around = {"max_seq_len": old.max_seq_len, "vocab_size": old.vocab_size, "d_model": old.main.d_model}
        around["d_embedding"] = getattr(old.main.embedding, "tied_width", old.main.d_model)

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

    def size(self, value: int) -> int:
        """A width, cut."""
        return max(value // self.divisor, 4) if value > 8 else value


def _counts(c: Component) -> dict[str, int]:
    """Numbers of heads and experts, cut so that what divides still divides."""
    found: dict[str, int] = {}
    heads = getattr(c, "n_heads", 0)
    kv = getattr(c, "n_kv_heads", heads)
    if heads > 4:
        ways = (heads // 4, heads // 8, heads // 2)
        by = next((d for d in ways if d and heads % d == 0 and kv % d == 0), 1)
        found = {"n_heads": heads // by, "n_kv_heads": kv // by}
    experts = getattr(c, "n_experts", 0)
    if experts > 8:
        groups = getattr(c, "n_groups", None)
        chosen = min(getattr(c, "top_k", 1), 4)
        found |= {"n_experts": max(8, 2 * groups) if groups else 8, "top_k": chosen}
    return found
