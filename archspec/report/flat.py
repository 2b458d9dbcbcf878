"""A resolved spec as one value a line, to be held against a published config: path, value, where it came from."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from archspec.language.document import HEAD_KEYS, SIZES
from archspec.language.model import Block, Spec, Stack
from archspec.language.origins import DEFAULT, Origin
from archspec.language.rules import rules
from archspec.language.yaml_writer import flow
from archspec.layers.base import Component
from archspec.layers.fields import acts
from archspec.passes.places import ranges
from archspec.report.text import aligned, in_markdown

HEADER = ("path", "value", "from", "where")


@dataclass(frozen=True)
class Value:
    """One resolved value: a number, a word, a list of words, or None where a part is left out."""

    path: str
    value: Any
    origin: Origin


def flat(spec: Spec) -> list[Value]:
    """Every value of a spec that acts, layers that are alike as one: `blocks.0-23.mixer.n_heads`."""
    ends = [*_heads(spec), *_component(spec, "init", spec.init)]
    vocabulary = [] if spec.vocabulary is None else _component(spec, "vocabulary", spec.vocabulary)
    return [*_sizes(spec), *vocabulary, *_all_stacks(spec), *ends]


def _heads(spec: Spec) -> Iterator[Value]:
    places = spec.origins.places
    for head in spec.heads:
        yield from _component(spec, head.path, head.component)
        for key in HEAD_KEYS if spec.by_name else ():
            if key == "loss_weight" or spec.ahead(head):
                value = head.loss_weight if key == "loss_weight" else head.ahead
                yield Value(f"{head.path}.{key}", value, places.get(f"{head.path}.{key}", DEFAULT))


def _sizes(spec: Spec) -> Iterator[Value]:
    for name in SIZES:
        value = getattr(spec.main if name == "d_model" and len(spec.stacks) == 1 else spec, name, None)
        if value is not None:
            yield Value(name, value, spec.origins.places.get(name, DEFAULT))


def _all_stacks(spec: Spec) -> Iterator[Value]:
    for stack in spec.stacks:
        if spec.prefix(stack):
            place = f"{stack.name}.d_model"
            yield Value(place, stack.d_model, spec.origins.places.get(place, DEFAULT))
        yield from _stack(spec, stack)


def _stack(spec: Spec, stack: Stack) -> Iterator[Value]:
    before, places = spec.prefix(stack), spec.origins.places
    yield from _component(spec, f"{before}embedding", stack.embedding)
    layers: dict[Block, list[int]] = {}
    for index, layer in enumerate(stack.layers):
        layers.setdefault(layer.block, []).append(index)
    for block, numbers in layers.items():
        yield from _block(spec, f"{before}blocks.{ranges(numbers)}", block)
    if stack.final_norm is None:
        yield Value(f"{before}final_norm", None, DEFAULT)
    else:
        yield from _component(spec, f"{before}final_norm", stack.final_norm, places.get(f"{stack.name}.final_norm"))


def _block(spec: Spec, path: str, block: Block) -> Iterator[Value]:
    origins = spec.origins.of(block)
    for name, part in block.parts:
        yield from _component(spec, f"{path}.{name}", part, origins.get(name))
    yield Value(f"{path}.wiring", list(block.wiring.lines()), origins.get("wiring", DEFAULT))
    yield Value(f"{path}.dropout", block.dropout, origins.get("dropout", DEFAULT))


def _component(spec: Spec, path: str, component: Component, whole: Origin | None = None) -> Iterator[Value]:
    """The fields of a component that act; `whole` says where it came from where that is all of it."""
    origins = spec.origins.of(component)
    fields = rules(type(component))
    for name, rule in {"kind": fields["kind"], **fields}.items():
        if rule.marks.get("inherited") or not acts(component, name):
            continue
        value, origin = getattr(component, name), origins.get(name, DEFAULT)
        if whole is not None and whole.how == "inherited":
            origin = Origin("inherited", f"{whole.what}.{name}, {_said(origin)}")
        if isinstance(value, Component):
            yield from _component(spec, f"{path}.{name}", value, origin if origin.how == "inherited" else None)
        elif rule.marks.get("named"):
            yield from (Value(f"{path}.{name}.{key}", n, origin) for key, n in value)
        else:
            yield Value(f"{path}.{name}", list(value) if isinstance(value, tuple) else value, origin)


def _said(origin: Origin) -> str:
    """An origin in words."""
    between = " at " if origin.how == "given" else " "
    return f"{origin.how}{between}{origin.what}" if origin.what else origin.how


def _lines(spec: Spec) -> list[tuple[str, ...]]:
    return [(v.path, _text(v.value), v.origin.how, v.origin.what) for v in flat(spec)]


def _text(value: Any) -> str:
    """A value as a spec has it; a part that is left out is none."""
    return "none" if value is None else flow(value)


def table(spec: Spec) -> str:
    """The values as text in columns."""
    return "\n".join(aligned([HEADER, *_lines(spec)]))


def markdown(spec: Spec) -> str:
    """The values as a Markdown table."""
    return "\n".join(in_markdown([HEADER, *_lines(spec)], ()))


def as_json(spec: Spec) -> str:
    """The values as a JSON list, a record a line."""
    records = (dict(zip(HEADER, (v.path, v.value, v.origin.how, v.origin.what), strict=True)) for v in flat(spec))
    return "[\n" + ",\n".join(f"  {json.dumps(record)}" for record in records) + "\n]"


def as_csv(spec: Spec) -> str:
    """The values as CSV with a header."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([HEADER, *_lines(spec)])
    return out.getvalue().rstrip("\n")


FORMATS: dict[str, Callable[[Spec], str]] = {"table": table, "json": as_json, "markdown": markdown, "csv": as_csv}
