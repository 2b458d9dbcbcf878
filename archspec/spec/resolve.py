"""From a node of the file to a resolved component: kinds found, sizes computed, defaults inherited, every mistake kept.

Components are resolved from the outside in and validated from the inside out: the numbers of a component first (they
may be arithmetic on each other and on the scope), then the components in its slots (which see those numbers), then the
component itself by pydantic. A mistake in one place never hides a mistake in another.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from archspec.errors import Fault, Mark, Problem, SpecError, suggest
from archspec.layers.base import Component, extra
from archspec.layers.registry import find, kinds
from archspec.spec.arithmetic import evaluate
from archspec.spec.source import Node, from_plain

Value = int | float | Fraction
NOWHERE = Mark("<python>")


@dataclass(frozen=True)
class Scope:
    """What surrounds a component: named sizes, and defaults such as the norm and the dropout."""

    numbers: Mapping[str, Value] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def with_numbers(self, more: Mapping[str, Value]) -> "Scope":
        """The same scope with more sizes, which hide those of the same name."""
        return Scope({**self.numbers, **more}, self.defaults)

    def with_defaults(self, more: Mapping[str, Any]) -> "Scope":
        """The same scope with other defaults."""
        return Scope(self.numbers, {**self.defaults, **more})


class Resolver:
    """Resolves components and collects every problem on the way."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def problem(self, mark: Mark, path: str, message: str) -> None:
        """Remember one mistake."""
        self.problems.append(Problem(mark, path, message))

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
            found = node.kind_name()
            self.problem(node.mark, path, f"must be {article(roles[0])}, not {found}; write {{kind: ...}} or its name")
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
            self.problem(node.mark, path, f"needs a kind; known: {', '.join(sorted(known))}")
            return None
        if not isinstance(kind.value, str) or kind.value not in known:
            what = roles[0].replace("_", " ")
            self.problem(kind.mark, f"{path}.kind", f"no {what} {shown(kind)}{suggest(str(kind.value), known)}")
            return None
        return find(known[kind.value], kind.value)


