"""One stack of a spec: its sizes and defaults, its layers, its embedding and its final norm."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from archspec.errors import suggest
from archspec.language.between import check_numbers, check_values
from archspec.language.block import BlockBuilder, leaves_unnormed
from archspec.language.document import SHARED
from archspec.language.filling import absent
from archspec.language.fold import fold
from archspec.language.model import Layer, Stack
from archspec.language.origins import DEFAULT, Origin
from archspec.language.overrides import Overrides
from archspec.language.places import Expander, Place
from archspec.language.resolve import Resolver
from archspec.language.rules import shown
from archspec.language.scope import Scope
from archspec.language.section import Section
from archspec.language.sizes import with_sizes
from archspec.language.streams import Streams, named
from archspec.language.streams_reader import StreamsReader
from archspec.language.tree import Node
from archspec.layers.base import EmbeddingComponent, MixerComponent, NormComponent, PositionComponent


@dataclass
class Around:
    """What the stacks of a spec share.

    Attributes:
        resolver: keeps the problems.
        define: the named blocks.
        bodies: all stacks as they were written, in order.
        lost: keys of the top or of a stack (by name) that were probably meant by a key that nobody knows.
        made: the stacks that are done; None where something is wrong with one.
        heads: values of layers that heads read.
        used: the named blocks that some layer uses, by identity; None when that is not known.
    """

    resolver: Resolver
    define: Mapping[str, Place]
    bodies: Mapping[str, Node] = field(default_factory=dict)
    lost: dict[str, set[str]] = field(default_factory=dict)
    made: dict[str, Stack | None] = field(default_factory=dict)
    used: set[int] | None = field(default_factory=set)
    heads: frozenset[str] = frozenset()

    def use(self, places: list[Place]) -> None:
        """Note the blocks of some layers as used."""
        if self.used is not None:
            self.used |= {id(place.node) for place in places}


class StackBuilder(Section):
    """One stack on its way; `path` is empty where the spec is a single stack without a name."""

    def __init__(self, around: Around, name: str, path: str, scope: Scope):
        super().__init__(around.resolver, around.bodies[name], path, scope)
        self.around, self.name = around, name
        self.lost_streams = False
        self.lost = around.lost.get(name, set())
        if path:
            self.scope = with_sizes(self.resolver, self.node, path, scope, self.lost)
            self.take_defaults(SHARED[3:])

    def stack(self) -> Stack | None:
        """The stack, or None when something is wrong with it."""
        errors = len(self.problems)
        memory = self._earlier("memory")
        self._need_width()
        streams = self._streams()
        places = self._places()
        layers = self._layers(places, memory, streams)
        embedding = self._embedding()
        tied = self._earlier("tie_embedding")
        final_norm = self._final_norm(layers)
        whole = places and len(layers) == len(places) and len(self.problems) == errors
        if not whole or embedding is None or "d_model" not in self.scope.numbers:
            return None
        if memory is not None and not any("memory" in p.arguments for la in layers for _, p in la.block.parts):
            wish = "remove memory, or add cross to a block"
            self.tell("memory", f"no block of this stack has cross-attention; {wish}")
        bias = self._shared_bias(layers)
        d_model = int(self.scope.numbers["d_model"])
        names = [stack.name if stack else None for stack in (memory, tied)]
        if streams is not None:
            StreamsReader(self, self.fields["streams"]).check_use(streams, {la.block.wiring for la in layers})
        return Stack(self.name, d_model, embedding, fold(layers), final_norm, bias, names[0], names[1], streams)

    def _streams(self) -> Streams | None:
        """What goes from layer to layer in place of x, where there is more than that."""
        node = self.fields.get("streams")
        if node is None or absent(node):
            return None
        self.lost_streams = (found := StreamsReader(self, node).streams()) is None
        return found

    def _need_width(self) -> None:
        if "d_model" not in self.scope.numbers:
            if "d_model" not in self.scope and "d_model" not in self.resolver.missing:
                self.resolver.missing.add("d_model")
                self.tell("d_model", "a spec needs d_model, the width of the residual stream")
            self.scope = self.scope.with_numbers({}, ("d_model",))

    def _earlier(self, key: str) -> Stack | None:
        """The earlier stack that `memory` or `tie_embedding` names; its width is in the scope for a memory."""
        node = self.fields.get(key)
        if node is None:
            return None
        made = self.around.made
        found = made.get(node.value) if isinstance(node.value, str) else None
        if not isinstance(node.value, str) or node.value not in made:
            known = suggest(str(node.value)[:60], made) if made else "; there is none before this one"
            self.tell(key, f"no earlier stack {shown(node)}{known}")
        if key == "memory":
            width = {"d_memory": found.d_model} if found is not None else {}
            self.scope = self.scope.with_numbers(width, {"d_memory"} - width.keys())
        return found

    # Layers

    def _places(self) -> list[Place]:
        """The layers before they are resolved; none where that cannot be told."""
        around, blocks, changes = self.around, self.fields.get("blocks"), self.fields.get("overrides")
        if blocks is None:
            around.used = None
            self.scope = self.scope.with_numbers({}, ("n_layers",))
            if "blocks" not in self.lost:
                self.tell("blocks", f"a {'stack' if self.path else 'spec'} needs blocks, its layers")
            return []
        expander = Expander(around.define, self.problems, lambda name: self.resolver.size(self.scope, name))
        places = expander.expand(blocks, f"{self.path}.blocks".removeprefix("."))
        around.use(places)
        known = [] if expander.failed else places
        if changes is not None:
            stack = self.name if self.path else ""
            work = Overrides(known, stack, self.problems, around.define)
            known = work.apply(changes, f"{self.path}.overrides".removeprefix("."))
            around.use(known)
        if not expander.failed:
            self.scope = self.scope.with_numbers({"n_layers": len(known)})
            return known
        around.used = None
        self.scope = self.scope.with_numbers({}, ("n_layers",))
        if not self.path:  # any of the named blocks may be meant, so each is looked at
            places += [place for place in around.define.values() if place not in places]
        return places

    def _layers(self, places: list[Place], memory: Stack | None, streams: Streams | None) -> list[Layer]:
        if self.lost_streams:
            return []
        others = self.around.bodies.values() if self.path else ()
        is_memory = any("memory" in body.fields and body.fields["memory"].value == self.name for body in others)
        lost = "memory" in self.lost or ("memory" in self.fields and memory is None)
        builder = BlockBuilder(self.resolver, self.scope, memory, is_memory, lost, named(streams))
        found = [(p, b) for i, p in enumerate(places) if (b := builder.block(p, i)) is not None]
        if len(found) == len(places):
            check_numbers(found, self.resolver.problems)
            check_values(found, self.resolver.problems, self.around.heads)
        return [Layer(b, p.label, p.group) for p, b in found]

    def _shared_bias(self, layers: list[Layer]) -> PositionComponent | None:
        """The one table of position biases that all layers of a stack share (T5)."""
        mixers = dict.fromkeys(p for la in layers for _, p in la.block.parts if isinstance(p, MixerComponent))
        found = dict.fromkeys(mixer.shared_bias for mixer in mixers if mixer.shared_bias is not None)
        if len(found) > 1:
            wish = "make them equal, or set shared: false"
            self.tell("blocks", f"layers share one T5 table but describe {len(found)} different ones; {wish}")
        return next(iter(found), None)

    # Around the layers

    def _embedding(self) -> EmbeddingComponent | None:
        """The embedding of a stack; a plain token table where nothing is said."""
        if "embedding" in self.lost:
            return None
        node = self.fields.get("embedding") or Node({}, self.node.mark)
        return self.component(EmbeddingComponent, "embedding", node)

    def _final_norm(self, layers: list[Layer]) -> NormComponent | None:
        """The norm after the last layer."""
        node = self.fields.get("final_norm")
        if node is None and not (layers and leaves_unnormed(layers[-1].block)):
            return None
        if node is not None and absent(node):
            return None
        if node is None or node.value is True:
            where = self.scope.origins.get("norm")
            origin = Origin("inherited", where) if where else DEFAULT
            self.resolver.origins.places[f"{self.name}.final_norm"] = origin
            norm: NormComponent = self.resolver.inherit(self.scope, "norm")
            return norm
        return self.component(NormComponent, "final_norm", node, self.scope.defaults["norm"])
