"""The document of a spec made into a `Spec`: sizes and defaults first, then stacks, then the head."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from archspec.errors import Fault, Problem, suggest
from archspec.layers.base import LARGEST, Component, NormComponent
from archspec.spec.arithmetic import evaluate
from archspec.spec.block import BlockBuilder, leaves_unnormed
from archspec.spec.blocks import Expander, Place, definitions, override
from archspec.spec.document import STACK_KEYS, TOP_KEYS
from archspec.spec.expect import parse_expect
from archspec.spec.fold import fold
from archspec.spec.model import Layer, Spec, Stack
from archspec.spec.resolve import Resolver, Scope, Value, fit, shown
from archspec.spec.source import Node, from_plain

SIZES = ("d_model", "vocab_size", "max_seq_len")
LONGEST_TEXT = 1000


class Assembler:
    """Builds one spec; `problems` holds everything that is wrong with it."""

    def __init__(self, document: Node, file: str):
        self.document, self.file = document, file
        self.resolver = Resolver()
        self.problems = self.resolver.problems
        self.fields: dict[str, Node] = document.value if isinstance(document.value, dict) else {}

    def problem(self, node: Node, path: str, message: str) -> None:
        """Remember one mistake."""
        self.problems.append(Problem(node.mark, path, message))

    def spec(self) -> Spec | None:
        """The spec, or None when something is missing; then `problems` says what."""
        if not isinstance(self.document.value, dict):
            self.problem(
                self.document, "", f"a spec is a mapping (name, d_model, blocks, ...), not {self.document.kind_name()}"
            )
            return None
        self.unknown(self.document, TOP_KEYS, "", "a spec")
        scope = self.top_scope()
        define = definitions(self.fields.get("define"), self.problems)
        bodies = self.stack_bodies()
        stacks: list[Stack] = []
        used: set[int] = set()
        for name, body in bodies.items():
            stack = self.stack(name, body, scope, define, stacks, used)
            if stack is not None:
                stacks.append(stack)
        self.unused(define, used)
        head = self.head(scope, stacks[-1] if len(stacks) == len(bodies) and stacks else None)
        init = self.init(scope.with_numbers({"n_layers": stacks[-1].n_layers}) if stacks else scope)
        expect = parse_expect(self.fields.get("expect"), self.problems)
        if head is None or init is None or len(stacks) != len(bodies) or not stacks:
            return None
        numbers = {k: _whole(scope.numbers.get(k)) for k in ("vocab_size", "max_seq_len")}
        texts = {k: self.text(k) for k in ("description", "source")}
        spec = Spec(
            self.text("name") or "model", tuple(stacks), head, init, expect=expect, file=self.file, **numbers, **texts
        )  # type: ignore[arg-type]
        self.check_ties(spec)
        return spec

    # The top

    def unknown(self, node: Node, known: Mapping[str, str], path: str, what: str) -> None:
        """A problem for each key that nobody knows."""
        assert isinstance(node.value, dict)
        for key in node.value:
            if key not in known:
                mark = node.keys.get(key, node.mark)
                where = f"{path}.{key}" if path else key
                self.problems.append(Problem(mark, where, f"{what} has no {key!r}{suggest(key, known)}"))

    def text(self, key: str) -> str:
        """A text of the top."""
        node = self.fields.get(key)
        if node is None:
            return ""
        if not isinstance(node.value, str) or len(node.value) > LONGEST_TEXT or not node.value.isprintable():
            self.problem(node, key, f"{key} = {shown(node)} must be one line of text")
            return ""
        return node.value

    def top_scope(self) -> Scope:
        """Named sizes and defaults of the top."""
        numbers = self.sizes(self.document, "", {})
        norm = self.resolver.component("norm", from_plain("rmsnorm", self.document.mark), "norm", Scope(numbers))
        return self.defaults(self.document, "", Scope(numbers, {"norm": norm, "wiring": None}))

    def sizes(self, node: Node, path: str, outer: Mapping[str, Value]) -> dict[str, Value]:
        """The sizes that a top or a stack gives, arithmetic on each other allowed."""
        assert isinstance(node.value, dict)
        named = node.value.get("sizes")
        raw = {k: (node.value[k], f"{path}{k}") for k in SIZES if k in node.value}
        if named is not None and not isinstance(named.value, dict):
            self.problem(named, f"{path}sizes", f"must map names to sizes, not {named.kind_name()}")
        elif named is not None:
            for name, child in named.value.items():  # type: ignore[union-attr]
                if name in SIZES or not name.isidentifier():
                    self.problem(
                        child, f"{path}sizes.{name}", f"{name!r} cannot be the name of a size; choose another word"
                    )
                else:
                    raw[name] = (child, f"{path}sizes.{name}")
        return _Sizes(self, raw, outer).all()

    def defaults(self, node: Node, path: str, scope: Scope) -> Scope:
        """The scope with the defaults that a top or a stack gives."""
        assert isinstance(node.value, dict)
        found: dict[str, Any] = {}
        if "norm" in node.value:
            base = scope.defaults.get("norm")
            found["norm"] = self.resolver.component("norm", node.value["norm"], f"{path}norm", scope, base) or base
        if "dropout" in node.value:
            found["dropout"] = self.probability(node.value["dropout"], f"{path}dropout")
        if "mask" in node.value:
            mask, masks = node.value["mask"], ("causal", "bidirectional", "prefix")
            if mask.value in masks:
                found["mask"] = mask.value
            else:
                self.problem(mask, f"{path}mask", f"mask = {shown(mask)} must be one of {', '.join(masks)}")
        if "wiring" in node.value:
            found["wiring"] = node.value["wiring"]
        return scope.with_defaults(found)

    def probability(self, node: Node, path: str) -> float:
        """A dropout rate."""
        value = node.value
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1:
            return float(value)
        self.problem(node, path, f"{path.rpartition('.')[2]} = {shown(node)} must be a number, at least 0 and below 1")
        return 0.0

    def stack_bodies(self) -> dict[str, Node]:
        """The stacks by name; a spec without `stacks` is one stack made of its own top."""
        stacks = self.fields.get("stacks")
        if stacks is None:
            own = {k: v for k, v in self.fields.items() if k in ("embedding", "blocks", "overrides", "final_norm")}
            return {"model": Node(own, self.document.mark, self.document.keys)}
        for key in ("embedding", "blocks", "overrides", "final_norm"):
            if key in self.fields:
                mark = self.document.keys.get(key, self.document.mark)
                self.problems.append(
                    Problem(mark, key, f"{key} belongs into the stacks when there are stacks; move it there")
                )
        if not isinstance(stacks.value, dict) or not stacks.value:
            self.problem(stacks, "stacks", f"must map names (encoder, decoder) to stacks, not {stacks.kind_name()}")
            return {}
        for name, body in stacks.value.items():
            if not name.isidentifier() or name in ("head", "state"):
                self.problem(body, f"stacks.{name}", f"a stack's name is letters, digits and _; found {name!r}")
            elif not isinstance(body.value, dict):
                self.problem(
                    body, f"stacks.{name}", f"must be a stack (embedding, blocks, ...), not {body.kind_name()}"
                )
            else:
                self.unknown(body, STACK_KEYS, f"stacks.{name}", "a stack")
        return {k: v for k, v in stacks.value.items() if isinstance(v.value, dict)}

    # Stacks

    def stack(
        self, name: str, body: Node, scope: Scope, define: Mapping[str, Place], earlier: list[Stack], used: set[int]
    ) -> Stack | None:
        """One stack, or None when it cannot be made."""
        assert isinstance(body.value, dict)
        single = "stacks" not in self.fields
        path = "" if single else f"stacks.{name}."
        if not single:
            scope = self.defaults(body, path, scope.with_numbers(self.sizes(body, path, scope.numbers)))
        memory = self.earlier(body, "memory", path, earlier)
        if memory is not None:
            scope = scope.with_numbers({"d_memory": memory.d_model})
        blocks = body.value.get("blocks")
        if "d_model" not in scope.numbers:
            self.problem(body, f"{path}d_model", "a spec needs d_model, the width of the residual stream")
        if blocks is None:
            self.problem(body, f"{path}blocks", "a spec needs blocks, its layers")
            return None
        expander = Expander(define, self.problems)
        places = expander.expand(blocks, f"{path}blocks")
        used |= {id(p.node) for p in places}
        places = override(places, body.value.get("overrides"), f"{path}overrides", name, self.problems)
        scope = scope.with_numbers({"n_layers": len(places)})
        read_by_others = any(_reads(b, name) for b in self.stack_bodies().values()) if not single else False
        builder = BlockBuilder(self.resolver, scope, memory, read_by_others)
        layers = [Layer(b, p.label, p.group) for p in places if (b := builder.block(p)) is not None]
        embedding = self.embedding(body, path, scope)
        tied = self.earlier(body, "tie_embedding", path, earlier)
        final_norm = self.final_norm(body, path, scope, layers)
        if embedding is None or len(layers) != len(places) or not layers or "d_model" not in scope.numbers:
            return None
        if memory is not None and not any(
            part.inputs and "memory" in part.inputs for la in layers for _, part in la.block.parts
        ):
            self.problem(
                body.value["memory"],
                f"{path}memory",
                "no block of this stack has cross-attention; remove memory, or add cross to a block",
            )
        d_model = _whole(scope.numbers["d_model"])
        assert d_model is not None
        return Stack(name, d_model, embedding, fold(layers), final_norm, self.shared_bias(layers, body, path),
                     memory.name if memory else None, tied.name if tied else None)  # fmt: skip

    def earlier(self, body: Node, key: str, path: str, earlier: list[Stack]) -> Stack | None:
        """The earlier stack that `memory` or `tie_embedding` names."""
        assert isinstance(body.value, dict)
        node = body.value.get(key)
        if node is None:
            return None
        for stack in earlier:
            if stack.name == node.value:
                return stack
        names = [s.name for s in earlier]
        known = suggest(str(node.value), names) if names else "; there is none before this one"
        self.problem(node, f"{path}{key}", f"no earlier stack {shown(node)}{known}")
        return None

    def embedding(self, body: Node, path: str, scope: Scope) -> Component | None:
        """The embedding of a stack; a plain token table where nothing is said."""
        assert isinstance(body.value, dict)
        node = body.value.get("embedding") or from_plain("token", body.mark)
        return self.resolver.component("embedding", node, f"{path}embedding", scope)

    def final_norm(self, body: Node, path: str, scope: Scope, layers: list[Layer]) -> NormComponent | None:
        """The norm after the last layer."""
        assert isinstance(body.value, dict)
        node = body.value.get("final_norm")
        default = scope.defaults["norm"]
        if node is None:
            return default if layers and leaves_unnormed(layers[-1].block) else None
        if isinstance(node.value, bool):
            return default if node.value else None
        if node.value is None or node.value == "none":
            return None
        found = self.resolver.component("norm", node, f"{path}final_norm", scope, default)
        assert found is None or isinstance(found, NormComponent)
        return found

    def shared_bias(self, layers: list[Layer], body: Node, path: str) -> Component | None:
        """The one table of position biases that all layers of a stack share (T5)."""
        found = {b for la in layers for _, p in la.block.parts if (b := getattr(p, "shared_bias", None)) is not None}
        if len(found) > 1:
            self.problem(
                body,
                f"{path}blocks",
                "layers share one T5 table but describe different ones; make them equal, or set shared: false",
            )
        return next(iter(found), None)

    # Head, init, and what only the whole can say

    def head(self, scope: Scope, stack: Stack | None) -> Component | None:
        """The head; none where the spec says nothing."""
        node = self.fields.get("head") or from_plain("none", self.document.mark)
        if node.value is None:
            node = from_plain("none", node.mark)
        if stack is not None:
            width = getattr(stack.embedding, "tied_width", stack.d_model)
            scope = scope.with_numbers({"d_model": stack.d_model, "d_embedding": width, "n_layers": stack.n_layers})
        return self.resolver.component("head", node, "head", scope)

    def init(self, scope: Scope) -> Component | None:
        """How weights start; normal with a standard deviation of 0.02 where the spec says nothing."""
        return self.resolver.component(
            "init", self.fields.get("init") or from_plain("normal", self.document.mark), "init", scope
        )

    def unused(self, define: Mapping[str, Place], used: set[int]) -> None:
        """A problem for each named block that no layer uses and no block extends."""
        node = self.fields.get("define")
        extended = set()
        if node is not None and isinstance(node.value, dict):
            bodies = [b.value for b in node.value.values() if isinstance(b.value, dict)]
            extended = {b["extends"].value for b in bodies if "extends" in b}
        for name, place in define.items():
            if id(place.node) not in used and name not in extended:
                self.problem(place.node, f"define.{name}", "is used by no layer; remove it, or name it in blocks")

    def check_ties(self, spec: Spec) -> None:
        """Refuse ties between tables that do not exist or differ in shape."""
        node = self.fields.get("head", self.document)
        if getattr(spec.head, "tied", False) and not getattr(spec.main.embedding, "weight_path", None):
            self.problem(node, "head.tied", "there is no token table to tie to; set tied: false")
        for stack in spec.stacks:
            if stack.tie_embedding:
                other = next(s for s in spec.stacks if s.name == stack.tie_embedding)
                ours, theirs = (_table(s) for s in (stack, other))
                if ours is None or ours != theirs:
                    body = self.fields["stacks"].value[stack.name]  # type: ignore[index, call-overload]
                    message = f"tables differ: {ours} here and {theirs} in {other.name!r}; only equal token tables can be tied"
                    self.problem(body.value["tie_embedding"], f"stacks.{stack.name}.tie_embedding", message)  # type: ignore[index]


class _Sizes:
    """Sizes that may refer to one another."""

    def __init__(self, owner: Assembler, raw: Mapping[str, tuple[Node, str]], outer: Mapping[str, Value]):
        self.owner, self.raw, self.outer = owner, raw, outer
        self.found: dict[str, Value] = {}
        self.pending: list[str] = []
        self.failed: set[str] = set()

    def all(self) -> dict[str, Value]:
        """Every size that could be computed."""
        for name in self.raw:
            with suppress(Fault):  # kept as a problem already
                self.size(name)
        return self.found

    def size(self, name: str) -> Value:
        """One size, by name; Fault when there is none."""
        if name in self.found:
            return self.found[name]
        if name not in self.raw:
            if name in self.outer:
                return self.outer[name]
            raise Fault(f"no size {name!r} is known here{suggest(name, {*self.raw, *self.outer})}")
        if name in self.failed:
            raise Fault("")
        node, path = self.raw[name]
        if name in self.pending:
            raise Fault(f"{name} depends on itself: {' -> '.join([*self.pending, name])}")
        self.pending.append(name)
        try:
            self.found[name] = self._value(name, node)
        except Fault as fault:
            self.failed.add(name)
            if str(fault):
                self.owner.problem(node, path, str(fault))
            raise Fault("") from None
        finally:
            self.pending.pop()
        return self.found[name]

    def _value(self, name: str, node: Node) -> Value:
        value = node.value
        if isinstance(value, str):
            value = evaluate(value, self.size)
            if name in SIZES:
                value = fit(name, str(node.value), value, True)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if name in SIZES and not (whole and 0 < value <= LARGEST):  # type: ignore[operator]
            raise Fault(f"{name} = {shown(node)} must be a whole number, above 0 and at most {LARGEST}")
        if name not in SIZES and not (_is_value(value) and abs(value) <= LARGEST):  # type: ignore[arg-type]
            raise Fault(f"{name} = {shown(node)} must be a finite number, at most {LARGEST}")
        return value  # type: ignore[return-value]


def _is_value(value: Any) -> bool:
    return isinstance(value, Value) and not isinstance(value, bool) and value == value


def _whole(value: Value | None) -> int | None:
    return None if value is None else int(value)


def _reads(body: Node, name: str) -> bool:
    memory = body.value.get("memory") if isinstance(body.value, dict) else None
    return memory is not None and memory.value == name


def _table(stack: Stack) -> tuple[int, ...] | None:
    path = getattr(stack.embedding, "weight_path", None)
    return next((p.shape for op in stack.embedding.ops() for p in op.params if p.name == path), None)