class _Filling:
    """One component while its fields are being filled in."""

    def __init__(
        self, resolver: Resolver, cls: type[Component], node: Node, path: str, scope: Scope, base: Component | None
    ):
        assert isinstance(node.value, dict)
        self.resolver, self.cls, self.node, self.path, self.scope = resolver, cls, node, path, scope
        self.given: dict[str, Node] = dict(node.value)
        self.base = base if type(base) is cls else None
        self.values: dict[str, Any] = {}
        self.failed: set[str] = set()
        self.pending: list[str] = []

    def component(self) -> Component | None:
        """The component, or None after its problems were kept."""
        for key in [k for k in self.given if k not in self.cls.model_fields]:
            message = f"{kind_of(self.cls)} has no field {key!r}{suggest(key, settable(self.cls))}"
            self.resolver.problem(self.node.keys.get(key, self.node.mark), f"{self.path}.{key}", message)
            del self.given[key]
            self.failed.add("")
        for name, info in self.cls.model_fields.items():
            if "slot" not in extra(info) and name not in self.failed:
                self._fill(name)
        inner = self.scope.with_numbers(
            {k: v for k, v in self.values.items() if numeric(self.cls, k) and v is not None}
        )
        for name, info in self.cls.model_fields.items():
            if "slot" in extra(info):
                self._slot(name, info, inner)
        self._refuse_idle()
        return self._validate()

    # Plain fields

    def _fill(self, name: str) -> None:
        if name in self.values or name in self.failed:
            return
        try:
            value = self._value(name, self.cls.model_fields[name])
        except Fault as fault:
            self._fail(name, str(fault))
        else:
            if value is not ...:
                self.values[name] = value

    def _value(self, name: str, info: FieldInfo) -> Any:
        marks = extra(info)
        if marks.get("inherited"):
            if name in self.given:
                raise Fault(f"{name} comes from the surrounding spec and is not set here; remove it")
            if name not in self.scope.numbers:
                if name == "d_memory":
                    return self.scope.numbers.get("d_model", ...)
                raise Fault(f"{kind_of(self.cls)} needs {name} ({info.description}); set it at the top of the spec")
            return self.scope.numbers[name]
        if name in self.given:
            return self._given(name, self.given[name])
        if self.base is not None and self._acts(name):
            return getattr(self.base, name)
        if "formula" in marks:
            return self._arithmetic(name, marks["formula"])
        if marks.get("inherit") in self.scope.defaults and self._acts(name):
            return self.scope.defaults[marks["inherit"]]
        return ... if info.is_required() else info.get_default(call_default_factory=True)

    def _given(self, name: str, node: Node) -> Any:
        if numeric(self.cls, name) and isinstance(node.value, str):
            if node.value == "none" and nullable(self.cls, name):
                return None
            return self._arithmetic(name, node.value)
        if numeric(self.cls, name) and isinstance(node.value, dict):
            return self._arithmetic(name, size_formula(node))
        return freeze(node.plain())

    def _arithmetic(self, name: str, formula: str) -> int | float:
        if name in self.pending:
            raise Fault(f"{name} depends on itself: {' -> '.join([*self.pending, name])}")
        self.pending.append(name)
        try:
            value = evaluate(formula, self._lookup)
        finally:
            self.pending.pop()
        return fit(name, formula, value, numeric(self.cls, name) is int)

    def _lookup(self, name: str) -> Value:
        if numeric(self.cls, name):
            self._fill(name)
            if name in self.failed:
                raise _Silent
            value = self.values.get(name)
            if value is None:
                raise Fault(f"{name} is not set here") if name in self.values else _Silent
            if isinstance(value, bool) or not isinstance(value, Value):
                raise _Silent
            return value
        if name in self.scope.numbers:
            return self.scope.numbers[name]
        known = {*self.scope.numbers, *(k for k in self.cls.model_fields if numeric(self.cls, k))}
        raise Fault(f"no size {name!r} is known here{suggest(name, known)}")

    # Slots

    def _slot(self, name: str, info: FieldInfo, scope: Scope) -> None:
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
            return scope.defaults[marks["inherit"]]
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
            if name in self.failed or self._acts(name):
                continue
            if not info.is_required() and self.values.get(name) == info.default:
                continue
            other, *values = extra(info)["when"]
            if other in self.failed:
                continue
            wanted = f"set {other} to {' or '.join(map(repr, values))}" if values else f"set {other}"
            found = "none" if self.values.get(other) in (None, False) else repr(self.values.get(other))
            message = f"{name} has no effect when {other} is {found.strip(chr(39))}; remove it, or {wanted}"
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
        return None if self.failed else component

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
            message = f"{kind_of(self.cls)} needs {name}: {info.description}"
            self.resolver.problem(self.node.mark, f"{self.path}.{name}", message)
        else:
            value = self.given[name] if name in self.given else self.values[name]
            self._fail(name, f"{name} = {shown(value)} must be {wanted(info)}")

    def _fail(self, name: str, message: str) -> None:
        self.failed.add(name)
        node = self.given.get(name)
        mark = node.mark if node is not None else self.node.mark
        if message:
            self.resolver.problem(mark, f"{self.path}.{name}", message)


class _Silent(Fault):
    """A size could not be computed because of a mistake that is already told."""

    def __init__(self) -> None:
        super().__init__("")


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
    found = resolver.component(
        role, from_plain(fields, NOWHERE), role, Scope({"n_layers": 1, **numbers}, {"norm": norm, **defaults})
    )
    if found is None or resolver.problems:
        raise SpecError(resolver.problems, NOWHERE.file)
    return found


# Types and words


@cache
def numeric(cls: type[Component], name: str) -> type | None:
    """int or float when that field holds a number, else None."""
    info = cls.model_fields.get(name)
    if info is None:
        return None
    parts = set(bare(info.annotation)) - {NoneType}
    return int if parts == {int} else float if parts and parts <= {int, float} else None


