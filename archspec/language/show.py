"""A resolved spec as YAML that loads to an equal one: every derived size and default, the wiring as lines."""

from collections.abc import Iterable, Mapping
from itertools import count, groupby
from typing import Any

from archspec.language.document import SIZES
from archspec.language.model import Block, Layer, Segment, Spec, Stack
from archspec.language.rules import rules
from archspec.language.wirings import SUBLAYERS
from archspec.language.yaml_writer import dump
from archspec.layers.base import Component, NormComponent
from archspec.layers.fields import acts


def show(spec: Spec) -> str:
    """The spec as YAML text with everything resolved."""
    return dump(document(spec))


def document(spec: Spec) -> dict[str, Any]:
    """The spec as plain data with everything resolved."""
    layers = [layer for stack in spec.stacks for segment in stack.segments for layer in segment.layers]
    ambient = _commonest(norm for layer in layers if (norm := _norm(layer.block)) is not None)
    names = _names(layers)
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
    if spec.inputs is not None:
        found["inputs"] = list(spec.inputs)
    if spec.expect:
        found["expect"] = {key: e.text if e.step else int(e.text) for key, e in spec.expect}
    return found


def plain(component: Component) -> Any:
    """A component as plain data: its kind and every field that acts and is not given by what surrounds it."""
    found: dict[str, Any] = {"kind": component.kind}
    for name, rule in rules(type(component)).items():
        value = getattr(component, name)
        if name == "kind" or rule.marks.get("inherited") or not acts(component, name):
            continue
        if value is None and rule.info.default is None:
            continue
        found[name] = plain(value) if isinstance(value, Component) else _plain_value(value, "slot" in rule.marks)
    return found


def _plain_value(value: Any, is_slot: bool) -> Any:
    return list(value) if isinstance(value, tuple) else "none" if value is None and is_slot else value


# Sizes: what components inherited tells what the top and each stack said


def _inherited(*components: Component) -> dict[str, int]:
    """The sizes that components, those in slots included, took from what surrounds them."""
    found: dict[str, int] = {}
    for component in components:
        own = {n: getattr(component, n) for n, r in rules(type(component)).items() if r.marks.get("inherited")}
        found = own | _inherited(*component.children()) | found
    return found


def _top_sizes(spec: Spec) -> dict[str, int | None]:
    d_model = _inherited(spec.init).get("d_model", spec.main.d_model)
    return {"d_model": d_model, "vocab_size": spec.vocab_size, "max_seq_len": spec.max_seq_len}


def _own_sizes(stack: Stack, top: Mapping[str, int | None]) -> dict[str, int]:
    """The sizes of a stack that differ from those of the top."""
    found = _inherited(stack.embedding, *stack.parts) | {"d_model": stack.d_model}
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


def _names(layers: Iterable[Layer]) -> dict[Block, str]:
    """A name for each different block: the one that the spec gave it, else what it is made of."""
    found: dict[Block, str] = {}
    for layer in layers:
        if layer.block not in found:
            made_of = "_".join(part.kind for name, part in layer.block.parts if name in SUBLAYERS)
            wanted, taken = layer.label or made_of or "block", set(found.values())
            numbered = (f"{wanted}_{n}" for n in count(2))
            found[layer.block] = wanted if wanted not in taken else next(n for n in numbered if n not in taken)
    return found


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
    return _commonest(p for name, p in block.parts if name.startswith("norm") and isinstance(p, NormComponent))


def _commonest(norms: Iterable[NormComponent]) -> NormComponent | None:
    found = [*norms]
    return max(found, key=found.count, default=None)
