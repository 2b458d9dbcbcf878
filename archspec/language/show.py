"""A resolved spec as YAML that loads to an equal one: every derived size and default, the wiring as lines."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import count, groupby
from typing import Any

from archspec.language.document import SIZES
from archspec.language.model import Block, Layer, Segment, Spec, Stack, need_spec
from archspec.language.places import MOST_EXTENDS
from archspec.language.rules import rules
from archspec.language.source import MAX_BYTES
from archspec.language.streams import shown
from archspec.language.tree import MAX_NODES
from archspec.language.wirings import SUBLAYERS
from archspec.language.yaml_writer import dump
from archspec.layers.base import Component, NormComponent
from archspec.layers.fields import acts


def show(spec: Spec) -> str:
    """The spec as YAML text with everything resolved.

    Where that would be more than a spec may hold, a block that differs from an earlier one in some values says those.
    """
    need_spec(spec)
    found = document(spec)
    text = dump(found)
    if len(text.encode()) > MAX_BYTES or _size(found) > MAX_NODES:
        text = dump({**found, "define": by_difference(found["define"])})
    return text


def document(spec: Spec) -> dict[str, Any]:
    """The spec as plain data with everything resolved."""
    layers = [layer for stack in spec.stacks for segment in stack.segments for layer in segment.layers]
    ambient = _commonest(norm for layer in layers if (norm := _norm(layer.block)) is not None)
    names = _names(layers)
    found: dict[str, Any] = {"name": spec.name}
    found |= {key: text for key in ("description", "source") if (text := getattr(spec, key))}
    found |= {key: value for key, value in _top_sizes(spec).items() if value is not None}
    if spec.vocabulary is not None:
        found["vocabulary"] = plain(spec.vocabulary)
    if ambient is not None:
        found["norm"] = plain(ambient)
    single = len(spec.stacks) == 1 and spec.main.name == "model"
    stacks = {stack.name: _stack(stack, names, {} if single else _top_sizes(spec)) for stack in spec.stacks}
    if single:
        found["embedding"] = stacks["model"].pop("embedding")
    found["define"] = {name: _block(block, ambient) for block, name in names.items()}
    found |= stacks["model"] if single else {"stacks": stacks}
    found |= {"heads": _heads(spec)} if spec.by_name else {"head": plain(spec.head)}
    found["init"] = plain(spec.init)
    if spec.inputs is not None:
        found["inputs"] = list(spec.inputs)
    if spec.expect:
        found["expect"] = {key: e.said for key, e in spec.expect}
    return found


def _heads(spec: Spec) -> dict[str, Any]:
    """The heads by name, each with how it is trained."""
    found = {}
    for head in spec.heads:
        ahead = {"ahead": head.ahead} if spec.ahead(head) else {}
        reads = {"reads": head.reads} if head.reads else {}
        found[head.name] = {**plain(head.component), "loss_weight": head.loss_weight, **ahead, **reads}
    return found


def _size(data: Any) -> int:
    """The values of some plain data, as a reader of the text counts them: keys too."""
    if isinstance(data, Mapping):
        return 1 + sum(1 + _size(child) for child in data.values())
    return 1 + sum(map(_size, data)) if isinstance(data, list | tuple) else 1


def by_difference(blocks: Mapping[str, Any]) -> dict[str, Any]:
    """Blocks by name, of which those with the same fields say only what is other than in one of the earlier ones."""
    earlier: dict[object, str] = {}
    depth: dict[str, int] = {}
    found: dict[str, Any] = {}
    for name, block in blocks.items():
        form = _form(block)
        # The first of the form, and those that are the same but for one part of them.
        alike = [form, *((form, part, repr({**block, part: None})) for part in block)]
        changes = {base: _changed(blocks[base], block) for key in alike if (base := earlier.get(key)) is not None}
        base = min(changes, key=lambda b: _size(changes[b]), default=None)
        found[name] = block if base is None else {"extends": base, **changes[base]}
        depth[name] = 0 if base is None else depth[base] + 1
        for key in alike if depth[name] < MOST_EXTENDS // 2 else ():
            earlier.setdefault(key, name)
    return found


def _form(data: Any) -> str:
    """Which fields there are, in which kinds, whatever their values."""
    if not isinstance(data, Mapping):
        return ""
    fields = (f"{key}={value}" if key == "kind" else f"{key}{{{_form(value)}}}" for key, value in data.items())
    return ",".join(fields)


def _changed(base: Mapping[str, Any], block: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a block that have other values than in one of the same form."""
    differ = ((key, base[key], value) for key, value in block.items() if base[key] != value)
    return {k: _changed(old, new) if isinstance(new, Mapping) else new for k, old, new in differ}


def plain(component: Component) -> Any:
    """A component as plain data: its kind and every field that acts and is not given by what surrounds it."""
    found: dict[str, Any] = {"kind": component.kind}
    for name, rule in rules(type(component)).items():
        value = getattr(component, name)
        if name == "kind" or rule.marks.get("inherited") or not acts(component, name):
            continue
        if value is None and rule.info.default is None:
            continue
        if rule.marks.get("named") and not value:
            continue
        found[name] = plain(value) if isinstance(value, Component) else _plain_value(value, rule.marks)
    return found


def _plain_value(value: Any, marks: Mapping[str, Any]) -> Any:
    if marks.get("named"):
        return dict(value)
    return list(value) if isinstance(value, tuple) else "none" if value is None and "slot" in marks else value


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
    found |= {"streams": shown(stack.streams)} if stack.streams is not None else {}
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
    taken: set[str] = set()
    numbers: dict[str, Iterator[int]] = {}
    for layer in layers:
        if layer.block not in found:
            made_of = "_".join(part.kind for name, part in layer.block.parts if name in SUBLAYERS)
            wanted = name = layer.label or made_of or "block"
            while name in taken:
                name = f"{wanted}_{next(numbers.setdefault(wanted, count(2)))}"
            found[layer.block] = name
            taken.add(name)
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
    found |= {"gives": {link.name: link.inside for link in block.gives}} if block.gives else {}
    found |= {"reads": {link.inside: link.name for link in block.reads}} if block.reads else {}
    return found | {"wiring": list(block.wiring.lines())}


def _norm(block: Block) -> NormComponent | None:
    """The default norm of a block: what its wiring implies."""
    return _commonest(p for name, p in block.parts if name.startswith("norm") and isinstance(p, NormComponent))


def _commonest(norms: Iterable[NormComponent]) -> NormComponent | None:
    found = Counter(norms)  # of equally many, the first
    return max(found, key=found.__getitem__, default=None)