def nullable(cls: type[Component], name: str) -> bool:
    """Whether the field may be None."""
    return NoneType in bare(cls.model_fields[name].annotation)


def bare(annotation: Any) -> tuple[Any, ...]:
    """The plain types of an annotation: Annotated is unwrapped and unions are taken apart."""
    if get_origin(annotation) in (Union, UnionType):
        return tuple(t for part in get_args(annotation) for t in bare(part))
    if hasattr(annotation, "__metadata__"):
        return bare(annotation.__origin__)
    return (annotation,)


def limits(info: FieldInfo) -> list[Any]:
    """The bounds of a numeric field, those inside Annotated and unions included."""
    found = list(info.metadata)
    for part in (info.annotation, *get_args(info.annotation)):
        for m in getattr(part, "__metadata__", ()):
            found += getattr(m, "metadata", None) or [m]
    return [b for b in found if isinstance(b, Gt | Ge | Lt | Le)]


def wanted(info: FieldInfo) -> str:
    """In words, what a field accepts."""
    types = bare(info.annotation)
    or_none = " or none" if NoneType in types else ""
    words = [str(v) for t in types if get_origin(t) is Literal for v in get_args(t)]
    if words:
        return f"one of {', '.join(words)}{or_none}"
    if bool in types:
        return "true or false"
    if str in types:
        return f"text{or_none}"
    what = "a whole number" if int in types and float not in types else "a number"
    sign = {Gt: "above", Ge: "at least", Lt: "below", Le: "at most"}
    found = [f"{sign[type(b)]} {getattr(b, type(b).__name__.lower())}" for b in limits(info)]
    if any(t in (int, float) for t in types):
        return " ".join([what, *([" and ".join(found)] if found else [])]) + or_none
    return f"a list{or_none}" if any(get_origin(t) is tuple for t in types) else f"a component{or_none}"


def size_formula(node: Node) -> str:
    """`{of: 8/3 * d_model, multiple_of: 256}` as arithmetic."""
    assert isinstance(node.value, dict)
    unknown = set(node.value) - {"of", "multiple_of"}
    if unknown or "of" not in node.value:
        raise Fault("a size in braces is {of: <arithmetic>, multiple_of: <whole number>}")
    of = str(node.value["of"].value)
    return f"round_up({of}, {node.value['multiple_of'].value})" if "multiple_of" in node.value else of


def fit(name: str, formula: str, value: Value, whole: bool) -> int | float:
    """The value as the field's type; a size that is not whole is a Fault that shows the arithmetic."""
    if not whole:
        return float(value)
    if isinstance(value, float) and not value.is_integer() or isinstance(value, Fraction) and value.denominator != 1:
        got = f"{value.numerator}/{value.denominator}" if isinstance(value, Fraction) else repr(value)
        raise Fault(f"{name} = {formula} = {got} is not a whole number; choose sizes that divide, or round it")
    return int(value)


def freeze(value: Any) -> Any:
    """Lists as tuples, all the way down."""
    return tuple(map(freeze, value)) if isinstance(value, list) else value


def settable(cls: type[Component]) -> list[str]:
    """The fields of a component that a spec may set."""
    return [name for name, info in cls.model_fields.items() if not extra(info).get("inherited")]


def kind_of(cls: type[Component]) -> str:
    """The kind of a component, as a spec spells it."""
    return cls.__module__.rsplit(".", 1)[-1]


def article(role: str) -> str:
    """`an embedding`, `a mixer`."""
    word = role.replace("_", " ")
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def shown(value: Any) -> str:
    """A value as a spec would spell it, cut where it is long."""
    plain = value.plain() if isinstance(value, Node) else value
    text = str(plain).lower() if plain is None or isinstance(plain, bool) else repr(plain)
    return text if len(text) <= 60 else text[:57] + "..."
