"""Changing one setting at a time, and telling what that changes in the model."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from contract_specs import LENGTH, Document, double, every_component, inputs, redraw, run
from torch import Tensor

from archspec.graph import graph
from archspec.language.filling import kind_of
from archspec.language.model import Spec
from archspec.language.rules import rules, settable
from archspec.layers.base import Component
from archspec.layers.ops import Run
from archspec.layers.registry import find, kinds
from archspec.modules.model import eager
from archspec.passes.count import count

Path = tuple[str | int, ...]
LEAST = 1e-9  # of the largest output in float64: what counts as a difference and no rounding error


# Other values of a field, by its type


@dataclass(frozen=True)
class Change:
    """Another value for a field; of `numbers` one that acts is enough, for a small step may be lost in rounding."""

    path: Path
    field: str
    value: Any
    number: bool

    def __str__(self) -> str:
        return f"{'.'.join(map(str, (*self.path, self.field)))} = {self.value}"


def changes(c: Component, path: Path) -> Iterator[Change]:
    """Every change of one field of a component that stands at `path`, and of what is in its slots."""
    for field in settable(type(c)):
        if field == "kind":
            continue
        current = getattr(c, field)
        number = rules(type(c))[field].number is not None
        for value in others(type(c), field, current):
            yield Change(path, field, value, number and value is not None)
        if isinstance(current, Component):
            yield from changes(current, (*path, field))


def others(cls: type[Component], field: str, current: Any) -> Iterator[Any]:
    """Values of the field's type other than the current one."""
    rule = rules(cls)[field]
    if "slot" in rule.marks:
        yield from other_components(rule.marks["slot"], current)
        return
    if rule.nullable and current is not None:
        yield None
    if rule.core["type"] == "literal":
        yield from (v for v in rule.core["expected"] if v != current)
    elif rule.marks.get("named"):
        yield {name: rows + 1 for name, rows in current} | {"another": 4}
    elif rule.core["type"] == "tuple":
        yield [1.7 * v for v in current or (1.0, 2.0)]
    elif rule.core["type"] == "bool":
        yield not current
    elif rule.number is int:
        found = (1, 2, 4, 8) if current is None else (current + 1, 2 * current, current - 1, current // 2, current + 2)
        yield from (v for v in dict.fromkeys(found) if v != current and v >= 0)
    elif rule.number is float:
        yield from (0.05, 0.5, 3.0) if not current else (1.7 * current, 0.4 * current, 8.0 * current)


def other_components(role: str, current: Component | None) -> Iterator[Any]:
    """Nothing, and each other kind of the role by its examples."""
    if current is not None:
        yield None
    for kind in kinds(role):
        if current is None or kind_of(type(current)) != kind:
            yield from ({"kind": kind, **e} for e in find(role, kind).examples[:2])


def changed(document: Document, change: Change) -> Document:
    """The document after the change; slots on the way that it did not mention are written down."""
    document = copy.deepcopy(document)
    here = document
    for key in change.path:
        if isinstance(here, dict) and not isinstance(here.get(key), dict | list):
            here[key] = {"kind": here[key]} if isinstance(here.get(key), str) else {}  # type: ignore[index]
        here = here[key]  # type: ignore[index]
    here[change.field] = change.value
    return document


# What a spec does


class Observed:
    """A spec and, computed when asked for, all that can be seen of its model."""

    def __init__(self, spec: Spec):
        self.spec = spec

    @cached_property
    def tensors(self) -> Any:
        return count(self.spec).tensors

    @cached_property
    def plan(self) -> Any:
        """Decoding state, FLOPs, and the length that both are for."""
        counted, run = count(self.spec), Run(B=2, T=64, S=64, M=64)
        flops = sum(s.op.flops(run) * s.repeat for s in graph(self.spec).nodes)
        memory = counted.memory_bytes_per_token
        return (
            counted.kv_bytes_per_token,
            memory,
            counted.state_bytes,
            counted.cache_bytes,
            flops,
            self.spec.max_seq_len,
        )

    @cached_property
    def start(self) -> dict[str, Tensor]:
        """Initial weights, for one seed."""
        torch.manual_seed(0)
        return {k: v.clone() for k, v in eager(self.spec).state_dict().items()}

    @cached_property
    def given(self) -> list[dict[str, Any]]:
        """Short and plain, and long (beyond max_seq_len where that is allowed) with masks and what else is optional."""
        tied_to_length = any(kind_of(type(c)) in ("learned", "hyena") for c in every_component(self.spec))
        long = LENGTH if tied_to_length else 3 * LENGTH // 2
        return [double(inputs(self.spec, optional, T)) for optional, T in ((False, 6), (True, long))]

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """Weights at unit gain."""
        model = eager(self.spec)
        model.load_state_dict(self.start)
        return redraw(model).double().state_dict()

    @torch.no_grad()
    def outputs(self, weights: dict[str, Tensor], training: bool, dtype: torch.dtype = torch.float64) -> list[Tensor]:
        """What the model gives with these weights; in training with the losses, and after the biases were moved."""
        model = eager(self.spec).to(dtype)
        model.load_state_dict(weights)
        model.train(training)
        found = []
        for doubles in self.given:
            given = {
                k: v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in doubles.items()
            }
            torch.manual_seed(7)
            y, loss, aux = run(model, self.spec, given)
            found += [y, loss]
        if training:
            if self.spec.moves_biases:
                model.update_bias(aux)
            found.append(model.eval()(**self.given[0]))
        return found

    @cached_property
    def rounded(self) -> list[Tensor]:
        return self.outputs(self.weights, False, torch.bfloat16)

    @cached_property
    def evaluated(self) -> list[Tensor]:
        return self.outputs(self.weights, False)

    @cached_property
    def trained(self) -> list[Tensor]:
        return self.outputs(self.weights, True)


def difference(a: Observed, b: Observed) -> str:
    """What tells the models apart first: tensors, inputs, outputs, training, start, plan, 16 bits; or nothing."""
    if a.tensors != b.tensors:
        return "tensors"
    shapes = [[{k: v.shape for k, v in g.items() if isinstance(v, Tensor)} for g in o.given] for o in (a, b)]
    if shapes[0] != shapes[1]:
        return "inputs"
    if differ(a.evaluated, b.outputs(a.weights, False)):
        return "outputs"
    if differ(a.trained, b.outputs(a.weights, True)):
        return "training"
    if any(not torch.equal(v, b.start[k]) for k, v in a.start.items()):
        return "start"
    if a.plan != b.plan:
        return "plan"
    return "rounding" if differ(a.rounded, b.outputs(a.weights, False, torch.bfloat16)) else ""


def differ(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) != len(b) or any(
        x.shape != y.shape or bool((x - y).abs().max() > LEAST * x.abs().max()) for x, y in zip(a, b, strict=True)
    )
