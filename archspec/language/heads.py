"""The heads of a spec: one under `head`, whose answer is the model's, or several under `heads`, each with a name."""

from collections.abc import Collection
from typing import Any

from archspec.errors import suggest
from archspec.language.document import HEAD_KEYS
from archspec.language.filling import absent
from archspec.language.model import Head, Stack
from archspec.language.names import bad_name
from archspec.language.origins import given
from archspec.language.problems import near
from archspec.language.rules import settable
from archspec.language.scope import Scope
from archspec.language.section import Section
from archspec.language.topics import see
from archspec.language.tree import Node, clipped, from_plain
from archspec.layers.base import HeadComponent
from archspec.layers.registry import find, kinds

MOST_HEADS = 64
SUM = "total"  # what a loss calls the weighted sum of those of all heads


class HeadsReader(Section):
    """The heads at the top of a spec; `stack` is the one that they read, None where something is wrong with it."""

    def __init__(self, top: Section, stack: Stack | None, stacks: Collection[str]):
        super().__init__(top.resolver, top.node, "", _around(top.scope, stack))
        self.stack, self.taken = stack, {*stacks}

    def heads(self) -> tuple[Head, ...]:
        """All of them; none where something is wrong. Where the spec says nothing the hidden states are the answer."""
        if "heads" in self.fields:
            return self._named(self.fields["heads"])
        node = self.fields.get("head", self.node)
        node = from_plain("none", node.mark) if node is self.node or absent(node) else node
        for key in HEAD_KEYS.keys() & node.fields.keys():
            message = (
                f"{key} is for heads by name, whose model has a loss; write heads: {{NAME: {{...}}}}{see('heads')}"
            )
            self.problems.tell(node.key_mark(key), f"head.{key}", message)
        node = node.without(HEAD_KEYS)
        found = self.component(HeadComponent, "head", node)
        return () if found is None else (Head("", found),)

    def _named(self, node: Node) -> tuple[Head, ...]:
        """The heads by name, in order."""
        if "head" in self.fields:
            self.tell("head", f"there are heads by name too; give it a name and move it into heads{see('heads')}")
        entries = {k: child for k, child in node.fields.items() if child.value is not None}
        if not isinstance(node.value, dict) or not entries:
            found = "an empty mapping" if isinstance(node.value, dict) else node.kind_name()
            self.tell("heads", f"must map names to heads, not {found}{see('heads')}")
            return ()
        if len(entries) > MOST_HEADS:
            self.tell("heads", f"at most {MOST_HEADS} heads are allowed, found {len(entries)}")
            return ()
        heads = [self._entry(name, child) for name, child in entries.items() if self._is_free(name, node)]
        return tuple(head for head in heads if head is not None) if None not in heads else ()

    def _is_free(self, name: str, node: Node) -> bool:
        """Whether a head can have a name; tells why not."""
        wrong = bad_name(name)
        if name == SUM:
            wrong = "is what a loss calls the sum of all; choose another"
        elif f"{name}_head" in self.taken:
            wrong = f"makes a module {name}_head, as the stack of that name does; choose another"
        if wrong:
            self.problems.tell(node.key_mark(name), f"heads.{clipped(name)}", f"{clipped(name)!r} {wrong}")
        return not wrong

    def _entry(self, name: str, node: Node) -> Head | None:
        """One head with how it is trained."""
        path = f"heads.{name}"
        training = {key: child for key, child in node.fields.items() if key in HEAD_KEYS and child.value is not None}
        rest = node.without(HEAD_KEYS) if isinstance(node.value, dict) else node
        rest = from_plain("none", node.mark) if absent(node) else self._known(rest, path)
        found = self.resolver.component("head", rest, path, self.scope)
        said: dict[str, Any] = {key: self.resolver.plain(key, child, path) for key, child in training.items()}
        for key, child in training.items():
            self.resolver.origins.places[f"{path}.{key}"] = given(child, said[key])
        if not isinstance(found, HeadComponent) or None in said.values():
            return None
        head = Head(name, found, float(said.get("loss_weight", 1.0)), said.get("ahead", 1), said.get("reads", ""))
        fits = self._looks_further(head, training), self._reads_what_is_given(head, training)
        return head if all(fits) else None

    def _reads_what_is_given(self, head: Head, training: dict[str, Node]) -> bool:
        """Whether a layer gives what the head reads; tells what is wrong."""
        if not head.reads or self.stack is None:
            return True
        wrong = ""
        if self.taken:
            wrong = "heads read the output of the last stack where there are several; remove reads"
        elif head.reads not in self.stack.given:
            known = suggest(head.reads, self.stack.given) if self.stack.given else "; none gives any"
            wrong = f"no layer gives {clipped(head.reads)!r}{known}{see('between')}"
        elif any(link.name == head.reads and link.part for la in self.stack.layers for link in la.block.gives):
            wrong = f"{head.reads!r} is no value of a wiring, of d_model numbers a token, as a head reads"
        if wrong:
            self.problems.tell(training["reads"], f"{head.path}.reads", wrong)
        return not wrong

    def _known(self, node: Node, path: str) -> Node:
        """The fields of a head without those that were meant to say how it is trained, which are told."""
        fields = {name for kind in kinds("head") for name in settable(find("head", kind))}
        meant = {key: near(key, HEAD_KEYS) for key in node.fields if key not in fields}
        for key, right in [(key, right) for key, right in meant.items() if right]:
            message = f"one of heads has no {clipped(key)!r}; did you mean {right!r}?"
            self.problems.tell(node.key_mark(key), f"{path}.{clipped(key)}", message)
        return node.without([key for key, right in meant.items() if right])

    def _looks_further(self, head: Head, training: dict[str, Node]) -> bool:
        """Whether `ahead` does something where it is said; tells why not."""
        sees = self.stack is not None and self.stack.looks_ahead
        if head.ahead == 1 or (head.component.names_next and not sees):
            return True
        kind = head.component.kind
        why = "the stack sees later tokens" if head.component.names_next else f"{kind} names no later token"
        self.problems.tell(training["ahead"], f"{head.path}.ahead", f"ahead has no effect: {why}; remove it")
        return False


def _around(scope: Scope, stack: Stack | None) -> Scope:
    """The sizes that a head may use, those of the stack that it reads among them."""
    sizes = ("d_model", "d_embedding", "n_layers")
    numbers = (stack.d_model, stack.embedding.table_width, stack.n_layers) if stack else ()
    return scope.with_numbers(dict(zip(sizes, numbers, strict=False)), () if stack else sizes)
