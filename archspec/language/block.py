"""One layer resolved: its sub-layers, the norms that its wiring names, and the wiring itself."""

from archspec.errors import Fault
from archspec.language.depth import LAYER
from archspec.language.document import BLOCK_KEYS, ITEM_KEYS
from archspec.language.factors import with_factors
from archspec.language.filling import absent, one_channel
from archspec.language.links import Links
from archspec.language.model import Block, Stack
from archspec.language.names import bad_name
from archspec.language.origins import DEFAULT, Origin
from archspec.language.places import Place
from archspec.language.resolve import Resolver
from archspec.language.scope import Scope
from archspec.language.section import Section
from archspec.language.terms import cancelled
from archspec.language.topics import see
from archspec.language.tree import clipped, from_plain
from archspec.language.wiring import Call, Wiring
from archspec.language.wiring_checks import problems
from archspec.language.wirings import SUBLAYERS, named_wiring
from archspec.layers.base import Component, FFNComponent, MixerComponent, NormComponent, ScaleComponent

PART_ROLES = ("mixer", "ffn", "norm", "scale")
Parts = dict[str, Component | None]


def leaves_unnormed(block: Block) -> bool:
    """Whether the block's output is a bare residual stream, which a final norm should follow."""
    last = block.wiring.steps[-1].value
    return not (isinstance(last, Call) and isinstance(block.part(last.module), NormComponent))


class BlockBuilder:
    """Builds the blocks of one stack; equal places are built once."""

    def __init__(
        self,
        resolver: Resolver,
        scope: Scope,
        memory: Stack | None,
        is_memory: bool,
        lost: bool = False,
        streams: tuple[str, ...] = ("x",),
    ):
        self.resolver, self.scope, self.memory, self.is_memory = resolver, scope, memory, is_memory
        self.streams = streams  # what layers pass on
        self.lost = lost  # there is a memory, but what is wrong with it is told already
        self.built: dict[tuple[int, int | None], Block | None] = {}

    def block(self, place: Place, number: int) -> Block | None:
        """The block of a place, the layer of that number; None when it is wrong (the problems are kept)."""
        if place.broken:
            return None
        for key in ((id(place.node), None), (id(place.node), number)):
            if key in self.built:
                return self.built[key]
        found, by_number = self._build(place, number)
        self.built[id(place.node), number if by_number and found is not None else None] = found
        return found

    def _build(self, place: Place, number: int) -> tuple[Block | None, bool]:
        """A block, and whether a size in it differs with the number of the layer."""
        read = self.resolver.read
        before = LAYER in read
        read.discard(LAYER)
        found = _Building(self, place, self.scope.with_numbers({LAYER: number})).block()
        by_number = LAYER in read
        if before:
            read.add(LAYER)
        return found, by_number

    @property
    def alpha(self) -> float:
        """DeepNorm's residual factor (Wang et al. 2022, table 1): by the depths of this stack and of the other one."""
        n = int(self.scope.numbers.get("n_layers", 1))
        if self.memory is not None:
            return float((3 * n) ** 0.25)
        if self.is_memory:
            return float(0.81 * (n**4 * n) ** 0.0625)
        return float((2 * n) ** 0.25)


