"""From a node of the file to a resolved component: kinds found, sizes computed, defaults inherited, every mistake kept.

Components are resolved from the outside in and validated from the inside out: the numbers of a component first (they
may be arithmetic on each other and on the scope), then the components in its slots (which see those numbers), then the
component itself by pydantic. A mistake in one place never hides a mistake in another, and never makes a second one:
what depends on a value that is wrong is passed over in silence.
"""

from collections.abc import Mapping
from typing import Any

from archspec.errors import Mark, SpecError, listed
from archspec.language.document import PLAIN
from archspec.language.filling import Filling, kind_of
from archspec.language.origins import Origins
from archspec.language.problems import Problems, join, near
from archspec.language.rules import must_be, settable, shown
from archspec.language.scope import Scope, Silent, UnknownSize, Value
from archspec.language.tree import Node, from_plain
from archspec.layers.base import Component
from archspec.layers.registry import DECLARED, find, kinds

NOWHERE = Mark("<python>")
# what stands in a place of these roles unless the spec says otherwise
USUAL = {"embedding": "token", "norm": "rmsnorm", "init": "normal"}


class Resolver:
    """Resolves components and collects every problem on the way.

    Attributes:
        problems: every mistake so far.
        reached: the paths of the defaults and sizes that some component or arithmetic took.
        read: the names of the sizes that some arithmetic or component used.
        origins: where the values of each component came from.
        missing: the sizes of the top that are told to be missing.
    """

    def __init__(self, file: str = NOWHERE.file) -> None:
        self.problems = Problems(file)
        self.reached: set[str] = set()
        self.read: set[str] = set()
        self.origins = Origins()
        self.missing: set[str] = set()

    def inherit(self, scope: Scope, name: str) -> Any:
        """The default of that name, noted as used."""
        self.reached.add(scope.origins.get(name, ""))
        return scope.defaults[name]

    def size(self, scope: Scope, name: str) -> Value:
        """The size of that name, noted as used; raises Fault where there is none."""
        if name in scope.broken:
            raise Silent
        if name not in scope.numbers:
            raise UnknownSize(name, scope.numbers)
        self.read.add(name)
        self.reached.add(scope.origins.get(name, ""))
        return scope.numbers[name]

    def plain(self, key: str, node: Node, path: str) -> Any:
        """A plain value of the document, such as a dropout rate; None after its problem was told."""
        if PLAIN[key].holds(node.value):
            return node.value
        self.problems.tell(node, join(path, key), must_be(key, node, PLAIN[key].wanted()))
        return None

    def component(
        self, role: str | tuple[str, ...], node: Node, path: str, scope: Scope, base: Component | None = None
    ) -> Component | None:
        """The component that `node` describes, or None when it is wrong (the problems are kept).

        Args:
            role: the role, or roles, that fit here.
            node: a mapping with a `kind`, or just the kind as text.
            path: where this is in the spec, for messages.
            scope: sizes and defaults that it may use.
            base: the component that stands here unless the node says otherwise; a mapping without `kind` changes it.
        """
        roles = (role,) if isinstance(role, str) else role
        if isinstance(node.value, str):
            node = Node({"kind": node}, node.mark, {"kind": node.mark})
        if not isinstance(node.value, dict):
            what = f"must be {' or '.join(map(article, roles))}, not {node.kind_name()}"
            self.problems.tell(node, path, f"{what}; write {{kind: ...}} or its name")
            return None
        cls = type(base) if base is not None and "kind" not in node.value else self._class(roles, node, path)
        return None if cls is None else Filling(self, cls, node, path, scope, base).component()

    def _class(self, roles: tuple[str, ...], node: Node, path: str) -> type[Component] | None:
        kind = node.fields.get("kind")
        known = {k: r for r in reversed(roles) for k in kinds(r)}
        if kind is None:
            return self._usual(known, node, path)
        if not isinstance(kind.value, str) or kind.value not in known:
            what = " or ".join(r.replace("_", " ") for r in roles)
            self.problems.tell(kind, f"{path}.kind", f"no {what} {shown(kind)}{_meant(kind.value, known)}")
            return None
        return find(known[kind.value], kind.value)

    def _usual(self, known: Mapping[str, str], node: Node, path: str) -> type[Component] | None:
        """The class of a component that says no kind: the usual one of its role, unless another was plainly meant."""
        typo = next((key for key in node.fields if near(key, ("kind",))), "")
        usual = next((find(role, USUAL[role]) for role in known.values() if role in USUAL), None)
        if not typo and usual is not None and node.fields.keys() <= set(settable(usual)):
            return usual
        classes = [] if typo else [find(role, kind) for kind, role in known.items()]
        fit = [kind_of(cls) for cls in classes if node.fields and node.fields.keys() <= set(settable(cls))]
        if usual is not None and not typo and not fit:
            return usual
        advice = f"known: {', '.join(sorted(known))}"
        if typo:
            advice = f"write kind in the place of {typo}"
        elif fit:
            have = f"{' and '.join(list(node.fields)[:3])}: {', '.join(sorted(fit))}"
            advice = f"{'the only one' if len(fit) == 1 else 'those'} with {have}"
        self.problems.tell(node.key_mark(typo), path, f"needs a kind; {advice}")
        return None


def _meant(kind: object, known: Mapping[str, str]) -> str:
    """What was probably meant by a kind that does not fit here."""
    word = kind if isinstance(kind, str) else ""
    role = next((r for r in DECLARED if word in kinds(r)), "")
    right = near(word, known)
    if role:
        return f"; that is {article(role)}"
    return f"; did you mean {right!r}?" if right else listed(known)


def article(role: str) -> str:
    """`an embedding`, `a mixer`."""
    word = role.replace("_", " ")
    return f"{'an' if word[0] in 'aeiou' or word == 'ffn' else 'a'} {word}"


def make(role: str, fields: Mapping[str, Any] | str, **scope: Any) -> Component:
    """A component from plain Python data, for scripts and tests.

    Args:
        role: the role of the component, for example "mixer".
        fields: its `kind` and settings, as in a spec.
        scope: named sizes (d_model=64), and defaults (norm=a component or its fields, dropout, mask, gives, reads).

    Raises:
        SpecError: with every problem found.
    """
    resolver = Resolver()
    norm = scope.pop("norm", "rmsnorm")
    defaults: dict[str, Any] = {key: scope.pop(key) for key in ("dropout", "mask", "gives", "reads") if key in scope}
    written = {k: v for k, v in norm.items() if k != "kind"} if isinstance(norm, Mapping) else {}
    if not isinstance(norm, Component):
        norm = resolver.component("norm", from_plain(norm, NOWHERE), "norm", Scope(scope))
    numbers = {"n_layers": 1, "n_branches": 2, **scope}
    around = Scope(numbers, {"norm": norm, **defaults}, origins={"norm": "norm"}, norm=written)
    found = resolver.component(role, from_plain(fields, NOWHERE), role, around)
    if found is None or resolver.problems:
        raise SpecError(resolver.problems, NOWHERE.file)
    return found
