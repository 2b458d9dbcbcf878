"""One component while its fields are filled in: numbers, then the components in its slots, then the checks of pydantic.

A field that is wrong is told where it stands, and whatever depends on it is passed over in silence.
"""

from math import prod
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from archspec.errors import Fault
from archspec.language.document import PLAIN, SIZES
from archspec.language.names import bad_argument
from archspec.language.origins import DEFAULT, Origin, given
from archspec.language.rules import Rule, must_be, rules, settable, shown
from archspec.language.scope import Scope, Silent, UnknownSize, Value, computed, number
from archspec.language.tree import Node, clipped, from_plain
from archspec.layers.base import Component, NormComponent
from archspec.layers.ops import Norm

if TYPE_CHECKING:
    from archspec.language.resolve import Resolver

_SIZE = PLAIN["vocab_size"]  # what a size by a name of the spec's own may be
LARGE = 2**20  # three sizes up to this make no tensor that is too large
MOST_ELEMENTS = 2**63 - 1


def one_channel(norm: str) -> str:
    """What a norm of a single channel is worth."""
    return f"{norm} has a single channel to normalise, of which at most the sign is left"


def absent(node: Node) -> bool:
    """Whether a spec leaves a component out here."""
    return node.value is None or node.value is False or node.value == "none"


def kind_of(cls: type[Component]) -> str:
    """The kind of a component, as a spec spells it."""
    return cls.__module__.rsplit(".", 1)[-1]