class _Building(Section):
    """One block on its way."""

    def __init__(self, builder: BlockBuilder, place: Place, scope: Scope):
        super().__init__(builder.resolver, place.node, place.path, scope)
        self.builder, self.named = builder, bool(place.label)
        self.errors = len(self.problems)

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong so far."""
        return len(self.problems) == self.errors

    def block(self) -> Block | None:
        """The block, or None."""
        if not isinstance(self.node.value, dict):
            self.tell("", f"must be a block (mixer, ffn, ...), not {self.node.kind_name()}")
            return None
        self._check_keys()
        if "extends" in self.fields:
            return None
        self.take_defaults(("norm", "dropout"))
        self.dropout = float(self.scope.defaults.get("dropout", 0.0))
        self.gives = Links("gives", self.fields.get("gives"), self.path, self.problems)
        self.reads = Links("reads", self.fields.get("reads"), self.path, self.problems)
        declared = self._modules()
        sound = self.sound
        parts = self._sublayers() | declared
        wiring = self._wiring(parts)
        if wiring is None or not sound:
            return None
        parts = self._implied(wiring, parts)
        for links in (self.gives, self.reads):
            links.check_parts(parts)
        self.gives.check_values({step.target for step in wiring.steps})
        for message in problems(
            wiring, parts, self.scope.numbers, self.reads.values(), self.gives.values(), self.builder.streams
        ):
            self.tell_wiring(message)
        for message, left in cancelled(wiring) if self.sound else ():
            (self.warn_wiring if left else self.tell_wiring)(message)
        self._check_use(wiring, parts)
        if not self.sound:
            return None
        for name in [name for name, part in parts.items() if isinstance(part, NormComponent)]:
            if self.scope.numbers.get("d_model") == 1:
                self.problems.warn(self.node, self.path, one_channel(name))
        order = dict.fromkeys(wiring.calls())
        found = tuple((name, part) for name in order if (part := parts[name]) is not None)
        dropout = self.dropout if "dropout" in order else 0.0
        block = Block(found, wiring, dropout, self.gives.links, self.reads.links)
        self.resolver.origins.note(block, self._origins(block))
        return block

    def _origins(self, block: Block) -> dict[str, Origin]:
        """Where the parts, the wiring and the dropout of the block came from."""
        found = {name: self._origin("norm") for name, part in block.parts if part is self.scope.defaults["norm"]}
        return found | {key: self._origin(key) for key in ("wiring", "dropout")}

    def _origin(self, key: str) -> Origin:
        """Where a key of the block, or what it gets in its place, came from."""
        if key in self.fields:
            return Origin("given", str(self.fields[key].mark))
        where = self.scope.origins.get(key)
        return Origin("inherited", where) if where else DEFAULT

    def _check_keys(self) -> None:
        """Tells the keys that a block does not have."""
        misplaced = [key for key in ("extends", *ITEM_KEYS) if key in self.fields]
        for key in misplaced:
            elsewhere = f"a block has no {key!r}; it stands beside a name or a pattern in `blocks`"
            extends = "only a block in define can extend another; name this one there"
            self.tell(key, extends if key == "extends" else elsewhere)
        known = [key for key in BLOCK_KEYS if key != "extends"] + ([] if self.named else [*ITEM_KEYS])
        self.problems.unknown(self.node, known, self.path, "a block", misplaced)

    # Parts

    def _sublayers(self) -> Parts:
        here = [name for name in SUBLAYERS if name in self.fields and not absent(self.fields[name])]
        return {name: self._sublayer(name) for name in here}

    def _sublayer(self, name: str) -> Component | None:
        scope = self.scope
        if name == "cross":
            scope = scope.with_defaults({"mask": "cross"}, {"mask": ""})
            if self.builder.memory is None and not self.builder.lost:
                wish = f"give the stack `memory: <name of an earlier stack>`{see('stacks')}"
                self.tell(name, f"cross-attention needs a memory; {wish}")
        scope = self._linked(name, scope)
        role: type[Component] = FFNComponent if name == "ffn" else MixerComponent
        part = self.component(role, name, scope=scope)
        reads = part is not None and "memory" in part.arguments
        if part is not None and reads != (name == "cross"):
            wrong = "a cross mask belongs under `cross`" if reads else "must read the memory; leave its mask out"
            self.tell(name, wrong)
        return part

    def _modules(self) -> Parts:
        node = self.fields.get("modules")
        parts: Parts = {}
        for name, child in self.problems.mapping(node, f"{self.path}.modules", "names to components").items():
            path = f"modules.{clipped(name)}"
            wrong = bad_name(name) or ("is a key of the block; choose another" if name in SUBLAYERS else "")
            if wrong and node is not None:
                self.problems.tell(node.key_mark(name), f"{self.path}.{path}", f"{clipped(name)!r} {wrong}")
            else:
                scope = self._linked(name, self.scope)
                parts[name] = self.resolver.component(PART_ROLES, child, f"{self.path}.{path}", scope)
        return parts

    def _linked(self, part: str, scope: Scope) -> Scope:
        """What surrounds a part: with what it gives to other layers, and reads of them."""
        ports = {"gives": self.gives.ports(part), "reads": self.reads.ports(part)}
        return scope.with_defaults({key: found for key, found in ports.items() if found}, {})

    def _implied(self, wiring: Wiring, parts: Parts) -> Parts:
        """The parts and those that a wiring may name without a declaration: norms, layer scales, dropout."""
        found = dict(parts)
        for name in wiring.calls():
            if name in found:
                continue
            if name.startswith("norm"):
                found[name] = self.resolver.inherit(self.scope, "norm")
            elif name.startswith("scale"):
                node = from_plain("layer_scale", self.node.mark)
                found[name] = self.component(ScaleComponent, f"modules.{name}", node)
            elif name == "dropout":
                found[name] = None
        return found

    # Wiring

    def _wiring(self, parts: Parts) -> Wiring | None:
        node = self.fields.get("wiring")
        if node is None and self.scope.defaults.get("wiring") is not None:
            node = self.resolver.inherit(self.scope, "wiring")
        found = "pre" if node is None else self.wiring(node)
        if found is None:
            return None
        if not isinstance(found, str):
            return self._factors(found)
        if self.builder.streams != ("x",):
            a, *_, b = self.builder.streams
            wish = f"write its lines, such as {a} = {a} + mixer(norm1({b}))"
            wrong = f"the stack has streams, of which the wiring {found} knows nothing; {wish}"
            self.tell("wiring" if "wiring" in self.fields else "", wrong)
            return None
        sublayers = tuple(name for name in SUBLAYERS if name in parts)
        if not sublayers:
            if self.sound:
                self.tell("", "a block needs a mixer or an ffn")
            return None
        try:
            return named_wiring(found, sublayers, self.dropout > 0, self.builder.alpha if found == "deepnorm" else None)
        except Fault as fault:
            self.tell_wiring(str(fault))
            return None

    def _factors(self, wiring: Wiring) -> Wiring | None:
        """A wiring that was written out, with the values of its numbers; None where one has none."""
        sizes = {*self.scope.numbers, *self.scope.broken} - {LAYER}
        try:
            sizes -= self.reads.values() | {*self.builder.streams}
            return with_factors(wiring, sizes, lambda name: self.resolver.size(self.scope, name))
        except Fault as fault:
            if str(fault):  # else it is told already
                self.tell_wiring(str(fault))
            return None

    def _check_use(self, wiring: Wiring, parts: Parts) -> None:
        calls = wiring.calls()
        for name in dict.fromkeys(calls):
            part, times = parts.get(name), calls.count(name)
            if times > 1 and part is not None and (part.arguments or part.role == "ffn"):
                self.tell_wiring(f"{name} is called {times} times; only norms and scales can be used again")
        if "dropout" in calls and self.dropout:
            self.resolver.inherit(self.scope, "dropout")
        elif "dropout" in calls:
            self.tell_wiring("calls dropout(...), but dropout is 0; set dropout, or remove the call")
        if all(part is not None for name, part in parts.items() if name != "dropout"):
            self._check_reach()

    def _check_reach(self) -> None:
        """Tells a dropout or a norm of this block that nothing in it takes."""
        idle = {key for key in ("dropout", "norm") if f"{self.path}.{key}" not in self.resolver.reached}
        if "dropout" in self.fields and self.dropout and "dropout" in idle:
            wish = "remove it, or call dropout(...) in the wiring"
            self.tell("dropout", f"nothing in this block takes it, so it has no effect; {wish}")
        if "norm" in self.fields and "norm" in idle:
            self.tell("norm", "no norm of this block takes it, so it has no effect; remove it")
