"""One stack of a spec: its sizes and defaults, its layers, its embedding and its final norm."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from archspec.errors import Fault, suggest
from archspec.language.block import BlockBuilder, leaves_unnormed, probability, read_lines
from archspec.language.blocks import Expander, Place
from archspec.language.fold import fold
from archspec.language.model import Layer, Stack
from archspec.language.overrides import override
from archspec.language.resolve import Resolver
from archspec.language.scope import Scope, Silent, UnknownSize
from archspec.language.sizes import with_sizes
from archspec.language.source import Node, from_plain
from archspec.language.values import Value, must_be, shown
from archspec.layers.base import EmbeddingComponent, MixerComponent, NormComponent, PositionComponent

MASKS = ("causal", "bidirectional", "prefix")


@dataclass
class Around:
    """What the stacks of a spec share.

    Attributes:
        resolver: keeps the problems.
        define: the named blocks.
        bodies: all stacks as they were written, in order.
        lost: keys of the top or of a stack (by name) that were probably meant by a key that nobody knows.
        made: the stacks that are done; None where something is wrong with one.
        used: the named blocks that some layer uses, by identity; None when that is not known.
    """

    resolver: Resolver
    define: Mapping[str, Place]
    bodies: Mapping[str, Node]
    lost: dict[str, set[str]] = field(default_factory=dict)
    made: dict[str, Stack | None] = field(default_factory=dict)
    used: set[int] | None = field(default_factory=set)


def with_defaults(resolver: Resolver, node: Node, path: str, scope: Scope) -> Scope:
    """The scope with the defaults that a top or a stack gives."""
    assert isinstance(node.value, dict)
    fields = node.value
    found: dict[str, Any] = {}
    if "norm" in fields:
        base = scope.defaults["norm"]
        found["norm"] = resolver.component("norm", fields["norm"], f"{path}norm", scope, base) or base
    if "dropout" in fields:
        found["dropout"] = probability(resolver, fields["dropout"], f"{path}dropout")
    if "mask" in fields:
        if fields["mask"].value in MASKS:
            found["mask"] = fields["mask"].value
        else:
            message = must_be("mask", fields["mask"], f"one of {', '.join(MASKS)}")
            resolver.problem(fields["mask"].mark, f"{path}mask", message)
    if "wiring" in fields:
        try:
            read_lines(fields["wiring"])
            found["wiring"] = fields["wiring"]
        except Fault as fault:
            resolver.problem(fields["wiring"].mark, f"{path}wiring", str(fault))
            found["wiring"] = None
    return scope.with_defaults(found, path)


class StackBuilder:
    """One stack on its way; `path` is empty where the spec is a single stack without a name."""

    def __init__(self, around: Around, name: str, path: str, scope: Scope):
        self.around, self.name, self.path = around, name, path
        self.resolver = around.resolver
        self.body = around.bodies[name]
        assert isinstance(self.body.value, dict)
        self.fields: dict[str, Node] = self.body.value
        self.lost = around.lost.get(name, set())
        if path:
            scope = with_sizes(self.resolver, self.body, path, scope, self.lost)
            scope = with_defaults(self.resolver, self.body, path, scope)
        self.scope = scope

    def problem(self, key: str, message: str) -> None:
        """Remember a mistake at one of the stack's keys."""
        mark = self.fields[key].mark if key in self.fields else self.body.mark
        self.resolver.problem(mark, f"{self.path}{key}".rstrip("."), message)

    def stack(self) -> Stack | None:
        """The stack, or None when something is wrong with it."""
        errors = len(self.resolver.problems)
        memory = self._earlier("memory")
        self._need_width()
        places = self._places()
        layers = self._layers(places, memory)
        embedding = self._embedding()
        tied = self._earlier("tie_embedding")
        final_norm = self._final_norm(layers)
        whole = places and len(layers) == len(places) and len(self.resolver.problems) == errors
        if not whole or embedding is None or "d_model" not in self.scope.numbers:
            return None
        self._check_memory(memory, layers)
        bias = self._shared_bias(layers)
        d_model = int(self.scope.numbers["d_model"])
        names = [stack.name if stack else None for stack in (memory, tied)]
        return Stack(self.name, d_model, embedding, fold(layers), final_norm, bias, *names)

    def _need_width(self) -> None:
        scope, missing = self.scope, self.resolver.missing
        if "d_model" not in scope.numbers:
            if "d_model" not in scope.broken and "d_model" not in missing:
                missing.add("d_model")
                self.problem("d_model", "a spec needs d_model, the width of the residual stream")
            self.scope = scope.with_numbers({}, scope.broken | {"d_model"})

    def _earlier(self, key: str) -> Stack | None:
        """The earlier stack that `memory` or `tie_embedding` names; its width is in the scope for a memory."""
        node = self.fields.get(key)
        if node is None:
            return None
        made = self.around.made
        found = made.get(node.value) if isinstance(node.value, str) else None
        if not isinstance(node.value, str) or node.value not in made:
            known = suggest(str(node.value)[:60], made) if made else "; there is none before this one"
            self.problem(key, f"no earlier stack {shown(node)}{known}")
        if key == "memory":
            width = {"d_memory": found.d_model} if found is not None else {}
            self.scope = self.scope.with_numbers(width, self.scope.broken | ({"d_memory"} - width.keys()))
        return found

    # Layers

    def _places(self) -> list[Place]:
        """The layers before they are resolved; none where that cannot be told."""
        blocks = self.fields.get("blocks")
        if blocks is None:
            self.around.used = None
            self.scope = self.scope.with_numbers({}, self.scope.broken | {"n_layers"})
            if "blocks" not in self.lost:
                self.problem("blocks", f"a {'stack' if self.path else 'spec'} needs blocks, its layers")
            return []
        expander = Expander(self.around.define, self.resolver.problems, self._size)
        places = expander.expand(blocks, f"{self.path}blocks")
        if expander.failed or self.around.used is None:
            self.around.used = None
        else:
            self.around.used |= {id(p.node) for p in places}
        changes = self.fields.get("overrides")
        known = [] if expander.failed else places
        changed = override(
            known,
            changes,
            f"{self.path}overrides",
            self.name if self.path else "",
            self.resolver.problems,
            self.around.define,
        )
        if self.around.used is not None:
            self.around.used |= {id(p.node) for p in changed}
        places = places if expander.failed else changed
        numbers, broken = ({}, {"n_layers"}) if expander.failed else ({"n_layers": len(places)}, set())
        self.scope = self.scope.with_numbers(numbers, self.scope.broken | broken)
        if expander.failed and not self.path:  # any of the named blocks may be meant, so each is looked at
            self.around.used = None
            places += [p for p in self.around.define.values() if p not in places]
        return places

    def _size(self, name: str) -> Value:
        """A size that a repeat names."""
        if name in self.scope.broken:
            raise Silent
        if name not in self.scope.numbers:
            raise UnknownSize(name, self.scope.numbers)
        self.resolver.read.add(name)
        self.resolver.reached.add(self.scope.origins.get(name, ""))
        return self.scope.numbers[name]

    def _layers(self, places: list[Place], memory: Stack | None) -> list[Layer]:
        others = self.around.bodies.values() if self.path else ()
        is_memory = any(_reads(body, self.name) for body in others)
        lost = "memory" in self.lost or ("memory" in self.fields and memory is None)
        builder = BlockBuilder(self.resolver, self.scope, memory, is_memory, lost)
        return [Layer(b, p.label, p.group) for p in places if (b := builder.block(p)) is not None]

    def _check_memory(self, memory: Stack | None, layers: list[Layer]) -> None:
        if memory is not None and not any("memory" in p.arguments for la in layers for _, p in la.block.parts):
            wish = "remove memory, or add cross to a block"
            self.problem("memory", f"no block of this stack has cross-attention; {wish}")

    def _shared_bias(self, layers: list[Layer]) -> PositionComponent | None:
        """The one table of position biases that all layers of a stack share (T5)."""
        mixers = (p for la in layers for _, p in la.block.parts if isinstance(p, MixerComponent))
        found = dict.fromkeys(p.shared_bias for p in mixers if p.shared_bias is not None)
        if len(found) > 1:
            wish = "make them equal, or set shared: false"
            self.problem("blocks", f"layers share one T5 table but describe {len(found)} different ones; {wish}")
        return next(iter(found), None)

    # Around the layers

    def _embedding(self) -> EmbeddingComponent | None:
        """The embedding of a stack; a plain token table where nothing is said."""
        if "embedding" in self.lost:
            return None
        node = self.fields.get("embedding") or from_plain("token", self.body.mark)
        found = self.resolver.component("embedding", node, f"{self.path}embedding", self.scope)
        assert found is None or isinstance(found, EmbeddingComponent)
        return found

    def _final_norm(self, layers: list[Layer]) -> NormComponent | None:
        """The norm after the last layer."""
        node = self.fields.get("final_norm")
        if node is None and not (layers and leaves_unnormed(layers[-1].block)):
            return None
        if node is not None and node.value in (None, "none", False):
            return None
        default = self.scope.defaults["norm"]
        assert isinstance(default, NormComponent)
        if node is None or node.value is True:
            self.resolver.inherit(self.scope, "norm")
            return default
        found = self.resolver.component("norm", node, f"{self.path}final_norm", self.scope, default)
        assert found is None or isinstance(found, NormComponent)
        return found


def _reads(body: Node, name: str) -> bool:
    memory = body.value.get("memory") if isinstance(body.value, dict) else None
    return memory is not None and memory.value == name
