"""The document of a spec made into a `Spec`: sizes and defaults first, then stacks, then the heads."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from archspec.errors import Mark, Problem, in_order
from archspec.language.document import SHARED, SIZES, STACK_KEYS, STACKED, TOP_KEYS
from archspec.language.doubts import doubts
from archspec.language.expect import parse_expect
from archspec.language.filling import absent
from archspec.language.heads import HeadsReader
from archspec.language.init_names import init_names
from archspec.language.inputs import check_inputs, parse_inputs
from archspec.language.model import Spec, Stack
from archspec.language.names import bad_name
from archspec.language.origins import Origin, given
from archspec.language.places import at_home, definitions
from archspec.language.resolve import Resolver
from archspec.language.rules import must_be
from archspec.language.scope import Scope
from archspec.language.section import Section
from archspec.language.sizes import with_sizes
from archspec.language.stack import Around, StackBuilder
from archspec.language.topics import see
from archspec.language.tree import Node, clipped
from archspec.layers.base import NormComponent
from archspec.layers.starting import InitComponent
from archspec.layers.vocabulary import VocabularyComponent

LONGEST_TEXT = 1000
LONGEST_NAME = 100
MOST_STACKS = 16
USUAL = {"dropout": 0.0, "mask": "causal"}


class Assembler(Section):
    """Builds one spec; `problems` holds everything that is wrong with it."""

    def __init__(self, document: Node, file: str, files: tuple[str, ...] = ()):
        super().__init__(Resolver(file), without_nulls(document), "", Scope())
        self.file, self.files = file, files
        self.single = "stacks" not in self.fields
        self.implied: Node | None = None  # the vocab_size that the vocabulary gives

    def spec(self) -> Spec | None:
        """The spec, or None when something is missing; then `problems` says what."""
        if not isinstance(self.node.value, dict):
            self.tell("", f"a spec is a mapping (name, d_model, blocks, ...), not {self.node.kind_name()}")
            return None
        texts = {key: self.text(key) for key in ("name", "description", "source")}
        lost = self.top_keys()
        vocabulary = self.vocabulary(lost)
        self.scope = with_sizes(self.resolver, self.node, "", Scope(), lost & set(SIZES))
        vocabulary = self.fitting(vocabulary)
        norm = self.component(NormComponent, "norm", Node({}, self.node.mark))
        self.scope = self.scope.with_defaults({"norm": norm, "wiring": None}, {})
        self.take_defaults(SHARED[3:])
        around = self.around(lost)
        stacks = self.stacks(around)
        if around.used is not None:
            self.check_used(around)
        heads = HeadsReader(self, stacks[-1] if stacks else None, () if self.single else around.bodies).heads()
        init = self.init(stacks)
        expect = parse_expect(self.fields.get("expect"), self.problems)
        inputs = parse_inputs(self.fields.get("inputs"), self.problems)
        if self.problems or not heads or init is None or None in stacks or not stacks:
            return None
        self.check_effects(around.bodies)
        made = tuple(s for s in stacks if s is not None)
        start = init.of_model(init_names(made, heads))
        self.note_origins(init, start, made)
        vocab_size, max_seq_len = (_whole(self.scope.numbers.get(key)) for key in ("vocab_size", "max_seq_len"))
        spec = Spec(texts["name"] or "model", made, heads, start, vocab_size, max_seq_len,
                    texts["description"], texts["source"], expect, self.file, self.files, inputs,
                    vocabulary=vocabulary, folder=self.folder(), origins=self.resolver.origins)  # fmt: skip
        check_inputs(spec, self.fields.get("inputs"), self.problems)
        self.check_arguments(spec)
        self.check_ties(spec, around.bodies)
        self.check_doubts(spec, around.bodies)
        return replace(spec, warnings=self.in_place(self.problems.warnings))

    def note_origins(self, before: InitComponent, init: InitComponent, stacks: Iterable[Stack]) -> None:
        """Where the init, and the sizes of the top and of each stack, came from."""
        origins = self.resolver.origins
        origins.note(init, origins.of(before))
        for key in SIZES:
            if key in self.fields:
                node = self.fields[key]
                said = (
                    Origin("inherited", "vocabulary") if node is self.implied else given(node, self.scope.numbers[key])
                )
                origins.places[key] = said
        for stack in () if self.single else stacks:
            own = self.fields["stacks"].fields[stack.name].fields
            for key in SIZES:
                origin = given(own[key], None) if key in own else Origin("inherited", key)
                origins.places[f"{stack.name}.{key}"] = origin

    def in_place(self, problems: Iterable[Problem]) -> tuple[Problem, ...]:
        """Problems, or warnings, in order, each told once and of the definition in which it stands."""
        return in_order(at_home(problem, self.fields.get("define")) for problem in problems)

    # The top

    def text(self, key: str) -> str:
        """A text of the top; a name stands in generated code, so it holds neither quotes nor backslashes."""
        node = self.fields.get(key)
        if node is None:
            return ""
        most, wrong = (LONGEST_NAME, set('"\\')) if key == "name" else (LONGEST_TEXT, set[str]())
        value = node.value
        if isinstance(value, str) and 0 < len(value) <= most and value.isprintable() and not wrong & set(value):
            return value
        without = ' without " and \\' if wrong else ""
        self.tell(key, must_be(key, node, f"one line of text{without}, at most {most} characters"))
        return ""

    def top_keys(self) -> set[str]:
        """Tells the keys that a spec does not have; returns those that were probably meant."""
        told = sorted((STACK_KEYS.keys() - TOP_KEYS.keys()) & self.fields.keys())
        for key in told:
            self.tell(key, f"{key} stands in a stack: stacks: {{decoder: {{{key}: encoder, ...}}}}")
        return self.problems.unknown(self.node, TOP_KEYS, "", "a spec", told)

    # The vocabulary

    def vocabulary(self, lost: set[str]) -> VocabularyComponent | None:
        """The vocabulary, or None; where vocab_size is not written, it is added here (or `lost`, where that failed)."""
        node = self.fields.get("vocabulary")
        if node is None or absent(node):
            return None
        found = self.component(VocabularyComponent, "vocabulary")
        if found is None:
            lost.add("vocab_size")
        elif "vocab_size" not in self.fields:
            self.implied = Node(found.vocab_size, node.mark)
            keys = {**self.node.keys, "vocab_size": self.node.key_mark("vocabulary")}
            self.node = Node({**self.fields, "vocab_size": self.implied}, self.node.mark, keys)
            self.fields = self.node.fields
        return found

    def fitting(self, found: VocabularyComponent | None) -> VocabularyComponent | None:
        """The vocabulary, unless vocab_size is another than it has: refused, or as a setting taken in its place."""
        said = self.scope.numbers.get("vocab_size")
        if found is None or said is None or said == found.vocab_size:
            return found
        padded = "" if found.vocab_size == found.n_ids else f", padded to {found.vocab_size}"
        differs = f"vocab_size = {said} is not that of the vocabulary, which has {found.n_ids} tokens{padded}"
        given = self.fields["vocab_size"]
        if _set_outside(given.mark) and not _set_outside(self.fields["vocabulary"].mark):
            self.problems.warn(given, "vocab_size", f"{differs} and is left out")
            return None
        whole = isinstance(said, int) and said >= found.n_ids
        wish = f"remove one of the two{f', or write pad_to_multiple_of: {said} into the vocabulary' if whole else ''}"
        self.tell("vocab_size", f"{differs}; {wish}")
        return None

    def folder(self) -> str:
        """The folder of the file in which the vocabulary's own file is named."""
        node = self.fields.get("vocabulary", self.node)
        mark = node.fields.get("file", node).mark
        return os.path.dirname(self.file if _set_outside(mark) else mark.file)

    # Stacks

    def around(self, lost: set[str]) -> Around:
        """The stacks by name, with what they share; a spec without `stacks` is one stack made of its own top."""
        define = definitions(self.fields.get("define"), self.problems)
        if self.single:
            bodies = {} if "stacks" in lost else {"model": self.node.only(STACKED)}
            used: set[int] | None = set() if bodies else None
            return Around(self.resolver, define, bodies, {"model": lost}, used=used, heads=self.read_by_heads())
        for key in [key for key in STACKED if key in self.fields]:
            message = f"{key} belongs into the stacks when there are stacks; move it there{see('stacks')}"
            self.problems.tell(self.node.key_mark(key), key, message)
        around = Around(self.resolver, define)
        around.bodies = dict(self.bodies(self.fields["stacks"], around.lost))
        return around

    def read_by_heads(self) -> frozenset[str]:
        """The values of layers that heads name, right or wrong."""
        heads = self.fields["heads"].fields.values() if "heads" in self.fields else ()
        named = (head.fields["reads"].value for head in heads if "reads" in head.fields)
        return frozenset(value for value in named if isinstance(value, str))

    def bodies(self, stacks: Node, lost: dict[str, set[str]]) -> Iterator[tuple[str, Node]]:
        """The stacks that are mappings, by name."""
        if not isinstance(stacks.value, dict) or not stacks.value:
            self.tell("stacks", f"must map names (encoder, decoder) to stacks, not {stacks.kind_name()}{see('stacks')}")
        elif len(stacks.value) > MOST_STACKS:
            self.tell("stacks", f"at most {MOST_STACKS} stacks are allowed, found {len(stacks.value)}")
            return
        for name, body in stacks.fields.items():
            path = f"stacks.{clipped(name)}"
            if wrong := bad_name(name):
                self.problems.tell(stacks.key_mark(name), path, f"{clipped(name)!r} {wrong}")
            if isinstance(body.value, dict):
                found = without_nulls(body)
                lost[name] = self.problems.unknown(found, STACK_KEYS, path, "a stack")
                yield name, found
            else:
                self.problems.tell(body, path, f"must be a stack (embedding, blocks, ...), not {body.kind_name()}")

    def stacks(self, around: Around) -> list[Stack | None]:
        """Every stack in order; None where something is wrong with one. The head reads the last, `memory` others."""
        for name in around.bodies:
            path = "" if self.single else f"stacks.{clipped(name)}"
            around.made[name] = StackBuilder(around, name, path, self.scope).stack()
        read = [body.fields["memory"].value for body in around.bodies.values() if "memory" in body.fields]
        for name in [] if self.problems else list(around.bodies)[:-1]:
            if name not in read:
                message = f"no later stack reads its output; give one `memory: {clipped(name)}`, or remove it"
                self.problems.tell(around.bodies[name], f"stacks.{clipped(name)}", message)
        return list(around.made.values())

    # Init

    def init(self, stacks: list[Stack | None]) -> InitComponent | None:
        """How weights start; normal with a standard deviation of 0.02 where the spec says nothing."""
        node = self.fields.get("init") or Node({}, self.node.mark)
        last = stacks[-1] if stacks else None
        sizes = ("d_model", "n_layers", "n_branches")
        numbers = (last.d_model, last.n_layers, last.n_branches) if last else ()
        scope = self.scope.with_numbers(dict(zip(sizes, numbers, strict=False)), () if last else sizes)
        return self.component(InitComponent, "init", node, scope=scope)

    # What only the whole can say

    def own(self, mark: Mark) -> bool:
        """Whether something stands in this file, not in one that it extends."""
        return mark.file == self.file or _set_outside(mark)

    def check_used(self, around: Around) -> None:
        """A warning for each named block of this file that no layer uses and no block extends."""
        named = [body.fields["blocks"] for body in around.bodies.values() if "blocks" in body.fields]
        items = [item for node in named if isinstance(node.value, list) for item in node.value]
        if any(_set_outside(node.mark) for node in [*named, *items]):
            return  # a setting changed which blocks are used, so the file cannot be blamed for others
        node = self.fields.get("define", self.node)
        extended = [body.fields["extends"].value for body in node.fields.values() if "extends" in body.fields]
        for name, place in around.define.items():
            used = around.used is None or id(place.node) in around.used or name in extended or place.broken
            if not used and self.own(node.key_mark(name)):
                self.problems.warn(node.key_mark(name), f"define.{name}", "is used by no layer")

    def check_effects(self, bodies: Mapping[str, Node]) -> None:
        """A problem for each default, and a warning for each named size, of this file that nothing takes."""
        sections = {"": self.node} | ({} if self.single else {f"stacks.{k}.": v for k, v in bodies.items()})
        for path, node in sections.items():
            # The top's max_seq_len is also the length for which a plan is made.
            for key in [k for k in SHARED if k in node.fields and k != "d_model" and (path or k != "max_seq_len")]:
                given = node.fields[key]
                usual = key in USUAL and given.value == USUAL[key]
                if self.own(given.mark) and not usual and f"{path}{key}" not in self.resolver.reached:
                    said = "vocabulary" if given is self.implied else f"{path}{key}"
                    self.problems.tell(given, said, "nothing takes it, so it has no effect; remove it")
        sizes = self.fields.get("sizes")
        for name, given in sizes.fields.items() if sizes is not None else ():
            if name not in self.resolver.read and self.own(given.mark):
                self.problems.warn(given, f"sizes.{name}", "no arithmetic names it, so it has no effect")

    def check_doubts(self, spec: Spec, bodies: Mapping[str, Node]) -> None:
        """A warning for what only the whole shows to have no effect, or hardly the one that was meant."""
        for stack, key, message in doubts(spec):
            body, path = (self.node, key) if self.single or not stack else (bodies[stack], f"stacks.{stack}.{key}")
            self.problems.warn(_below(body, key), path, message)

    def check_arguments(self, spec: Spec) -> None:
        """Refuse two arguments of forward with one name, as channels of stacks can make them."""
        names = [a.name for a in spec.arguments]
        for twice in sorted({name for name in names if names.count(name) > 1}):
            self.tell("stacks", f"forward would have two arguments called {twice}; rename a channel or a stack")

    def check_ties(self, spec: Spec, bodies: Mapping[str, Node]) -> None:
        """Refuse ties between tables that do not exist or differ in shape."""
        table = _table(spec.main)
        for head in spec.heads:
            needed = head.component.tied_shape
            if needed is None or table == needed:
                continue
            node = _below(self.node, head.path)
            differs = f"the head needs a table of {_said(needed)}, and that of the tokens is {_said(table)}"
            none = "there is no token table to tie to; set tied: false"
            message = none if table is None else f"{differs}; make them equal, or set tied: false"
            self.problems.tell(node.fields.get("tied", node), f"{head.path}.tied", message)
        for stack in spec.stacks:
            other = next((s for s in spec.stacks if s.name == stack.tie_embedding), None)
            ours, theirs = _table(stack), _table(other) if other else None
            if other is not None and (ours is None or ours != theirs):
                found = f"tables differ: {_said(ours)} here, {_said(theirs)} in {other.name!r}"
                node, path = bodies[stack.name].fields["tie_embedding"], f"stacks.{stack.name}.tie_embedding"
                self.problems.tell(node, path, f"{found}; only equal ones can be tied")


def without_nulls(node: Node) -> Node:
    """A mapping without the keys that have no value, which are as if they were not there."""
    return node.without([key for key, child in node.fields.items() if child.value is None])


def _below(node: Node, path: str) -> Node:
    """What stands at a path below a mapping, as far as the path goes."""
    for key in path.split("."):
        node = node.fields.get(key, node)
    return node


def _set_outside(mark: Mark) -> bool:
    return mark.file.split(" ")[0] == "--set"


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _table(stack: Stack) -> tuple[int, ...] | None:
    """The shape of the token table of a stack; None where it has none."""
    table = stack.embedding.table
    return next((p.shape for op in stack.embedding.ops() for p in op.params if p.name == table), None)


def _said(table: tuple[int, ...] | None) -> str:
    return "none" if table is None else " x ".join(map(str, table))