class Filling:
    """One component while its fields are being filled in."""

    def __init__(
        self, resolver: "Resolver", cls: type[Component], node: Node, path: str, scope: Scope, base: Component | None
    ):
        self.resolver, self.cls, self.node, self.path, self.scope = resolver, cls, node, path, scope
        self.rules = rules(cls)
        self.given = {k: v for k, v in node.fields.items() if k in self.rules}
        self.base = base if type(base) is cls else None
        if self.base is not None and self.base is scope.defaults.get("norm"):
            resolver.inherit(scope, "norm")
        self.values: dict[str, Any] = {}
        self.origins: dict[str, Origin] = {}
        self.failed: set[str] = set()
        self.pending: list[str] = []

    def component(self) -> Component | None:
        """The component, or None after its problems were kept."""
        if len(self.given) < len(self.node.fields):  # some key is no field
            problems, known = self.resolver.problems, settable(self.cls)
            meant = problems.unknown(self.node, known, self.path, kind_of(self.cls), self.rules.keys())
            self.failed |= {""} | (meant - self.given.keys())
        slots = [rule for rule in self.rules.values() if "slot" in rule.marks]
        for name, rule in self.rules.items():
            if "slot" not in rule.marks:
                self._fill(name)
        numbers = {k: v for k, v in self.values.items() if v is not None and self.rules[k].number}
        numbers |= self.cls.for_slots(numbers)
        inner = self.scope.with_numbers(numbers, self.failed - {""})
        for rule in slots:
            if rule.name not in self.failed:
                self._slot(rule, inner)
        self._refuse_idle()
        return None if self.failed else self._validated()

    # Plain fields

    def _fill(self, name: str) -> None:
        if name in self.values or name in self.failed:
            return
        rule = self.rules[name]
        self.pending.append(name)
        try:
            value = self._value(rule)
            if not rule.holds(value):
                raise Fault(must_be(name, self.given.get(name) or Node(value, self.node.mark), rule.wanted(value)))
            self.values[name] = value
        except Fault as fault:
            self._fail(name, str(fault))
        finally:
            self.pending.pop()

    def _fail(self, name: str, message: str) -> None:
        self.failed.add(name)
        if message:
            self.resolver.problems.tell(self.given.get(name, self.node), f"{self.path}.{name}", message)

    def _value(self, rule: Rule) -> Any:
        name, marks, node = rule.name, rule.marks, self.given.get(rule.name)
        if marks.get("wired"):
            return self._wired(name)
        if marks.get("inherited"):
            return self._inherited(rule)
        if node is not None and marks.get("named"):
            self.origins[name] = Origin("given", str(node.mark))
            return self._named(rule, node)
        if node is not None:
            value = number(name, node, rule, self._lookup) if rule.number else node.plain()
            if rule.nullable and rule.core["type"] == "str" and value == "none":
                value = None
            self.origins[name] = given(node, value)
            return value
        if self.base is not None and self._acts(name):
            self.origins[name] = self._of_base(name)
            return getattr(self.base, name)
        if (setting := self._norm_setting(rule)) in self.scope.norm and self._acts(name):
            self.resolver.reached.add(self.scope.origins["norm"])
            self.origins[name] = Origin("inherited", f"{self.scope.origins['norm']}.{setting}")
            return self.scope.norm[setting]
        if "formula" in marks:
            self.origins[name] = Origin("formula", marks["formula"])
            return computed(name, marks["formula"], rule, self._lookup, given=False)
        if marks.get("inherit") in self.scope.defaults and self._acts(name):
            self.origins[name] = self._from(marks["inherit"])
            return self.resolver.inherit(self.scope, marks["inherit"])
        self.origins[name] = DEFAULT
        if rule.info.is_required():
            raise Fault(f"{kind_of(self.cls)} needs {name} ({rule.info.description})")
        return rule.info.default

    def _named(self, rule: Rule, node: Node) -> tuple[tuple[str, Value], ...]:
        """Sizes by names of the spec's own; those without a value are left out."""
        if absent(node):
            return ()
        if not isinstance(node.value, dict):
            raise Fault(must_be(rule.name, node, "a mapping of names to sizes, such as {languages: 5}"))
        found, wrong = [], False
        for name, child in node.fields.items():
            path = f"{self.path}.{rule.name}.{clipped(name)}"
            try:
                if bad := bad_argument(name):
                    raise Fault(f"{clipped(name)!r} {bad}")
                value = None if child.value is None else number(clipped(name), child, _SIZE, self._lookup)
                found += [] if value is None else [(name, value)]
            except Fault as fault:
                wrong = True
                if str(fault):
                    self.resolver.problems.tell(node.key_mark(name) if bad else child, path, str(fault))
        if wrong:
            raise Silent
        return tuple(found)

    def _from(self, default: str) -> Origin:
        """The origin of what a default of the surrounding spec gives; one that nobody set is a default."""
        where = self.scope.origins.get(default)
        return Origin("inherited", where) if where else DEFAULT

    def _of_base(self, name: str) -> Origin:
        """The origin of a field that the component has which this one changes."""
        if self.base is self.scope.defaults.get("norm") and self.scope.origins.get("norm"):
            return Origin("inherited", f"{self.scope.origins['norm']}.{name}")
        return self.resolver.origins.of(self.base).get(name, DEFAULT)

    def _norm_setting(self, rule: Rule) -> str:
        """Which setting of the surrounding `norm` a field follows: that of its name, or what it says."""
        if issubclass(self.cls, NormComponent):
            return rule.name
        default, _, setting = str(rule.marks.get("inherit", "")).partition(".")
        return setting if default == "norm" else ""

    def _wired(self, name: str) -> Any:
        """What passes between layers here."""
        if name in self.given:
            raise Fault(f"{name} stands beside the parts of the block, as in `{name}: ...`; move it there")
        return self.scope.defaults.get(name, ())

    def _inherited(self, rule: Rule) -> Value:
        if rule.name in self.given:
            raise Fault(f"{rule.name} comes from the surrounding spec and is not set here; remove it")
        source = "d_model" if rule.name == "d_memory" and rule.name not in self.scope else rule.name
        if source not in self.scope:
            raise self._needed(source, f" ({rule.info.description})")
        return self.resolver.size(self.scope, source)

    def _needed(self, name: str, description: str = "") -> Silent:
        """Tells, once for a spec, that its top lacks a size."""
        if name not in self.resolver.missing:
            self.resolver.missing.add(name)
            message = f"{kind_of(self.cls)} needs {name}{description}; set it at the top of the spec"
            self.resolver.problems.tell(self.node, self.path, message)
        return Silent()

    def _lookup(self, name: str) -> Value:
        """A size that the arithmetic of a field names: another field, or one of the scope."""
        if name in self.rules and self.rules[name].number:
            return self._own_number(name)
        if name in SIZES and name not in self.scope:
            raise self._needed(name)
        if name not in self.scope:
            own = {k for k, rule in self.rules.items() if rule.number}
            raise UnknownSize(name, {*self.scope.numbers, *own} - set(self.pending))
        return self.resolver.size(self.scope, name)

    def _own_number(self, name: str) -> Value:
        if name in self.pending:
            circle = " -> ".join([*self.pending[self.pending.index(name) :], name])
            self._fail(name, f"{name} depends on itself: {circle}")
        self._fill(name)
        if name in self.failed:
            raise Silent
        if self.values[name] is None:
            raise Fault(f"{name} is not set here")
        value: Value = self.values[name]
        return value

    # Slots

    def _slot(self, rule: Rule, scope: Scope) -> None:
        name, node = rule.name, self.given.get(rule.name)
        default = self._slot_default(rule, scope)
        inherits = node is None and self.base is None and self._acts(name)
        self.origins[name] = self._from(str(rule.marks.get("inherit"))) if inherits else DEFAULT
        if node is not None:
            self.origins[name] = Origin("given", str(node.mark))
        if absent(node) if node else default is None and rule.info.is_required():
            if rule.info.is_required():
                self._fail(name, f"{name} cannot be left out here; {rule.info.description}")
            self.values[name] = None
        elif node is None:
            self.values[name] = default
        else:
            found = self.resolver.component(rule.marks["slot"], node, f"{self.path}.{name}", scope, default)
            if found is None:
                self.failed.add(name)
            self.values[name] = found

    def _slot_default(self, rule: Rule, scope: Scope) -> Component | None:
        marks = rule.marks
        if self.base is not None:
            found: Component | None = getattr(self.base, rule.name)
            return found
        if marks["slot"] == "norm" and "inherit" not in marks and rule.name in self.given:
            return scope.defaults.get("norm")  # what is written here changes it; without a word there is none
        if marks.get("inherit") not in scope.defaults:
            return None
        if not self._acts(rule.name):  # the same whatever surrounds it: what does nothing tells no components apart
            return self.resolver.component(marks["slot"], from_plain("rmsnorm", self.node.mark), self.path, Scope())
        given = rule.name in self.given
        return scope.defaults[marks["inherit"]] if given else self.resolver.inherit(scope, marks["inherit"])

    # What the whole says

    def _acts(self, name: str) -> bool:
        """Whether a field does anything, given the field that it depends on."""
        when = self.rules[name].marks.get("when")
        if not when:
            return True
        other, *values = when
        if "slot" not in self.rules[other].marks:
            self._fill(other)
        found = self.values.get(other)
        return found in values if values else bool(found)

    def _refuse_idle(self) -> None:
        for name, node in self.given.items():
            rule = self.rules[name]
            when = rule.marks.get("when")
            if not when or {name, when[0]} & self.failed or self._acts(name):
                continue
            if not rule.info.is_required() and self.values.get(name) == rule.info.default:
                continue
            other, *values = when
            wish = f"set {other} to {' or '.join(map(shown, values))}" if values else f"set {other}"
            found = self.values.get(other)
            is_now = "none" if found is None else shown(found).strip("'")
            message = f"{name} has no effect when {other} is {is_now}; remove it, or {wish}"
            self.resolver.problems.tell(self.node.keys.get(name, node.mark), f"{self.path}.{name}", message)
            self.failed.add("")

    def _validated(self) -> Component | None:
        try:
            component = self.cls.model_validate(self.values)
        except ValidationError as error:
            for e in error.errors(include_url=False):
                path = ".".join(map(str, (self.path, *e["loc"])))
                self.resolver.problems.tell(self.node, path, e["msg"].removeprefix("Value error, "))
            return None
        if self._too_large(component):
            return None
        self.resolver.origins.note(component, self.origins)
        self._warn(component)
        return component

    def _warn(self, component: Component) -> None:
        """Tells what is accepted, but does nothing or harm."""
        length = self.scope.numbers.get("max_seq_len")
        problems = self.resolver.problems
        for message in component.doubts(length if isinstance(length, int) else None):
            at = self.given.get(message.partition(" ")[0], self.node)  # most begin with the field that they are about
            problems.warn(at, self.path, message)
        if 1 in self.values.values() and any(isinstance(child, NormComponent) for child in component.children()):
            for op in component.ops():
                if isinstance(op, Norm) and op.dim == 1:
                    problems.warn(self.node, self.path, one_channel(op.name))

    def _too_large(self, component: Component) -> bool:
        sizes = [v for v in self.values.values() if isinstance(v, int) and v > LARGE]
        if not sizes or isinstance(component, NormComponent):
            return False
        for param in (param for op in component.ops() for param in op.params):
            if prod(param.shape) > MOST_ELEMENTS:
                held = f"{param.name} would hold {' x '.join(map(str, param.shape))} numbers"
                message = f"{held}; no tensor can hold {MOST_ELEMENTS + 1} or more"
                self.resolver.problems.tell(self.node, self.path, message)
                return True
        return False
