"""From a node of the file to a resolved component: kinds found, sizes computed, defaults inherited, every mistake kept.

Components are resolved from the outside in and validated from the inside out: the numbers of a component first (they
may be arithmetic on each other and on the scope), then the components in its slots (which see those numbers), then the
component itself by pydantic. A mistake in one place never hides a mistake in another, and never makes a second one:
what depends on a value that is wrong is passed over in silence.
"""

from collections.abc import Mapping
from math import prod
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from archspec.errors import Fault, Mark, Problem, SpecError, listed
from archspec.language.arithmetic import evaluate
from archspec.language.keys import Problems, near, unknown
from archspec.language.scope import Scope, Silent, UnknownSize
from archspec.language.source import Node, from_plain
from archspec.language.values import (
    Value,
    article,
    bare,
    empty,
    fit,
    fits,
    freeze,
    kind_of,
    limits,
    must_be,
    nullable,
    numeric,
    settable,
    shown,
    size_formula,
    wanted,
)
from archspec.layers.base import Component, NormComponent
from archspec.layers.fields import extra
from archspec.layers.registry import ROLES, find, kinds

__all__ = ["Resolver", "Scope", "Value", "bare", "fit", "kind_of", "limits", "make", "nullable", "numeric", "settable",
           "shown", "wanted"]  # fmt: skip

NOWHERE = Mark("<python>")
GIVEN_BY_SPEC = ("d_model", "vocab_size", "max_seq_len")
LARGE = 2**20  # three sizes up to this make no tensor that is too large
MOST_ELEMENTS = 2**63 - 1


class Resolver:
    """Resolves components and collects every problem on the way.

    Attributes:
        problems: every mistake so far.
        reached: the paths of the defaults and sizes that some component or arithmetic took.
        read: the names of the sizes that some arithmetic or component used.
    """

    def __init__(self, file: str = NOWHERE.file) -> None:
        self.problems: list[Problem] = Problems(file)
        self.reached: set[str] = set()
        self.read: set[str] = set()
        self.missing: set[str] = set()

    def problem(self, mark: Mark, path: str, message: str) -> None:
        """Remember one mistake."""
        self.problems.append(Problem(mark, path, message))

    def inherit(self, scope: Scope, name: str) -> Any:
        """The default of that name, noted as used."""
        self.reached.add(scope.origins.get(name, ""))
        return scope.defaults[name]

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
            what = " or ".join(map(article, roles))
            self.problem(node.mark, path, f"must be {what}, not {node.kind_name()}; write {{kind: ...}} or its name")
            return None
        cls = self._class(roles, node, path, base)
        return None if cls is None else _Filling(self, cls, node, path, scope, base).component()

    def _class(self, roles: tuple[str, ...], node: Node, path: str, base: Component | None) -> type[Component] | None:
        assert isinstance(node.value, dict)
        kind = node.value.get("kind")
        known = {k: r for r in reversed(roles) for k in kinds(r)}
        if kind is None and base is not None:
            return type(base)
        if kind is None:
            typo = next((key for key in node.value if near(key, ("kind",))), "")
            message = f"write kind in the place of {typo}" if typo else f"known: {', '.join(sorted(known))}"
            self.problem(node.keys.get(typo, node.mark), path, f"needs a kind; {message}")
            return None
        if not isinstance(kind.value, str) or kind.value not in known:
            what = " or ".join(r.replace("_", " ") for r in roles)
            self.problem(kind.mark, f"{path}.kind", f"no {what} {shown(kind)}{_meant(kind.value, known)}")
            return None
        return find(known[kind.value], kind.value)


def _meant(kind: object, known: Mapping[str, str]) -> str:
    """What was probably meant by a kind that does not fit here."""
    word = kind if isinstance(kind, str) else ""
    role = next((r for r in ROLES if word in kinds(r)), "")
    right = near(word, known)
    if role:
        return f"; that is {article(role)}"
    return f"; did you mean {right!r}?" if right else listed(known)


