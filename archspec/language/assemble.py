"""The document of a spec made into a `Spec`: sizes and defaults first, then stacks, then the head."""

from collections.abc import Mapping

from archspec.errors import Mark
from archspec.language.define import definitions
from archspec.language.document import STACK_KEYS, TOP_KEYS
from archspec.language.expect import parse_expect
from archspec.language.init_names import init_names
from archspec.language.keys import bad_name, clipped, unknown
from archspec.language.model import Spec, Stack
from archspec.language.resolve import Resolver
from archspec.language.scope import Scope
from archspec.language.sizes import SIZES, with_sizes
from archspec.language.source import Node, from_plain
from archspec.language.stack import Around, StackBuilder, with_defaults
from archspec.language.values import must_be
from archspec.layers.base import HeadComponent, InitComponent

LONGEST_TEXT = 1000
LONGEST_NAME = 100
MOST_STACKS = 16
STACKED = ("embedding", "blocks", "overrides", "final_norm")
USUAL = {"dropout": 0.0, "mask": "causal"}


class Assembler:
    """Builds one spec; `problems` holds everything that is wrong with it."""

    def __init__(self, document: Node, file: str):
        self.document, self.file = without_nulls(document), file
        self.resolver = Resolver(file)
        self.problems = self.resolver.problems
        self.fields: dict[str, Node] = self.document.value if isinstance(self.document.value, dict) else {}
        self.single = "stacks" not in self.fields

    def problem(self, key: str, message: str) -> None:
        """Remember a mistake at one of the keys of the top."""
        mark = self.fields[key].mark if key in self.fields else self.document.mark
        self.resolver.problem(mark, key, message)

    def spec(self) -> Spec | None:
        """The spec, or None when something is missing; then `problems` says what."""
        if not isinstance(self.document.value, dict):
            found = self.document.kind_name()
            self.problem("", f"a spec is a mapping (name, d_model, blocks, ...), not {found}")
            return None
        texts = {key: self.text(key) for key in ("name", "description", "source")}
        lost = self.top_keys()
        scope = self.top_scope(lost)
        around = self.around(lost)
        stacks = self.stacks(around, scope)
        if around.used is not None:
            self.check_used(around)
        head = self.head(scope, stacks[-1] if stacks else None)
        init = self.init(scope, stacks)
        expect = parse_expect(self.fields.get("expect"), self.problems)
        if self.problems or head is None or init is None or None in stacks or not stacks:
            return None
        self.check_effects(around.bodies)
        made = tuple(s for s in stacks if s is not None)
        init = init.of_model(init_names(made, head))
        vocab_size, max_seq_len = (scope.numbers.get(k) for k in ("vocab_size", "max_seq_len"))
        spec = Spec(texts["name"] or "model", made, head, init, _whole(vocab_size), _whole(max_seq_len),
                    texts["description"], texts["source"], expect, self.file)  # fmt: skip
        self.check_ties(spec, around.bodies)
        return spec

    # The top

    def text(self, key: str) -> str:
        """A text of the top; a name stands in generated code, so it holds neither quotes nor backslashes."""
        node = self.fields.get(key)
        if node is None:
            return ""
        most = LONGEST_NAME if key == "name" else LONGEST_TEXT
        wrong = set('"\\') if key == "name" else set()
        value = node.value
        if isinstance(value, str) and 0 < len(value) <= most and value.isprintable() and not wrong & set(value):
            return value
        without = ' without " and \\' if wrong else ""
        self.problem(key, must_be(key, node, f"one line of text{without}, at most {most} characters"))
        return ""

    def top_keys(self) -> set[str]:
        """Tells the keys that a spec does not have; returns those that were probably meant."""
        told = {"memory", "tie_embedding"} & self.fields.keys()
        for key in sorted(told):
            self.problem(key, f"{key} stands in a stack: stacks: {{decoder: {{{key}: encoder, ...}}}}")
        return unknown(self.document, TOP_KEYS, "", "a spec", self.problems, told)

    def top_scope(self, lost: set[str]) -> Scope:
        """Named sizes and defaults of the top."""
        scope = with_sizes(self.resolver, self.document, "", Scope(), lost & set(SIZES))
        norm = self.resolver.component("norm", from_plain("rmsnorm", self.document.mark), "norm", scope)
        scope = Scope(scope.numbers, {"norm": norm, "wiring": None}, scope.broken, scope.origins)
        return with_defaults(self.resolver, self.document, "", scope)

    # Stacks

    def around(self, lost: set[str]) -> Around:
        """The stacks by name, with what they share; a spec without `stacks` is one stack made of its own top."""
        define = definitions(self.fields.get("define"), self.problems)
        if self.single:
            keys = {k: m for k, m in self.document.keys.items() if k in STACKED}
            own = Node({k: v for k, v in self.fields.items() if k in STACKED}, self.document.mark, keys)
            bodies = {} if "stacks" in lost else {"model": own}
            return Around(self.resolver, define, bodies, {"model": lost}, used=set() if bodies else None)
        for key in STACKED:
            if key in self.fields:
                mark = self.document.keys.get(key, self.document.mark)
                message = f"{key} belongs into the stacks when there are stacks; move it there"
                self.resolver.problem(mark, key, message)
        around = Around(self.resolver, define, {})
        around.bodies = self.bodies(self.fields["stacks"], around.lost)
        return around

    def bodies(self, stacks: Node, lost: dict[str, set[str]]) -> dict[str, Node]:
        """The stacks that are mappings, by name."""
        if not isinstance(stacks.value, dict) or not stacks.value:
            self.problem("stacks", f"must map names (encoder, decoder) to stacks, not {stacks.kind_name()}")
            return {}
        if len(stacks.value) > MOST_STACKS:
            self.problem("stacks", f"at most {MOST_STACKS} stacks are allowed, found {len(stacks.value)}")
            return {}
        found = {}
        for name, body in stacks.value.items():
            path = f"stacks.{clipped(name)}"
            if wrong := bad_name(name):
                self.resolver.problem(stacks.keys.get(name, body.mark), path, f"{clipped(name)!r} {wrong}")
            body = without_nulls(body)
            if isinstance(body.value, dict):
                lost[name] = unknown(body, STACK_KEYS, path, "a stack", self.problems)
                found[name] = body
            else:
                message = f"must be a stack (embedding, blocks, ...), not {body.kind_name()}"
                self.resolver.problem(body.mark, path, message)
        return found

    def stacks(self, around: Around, scope: Scope) -> list[Stack | None]:
        """Every stack in order; None where something is wrong with one."""
        for name in around.bodies:
            path = "" if self.single else f"stacks.{clipped(name)}."
            around.made[name] = StackBuilder(around, name, path, scope).stack()
        if not self.problems:
            self.check_read(around)
        return list(around.made.values())

    def check_read(self, around: Around) -> None:
        """A problem for each stack whose output nobody reads; the head reads the last one."""
        mappings = [b.value for b in around.bodies.values() if isinstance(b.value, dict)]
        named = [m["memory"].value for m in mappings if "memory" in m]
        for name in list(around.bodies)[:-1]:
            if name not in named:
                message = "no later stack reads its output; give one `memory: " + clipped(name) + "`, or remove it"
                self.resolver.problem(around.bodies[name].mark, f"stacks.{clipped(name)}", message)

    # Head and init

    def head(self, scope: Scope, stack: Stack | None) -> HeadComponent | None:
        """The head; none where the spec says nothing."""
        node = self.fields.get("head") or from_plain("none", self.document.mark)
        if node.value is None or node.value is False:
            node = from_plain("none", node.mark)
        if stack is not None:
            width = stack.embedding.table_width
            numbers = {"d_model": stack.d_model, "d_embedding": width, "n_layers": stack.n_layers}
            scope = scope.with_numbers(numbers)
        else:
            scope = scope.with_numbers({}, scope.broken | {"d_model", "d_embedding", "n_layers"})
        found = self.resolver.component("head", node, "head", scope)
        assert found is None or isinstance(found, HeadComponent)
        return found

    def init(self, scope: Scope, stacks: list[Stack | None]) -> InitComponent | None:
        """How weights start; normal with a standard deviation of 0.02 where the spec says nothing."""
        node = self.fields.get("init") or from_plain("normal", self.document.mark)
        made = [s for s in stacks if s is not None]
        if made and stacks[-1] is not None:
            numbers = {"n_layers": made[-1].n_layers, "n_branches": made[-1].n_branches}
            scope = scope.with_numbers(numbers)
        else:
            scope = scope.with_numbers({}, scope.broken | {"n_layers", "n_branches"})
        found = self.resolver.component("init", node, "init", scope)
        assert found is None or isinstance(found, InitComponent)
        return found

    # What only the whole can say

    def own(self, mark: Mark) -> bool:
        """Whether something stands in this file, not in one that it extends."""
        return mark.file == self.file or _set_outside(mark)

    def check_used(self, around: Around) -> None:
        """A problem for each named block of this file that no layer uses and no block extends."""
        node = self.fields.get("define")
        if node is None or not isinstance(node.value, dict) or self.blocks_set(around):
            return
        bodies = [b.value for b in node.value.values() if isinstance(b.value, dict)]
        extended = [b["extends"].value for b in bodies if "extends" in b]
        assert around.used is not None
        for name, place in around.define.items():
            mark = node.keys.get(name, place.node.mark)
            if id(place.node) not in around.used and name not in extended and not place.broken and self.own(mark):
                message = "is used by no layer; remove it, or name it in blocks"
                self.resolver.problem(mark, f"define.{name}", message)

    def blocks_set(self, around: Around) -> bool:
        """Whether a setting changed which blocks are used, so that the file cannot be blamed for others."""
        found = [b.value["blocks"] for b in around.bodies.values() if isinstance(b.value, dict) and "blocks" in b.value]
        items = [item for node in found if isinstance(node.value, list) for item in node.value]
        return any(_set_outside(node.mark) for node in [*found, *items])

    def check_effects(self, bodies: Mapping[str, Node]) -> None:
        """A problem for each default and each named size of this file that nothing takes."""
        mappings = (
            {"": self.document}
            if self.single
            else {"": self.document, **{f"stacks.{k}.": v for k, v in bodies.items()}}
        )
        for path, node in mappings.items():
            assert isinstance(node.value, dict)
            # The top's max_seq_len is also the length for which a plan is made.
            for key in ("norm", "dropout", "mask", "wiring", "vocab_size", *(["max_seq_len"] if path else [])):
                given = node.value.get(key)
                if given is None or not self.own(given.mark) or given.value == USUAL.get(key, given):
                    continue
                if f"{path}{key}" not in self.resolver.reached:
                    self.resolver.problem(
                        given.mark, f"{path}{key}", "nothing takes it, so it has no effect; remove it"
                    )
        sizes = self.fields.get("sizes")
        for name, given in sizes.value.items() if sizes is not None and isinstance(sizes.value, dict) else ():
            if name not in self.resolver.read and self.own(given.mark):
                self.resolver.problem(
                    given.mark, f"sizes.{name}", "no arithmetic names it, so it has no effect; remove it"
                )

    def check_ties(self, spec: Spec, bodies: Mapping[str, Node]) -> None:
        """Refuse ties between tables that do not exist or differ in shape."""
        if spec.head.tied_shape is not None:
            node = self.fields.get("head", self.document)
            given = node.value.get("tied", node) if isinstance(node.value, dict) else node
            table = _table(spec.main)
            needed = spec.head.tied_shape
            if table is None:
                self.resolver.problem(given.mark, "head.tied", "there is no token table to tie to; set tied: false")
            elif table != needed:
                message = f"the head needs a table of {_said(needed)}, and that of the tokens is {_said(table)}"
                self.resolver.problem(given.mark, "head.tied", f"{message}; make them equal, or set tied: false")
        for stack in spec.stacks:
            other = next((s for s in spec.stacks if s.name == stack.tie_embedding), None)
            ours, theirs = _table(stack), _table(other) if other else None
            if other is not None and (ours is None or ours != theirs):
                fields = bodies[stack.name].value
                assert isinstance(fields, dict)
                message = (
                    f"tables differ: {_said(ours)} here, {_said(theirs)} in {other.name!r}; only equal ones can be tied"
                )
                self.resolver.problem(fields["tie_embedding"].mark, f"stacks.{stack.name}.tie_embedding", message)


def without_nulls(node: Node) -> Node:
    """A mapping without the keys that have no value, which are as if they were not there."""
    if not isinstance(node.value, dict) or all(child.value is not None for child in node.value.values()):
        return node
    value = {key: child for key, child in node.value.items() if child.value is not None}
    return Node(value, node.mark, {key: mark for key, mark in node.keys.items() if key in value})


def _set_outside(mark: Mark) -> bool:
    return mark.file.split(" ")[0] == "--set"


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _table(stack: Stack) -> tuple[int, ...] | None:
    path = stack.embedding.table
    return next((p.shape for op in stack.embedding.ops() for p in op.params if p.name == path), None)


def _said(table: tuple[int, ...] | None) -> str:
    return "none" if table is None else " x ".join(map(str, table))
