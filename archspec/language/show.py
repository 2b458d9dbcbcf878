"""A resolved spec as YAML that loads to an equal one: every derived size and default, the wiring as lines."""

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from archspec.language.block import SUBLAYERS
from archspec.language.model import Block, Segment, Spec, Stack
from archspec.language.text import dump
from archspec.language.values import kind_of
from archspec.layers.base import Component, NormComponent
from archspec.layers.fields import acts, extra

SIZES = ("d_model", "vocab_size", "max_seq_len")


def show(spec: Spec) -> str:
    """The spec as YAML text with everything resolved."""
    return dump(document(spec))


def document(spec: Spec) -> dict[str, Any]:
    """The spec as plain data with everything resolved."""
    ambient = _ambient(block for stack in spec.stacks for block in blocks(stack))
    names = _names(spec)
    found: dict[str, Any] = {"name": spec.name}
    found |= {key: text for key in ("description", "source") if (text := getattr(spec, key))}
    found |= {key: value for key, value in _top_sizes(spec).items() if value is not None}
    if ambient is not None:
        found["norm"] = plain(ambient)
    single = len(spec.stacks) == 1 and spec.main.name == "model"
    stacks = {stack.name: _stack(stack, names, {} if single else _top_sizes(spec)) for stack in spec.stacks}
    if single:
        found["embedding"] = stacks["model"].pop("embedding")
    found["define"] = {name: _block(block, ambient) for block, name in names.items()}
    found |= stacks["model"] if single else {"stacks": stacks}
    found |= {"head": plain(spec.head), "init": plain(spec.init)}
    if spec.expect:
        found["expect"] = {key: e.text if e.step else int(e.text) for key, e in spec.expect}
    return found


def plain(component: Component) -> Any:
    """A component as plain data: its kind and every field that acts and is not given by what surrounds it."""
    cls = type(component)
    found: dict[str, Any] = {"kind": kind_of(cls)}
    for name, info in cls.model_fields.items():
        value = getattr(component, name)
        marks = extra(info)
        if name == "kind" or marks.get("inherited") or not acts(component, name):
            continue
        if value is None and info.default is None and "component" not in marks:
            continue
        found[name] = _plain_value(value, "slot" in marks)
    return found


def blocks(stack: Stack) -> Iterator[Block]:
    """The block of each layer of each period, in order."""
    return (layer.block for segment in stack.segments for layer in segment.layers)


def components(stack: Stack) -> Iterator[Component]:
    """Every component of a stack, those in slots included."""
    parts = [part for block in blocks(stack) for _, part in block.parts]
    for part in (stack.embedding, *parts, *([stack.final_norm] if stack.final_norm else [])):
        yield from _with_inner(part)


def _with_inner(component: Component) -> Iterator[Component]:
    yield component
    for name in type(component).model_fields:
        inner = getattr(component, name)
        if isinstance(inner, Component):
            yield from _with_inner(inner)


def _plain_value(value: Any, is_slot: bool) -> Any:
    if isinstance(value, Component):
        return plain(value)
    if isinstance(value, tuple):
        return list(value)
    return "none" if value is None and is_slot else value


# Sizes: what components inherited tells what the top and each stack said


def _top_sizes(spec: Spec) -> dict[str, int | None]:
    d_model = getattr(spec.init, "d_model", spec.main.d_model)
    return {"d_model": d_model, "vocab_size": spec.vocab_size, "max_seq_len": spec.max_seq_len}


def _own_sizes(stack: Stack, top: Mapping[str, int | None]) -> dict[str, int]:
    """The sizes of a stack that differ from those of the top."""
    found = {"d_model": stack.d_model}
    for component in components(stack):
        for name, info in type(component).model_fields.items():
            if name in SIZES and extra(info).get("inherited"):
                found.setdefault(name, getattr(component, name))
    return {name: found[name] for name in SIZES if name in found and found[name] != top[name]}


# Stacks and blocks


def _stack(stack: Stack, names: Mapping[Block, str], top: Mapping[str, int | None]) -> dict[str, Any]:
    found: dict[str, Any] = dict(_own_sizes(stack, top)) if top else {}
    found |= {key: value for key in ("memory", "tie_embedding") if (value := getattr(stack, key))}
    found["embedding"] = plain(stack.embedding)
    found["blocks"] = [_item(segment, names) for segment in stack.segments]
    found["final_norm"] = False if stack.final_norm is None else plain(stack.final_norm)
    return found


def _item(segment: Segment, names: Mapping[Block, str]) -> Any:
    runs = groupby(names[layer.block] for layer in segment.layers)
    lengths = [(name, len(list(run))) for name, run in runs]
    pattern = " ".join(name if n == 1 else f"{name} x{n}" for name, n in lengths)
    if segment.repeat == 1:
        return pattern
    return {"repeat": segment.repeat, "pattern": pattern} | ({"share": True} if segment.shared else {})


def _names(spec: Spec) -> dict[Block, str]:
    """A name for each different block: the one that the spec gave it, else what it is made of."""
    found: dict[Block, str] = {}
    for stack in spec.stacks:
        for layer in (layer for segment in stack.segments for layer in segment.layers):
            if layer.block not in found:
                wanted = layer.label or _made_of(layer.block)
                taken = set(found.values())
                numbered = (f"{wanted}_{n}" for n in range(2, len(taken) + 3))
                found[layer.block] = wanted if wanted not in taken else next(n for n in numbered if n not in taken)
    return found


def _made_of(block: Block) -> str:
    return "_".join(kind_of(type(part)) for name, part in block.parts if name in SUBLAYERS) or "block"


def _block(block: Block, ambient: NormComponent | None) -> dict[str, Any]:
    """A block as plain data; `ambient` is the norm that it would inherit."""
    norm = _norm(block)
    parts = dict(block.parts)
    found: dict[str, Any] = {name: plain(parts[name]) for name in SUBLAYERS if name in parts}
    if norm is not None and norm != ambient:
        found["norm"] = plain(norm)
    if block.dropout:
        found["dropout"] = block.dropout
    modules = {n: plain(p) for n, p in block.parts if n not in SUBLAYERS and not (n.startswith("norm") and p == norm)}
    if modules:
        found["modules"] = modules
    return found | {"wiring": list(block.wiring.lines())}


def _norm(block: Block) -> NormComponent | None:
    """The default norm of a block: what its wiring implies."""
    implied = [part for name, part in block.parts if name.startswith("norm") and isinstance(part, NormComponent)]
    return max(implied, key=implied.count, default=None)


def _ambient(every: Iterator[Block]) -> NormComponent | None:
    """The norm that most blocks have, which the top can say once."""
    norms = [norm for block in every if (norm := _norm(block)) is not None]
    return max(norms, key=norms.count, default=None)