class _Filling:
    """One component while its fields are being filled in."""

    def __init__(
        self, resolver: Resolver, cls: type[Component], node: Node, path: str, scope: Scope, base: Component | None
    ):
        assert isinstance(node.value, dict)
        self.resolver, self.cls, self.node, self.path, self.scope = resolver, cls, node, path, scope
        self.given: dict[str, Node] = {k: v for k, v in node.value.items() if k in cls.model_fields}
        self.base = base if type(base) is cls else None
        if self.base is not None and self.base is scope.defaults.get("norm"):
            resolver.inherit(scope, "norm")
        self.values: dict[str, Any] = {}
        self.failed: set[str] = set()
        self.pending: list[str] = []

    def component(self) -> Component | None:
        """The component, or None after its problems were kept."""
        assert isinstance(self.node.value, dict)
        if len(self.given) < len(self.node.value):  # some key is no field
            what = kind_of(self.cls)
            told = self.cls.model_fields.keys() - set(settable(self.cls))
            meant = unknown(self.node, settable(self.cls), self.path, what, self.resolver.problems, told)
            self.failed |= {""} | (meant - self.given.keys())
        slots = [(name, info) for name, info in self.cls.model_fields.items() if "slot" in extra(info)]
        for name in self.cls.model_fields:
            if "slot" not in extra(self.cls.model_fields[name]):
                self._fill(name)
        numbers = {k: v for k, v in self.values.items() if numeric(self.cls, k) and v is not None}
        inner = self.scope.with_numbers(numbers, {name for name in self.failed if name})
        for name, info in slots:
            self._slot(name, info, inner)
        self._refuse_idle()
        return self._validate()

    # Plain fields

    def _fill(self, name: str) -> None:
        if name in self.values or name in self.failed:
            return
        try:
            value = self._value(name, self.cls.model_fields[name])
            if value is not ... and numeric(self.cls, name) and not fits(self.cls, name, value):
                raise Fault(self._unfit(name, value))
        except Fault as fault:
            self._fail(name, str(fault))
        else:
            if value is not ...:
                self.values[name] = value

    def _unfit(self, name: str, value: Any) -> str:
        info = self.cls.model_fields[name]
        node = self.given.get(name)
        formula = extra(info).get("formula") if node is None else node.value
        if isinstance(formula, str) and formula.strip() and formula.strip() != shown(value):
            return f"{name} = {formula} = {shown(value)} must be {wanted(info, value)}"
        return must_be(name, node or Node(value, self.node.mark), wanted(info, value))

    def _value(self, name: str, info: FieldInfo) -> Any:
        marks = extra(info)
        if marks.get("inherited"):
            return self._inherited(name, info)
        if name in self.given:
            return self._given(name, self.given[name])
        if self.base is not None and self._acts(name):
            return getattr(self.base, name)
        if "formula" in marks:
            return self._arithmetic(name, marks["formula"])
        if marks.get("inherit") in self.scope.defaults and self._acts(name):
            return self.resolver.inherit(self.scope, marks["inherit"])
        return ... if info.is_required() else info.get_default(call_default_factory=True)

    def _inherited(self, name: str, info: FieldInfo) -> Value:
        if name in self.given:
            raise Fault(f"{name} comes from the surrounding spec and is not set here; remove it")
        source = "d_model" if name == "d_memory" and not self._known(name) else name
        if not self._known(source):
            self._need(source, info.description or "")
        return self._number(source)

    def _known(self, name: str) -> bool:
        return name in self.scope.numbers or name in self.scope.broken

    def _need(self, name: str, description: str = "") -> None:
        """Tells, once for a spec, that its top lacks a size."""
        if name not in self.resolver.missing:
            self.resolver.missing.add(name)
            what = f" ({description})" if description else ""
            message = f"{kind_of(self.cls)} needs {name}{what}; set it at the top of the spec"
            self.resolver.problem(self.node.mark, self.path, message)
        raise Silent

    def _number(self, name: str) -> Value:
        if name in self.scope.broken:
            raise Silent
        self.resolver.read.add(name)
        self.resolver.reached.add(self.scope.origins.get(name, ""))
        return self.scope.numbers[name]

    def _given(self, name: str, node: Node) -> Any:
        if numeric(self.cls, name) and isinstance(node.value, str) and not empty(node):
            if node.value == "none" and nullable(self.cls, name):
                return None
            try:
                return self._arithmetic(name, node.value)
            except UnknownSize as fault:
                if fault.name != node.value.strip():
                    raise
                what = wanted(self.cls.model_fields[name])
                unknown_size = f"no size {fault.name!r} is known here{fault.near}"
                raise Fault(f"{must_be(name, node, what)}; {unknown_size}") from None
        if numeric(self.cls, name) and isinstance(node.value, dict):
            return self._arithmetic(name, size_formula(node))
        return freeze(node.plain())

    def _arithmetic(self, name: str, formula: str) -> int | float:
        if name in self.pending:
            circle = [*self.pending[self.pending.index(name) :], name]
            raise Fault(f"{name} depends on itself: {' -> '.join(circle)}")
        self.pending.append(name)
        try:
            value = evaluate(formula, self._lookup)
        finally:
            self.pending.pop()
        return fit(name, formula, value, numeric(self.cls, name) is int)

    def _lookup(self, name: str) -> Value:
        if numeric(self.cls, name):
            return self._own_number(name)
        if self._known(name):
            return self._number(name)
        if name in GIVEN_BY_SPEC:
            self._need(name)
        known = {*self.scope.numbers, *(k for k in self.cls.model_fields if numeric(self.cls, k))}
        raise UnknownSize(name, known - set(self.pending))

    def _own_number(self, name: str) -> Value:
        self._fill(name)
        value = self.values.get(name)
        if name in self.values and value is None:
            raise Fault(f"{name} is not set here")
        if name in self.failed or value is None:
            raise Silent
        return value

    # Slots

    def _slot(self, name: str, info: FieldInfo, scope: Scope) -> None:
        if name in self.failed:
            return
        marks = extra(info)
        default = self._slot_default(name, marks, scope)
        node = self.given.get(name)
        if node is None:
            if default is not ...:
                self.values[name] = default
            return
        if node.value is None or node.value == "none" or node.value is False:
            if info.is_required():
                self._fail(name, f"{name} cannot be left out here; {info.description}")
            self.values[name] = None
            return
        base = default if isinstance(default, Component) else None
        found = self.resolver.component(marks["slot"], node, f"{self.path}.{name}", scope, base)
        if found is None:
            self.failed.add(name)
        self.values[name] = found

    def _slot_default(self, name: str, marks: dict[str, Any], scope: Scope) -> Any:
        if self.base is not None:
            return getattr(self.base, name)
        if "component" in marks:
            node = from_plain(marks["component"], self.node.mark)
            return self.resolver.component(marks["slot"], node, f"{self.path}.{name}", scope)
        if marks.get("inherit") in scope.defaults:
            inherited = marks["inherit"]
            if not self._acts(name):  # the same whatever surrounds it: what does nothing tells no components apart
                return self.resolver.component(marks["slot"], from_plain("rmsnorm", self.node.mark), self.path, Scope())
            return scope.defaults[inherited] if name in self.given else self.resolver.inherit(scope, inherited)
        info = self.cls.model_fields[name]
        return ... if info.is_required() else info.default

    # Checks

    def _acts(self, name: str) -> bool:
        when = extra(self.cls.model_fields[name]).get("when")
        if not when:
            return True
        other, *values = when
        if "slot" not in extra(self.cls.model_fields[other]):
            self._fill(other)
        found = self.values.get(other)
        return found in values if values else bool(found)

    def _refuse_idle(self) -> None:
        for name, node in self.given.items():
            info = self.cls.model_fields[name]
            when = extra(info).get("when")
            if name in self.failed or not when or when[0] in self.failed or self._acts(name):
                continue
            if not info.is_required() and self.values.get(name) == info.default:
                continue
            other, *values = when
            wish = f"set {other} to {' or '.join(map(shown, values))}" if values else f"set {other}"
            found = self.values.get(other)
            is_now = "none" if found in (None, False) else shown(found).strip("'")
            message = f"{name} has no effect when {other} is {is_now}; remove it, or {wish}"
            self.resolver.problem(self.node.keys.get(name, node.mark), f"{self.path}.{name}", message)
            self.failed.add("")

    def _validate(self) -> Component | None:
        usable = {k: v for k, v in self.values.items() if k not in self.failed}
        try:
            component = self.cls.model_validate(usable)
        except ValidationError as error:
            for e in error.errors(include_url=False):
                self._translate(e["loc"], e["type"], e["msg"])
            return None
        return None if self.failed or self._too_large(component) else component

    def _too_large(self, component: Component) -> bool:
        sizes = [v for k, v in self.values.items() if isinstance(v, int) and v > LARGE]
        if not sizes or isinstance(component, NormComponent):
            return False
        for op in component.ops():
            for param in op.params:
                if prod(param.shape) > MOST_ELEMENTS:
                    shape = " x ".join(map(str, param.shape))
                    message = f"{param.name} would hold {shape} numbers; no tensor can hold {MOST_ELEMENTS + 1} or more"
                    self.resolver.problem(self.node.mark, self.path, message)
                    return True
        return False

    def _translate(self, loc: tuple[int | str, ...], kind: str, text: str) -> None:
        if not loc:
            if not self.failed:
                self.resolver.problem(self.node.mark, self.path, text.removeprefix("Value error, "))
            return
        name = str(loc[0])
        if name in self.failed:
            return
        info = self.cls.model_fields[name]
        if kind == "missing":
            message = f"{kind_of(self.cls)} needs {name} ({info.description})"
            self.failed.add(name)
            self.resolver.problem(self.node.mark, f"{self.path}.{name}", message)
        else:
            node = self.given[name] if name in self.given else Node(self.values[name], self.node.mark)
            self._fail(name, must_be(name, node, wanted(info)))

    def _fail(self, name: str, message: str) -> None:
        self.failed.add(name)
        node = self.given.get(name)
        mark = node.mark if node is not None else self.node.mark
        if message:
            self.resolver.problem(mark, f"{self.path}.{name}", message)


def make(role: str, fields: Mapping[str, Any] | str, **scope: Any) -> Component:
    """A component from plain Python data, for scripts and tests.

    Args:
        role: the role of the component, for example "mixer".
        fields: its `kind` and settings, as in a spec.
        scope: named sizes (d_model=64), and defaults (norm=a component or its fields, dropout, mask).

    Raises:
        SpecError: with every problem found.
    """
    resolver = Resolver()
    numbers = {k: v for k, v in scope.items() if k not in ("norm", "dropout", "mask")}
    defaults = {k: v for k, v in scope.items() if k in ("dropout", "mask")}
    norm = scope.get("norm", "rmsnorm")
    if not isinstance(norm, Component):
        norm = resolver.component("norm", from_plain(norm, NOWHERE), "norm", Scope(numbers))
    around = Scope({"n_layers": 1, "n_branches": 2, **numbers}, {"norm": norm, **defaults})
    found = resolver.component(role, from_plain(fields, NOWHERE), role, around)
    if found is None or resolver.problems:
        raise SpecError(resolver.problems, NOWHERE.file)
    return found
