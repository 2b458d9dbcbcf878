"""What the sizes of a generated file are called: one name for one thing, and another for whatever means another."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from archspec.codegen.names import Use, free, snake
from archspec.errors import GenerateError
from archspec.language.model import Block, Spec
from archspec.layers.base import Component
from archspec.layers.fields import acts, extra


@dataclass(frozen=True)
class Size:
    """A number and what it means: the description of its field, or for an inherited size its name."""

    value: float
    meaning: str


class Constants:
    """Named sizes: `D_FF = 14336` where a field means one thing in the spec, `MOE_D_FF = 1408` where kinds differ."""

    def __init__(
        self,
        spec: Spec,
        found: dict[Component | Block, Use],
        names: dict[Component | Block, str],
        reserved: Collection[str] = (),
    ):
        components = [c for c in found if isinstance(c, Component)]
        self.names, self.reserved = names, reserved
        self.stacks = {c: found[c].stack for c in components}
        self.parents = _parents(components)
        self.used: dict[str, tuple[float, str]] = {}
        self.sizes: dict[str, set[Size]] = {}
        self.by_kind: dict[tuple[str, str], set[Size]] = {}
        self.by_stack: dict[str, dict[str, set[float]]] = {s.name: {} for s in spec.stacks}
        own = [(c, field) for c in components for field in numbers(c)]
        for c, field in dict.fromkeys(origin for place in own for origin in self.origins(*place)):
            if c.role == "init" and not _is_inherited(c, field):
                continue  # how weights start leaves the sizes of layers their names
            size = Size(getattr(c, field), meaning(c, field))
            self.sizes.setdefault(field, set()).add(size)
            self.by_kind.setdefault((type(c).__name__, field), set()).add(size)
            self.by_stack.get(self.stacks[c], {}).setdefault(field, set()).add(size.value)
        self.texts: dict[tuple[Component, str], str] = {}
        self.holds: dict[str, Size] = {}
        for place in own:
            self._text(*place)

    @property
    def possible(self) -> set[str]:
        """Every name that a size of the file may have."""
        return set(self.holds)

    def name(self, c: Component, field: str, value: float) -> str | None:
        """The constant that holds `c.field`, noted as used; None when the value is to be written as it is."""
        text = self.texts.get((c, field))
        if text is None:
            return None
        if self.holds[text].value != value:
            raise GenerateError(f"{text} would be {self.holds[text].value} and {value}")
        self.used.setdefault(text, (value, describe(*self.origins(c, field)[0])))
        return text

    def peek(self, c: Component, field: str) -> str | None:
        """The name without noting its use; None for what has no name."""
        return self.texts.get((c, field))

    def origins(self, c: Component, field: str) -> list[tuple[Component, str]]:
        """Where a size was taken from: n_kv_heads of multi-head attention is its n_heads, and so is that of its ALiBi.

        There are several where a component stands in the slots of several others.
        """
        field = _source(c, field)
        above = [(p, f) for p in self.parents.get(c, ()) for f in _given_by(p, c, field)]
        return list(dict.fromkeys(origin for place in above for origin in self.origins(*place))) or [(c, field)]

    def _text(self, c: Component, field: str) -> str:
        """The name of a number of a component: that of what it was taken from, if that has one name."""
        if (c, field) not in self.texts:
            origins = self.origins(c, field)
            names = {self._text(*origin) for origin in origins} if origins != [(c, field)] else set()
            self.texts[c, field] = names.pop() if len(names) == 1 else self._allotted(c, _source(c, field))
        return self.texts[c, field]

    def _allotted(self, c: Component, field: str) -> str:
        """A name for a size, unlike those of all that means something else."""
        size = Size(getattr(c, field), meaning(c, field))
        wishes = self._wishes(c, field)
        fitting = (w for w in wishes if w not in self.reserved and self.holds.get(w, size) == size)
        text = next(fitting, None) or free(wishes[-1], {*self.reserved, *self.holds})
        self.holds[text] = size
        return text

    def _wishes(self, c: Component, field: str) -> list[str]:
        """What a size would best be called, and then by what it belongs to."""
        kind = f"{snake(type(c).__name__)}_{field}".upper()
        exact = [kind, f"{snake(self.names[c])}_{field}".upper()]
        if len(self.sizes.get(field, set()) | {Size(getattr(c, field), meaning(c, field))}) <= 1:
            return [field.upper(), *exact]
        if (stack := self._stack(c, field)) is not None:
            return [f"{stack}_{field}".upper(), *exact]
        return exact if len(self.by_kind.get((type(c).__name__, field), ())) <= 1 else exact[1:]

    def _stack(self, c: Component, field: str) -> str | None:
        """The stack that a width belongs to; the head is told its width by the stack that it follows."""
        if field != "d_model" or not _is_inherited(c, field):
            return None
        own = self.by_stack.get(self.stacks[c])
        widths = self.by_stack if own is None else {self.stacks[c]: own}
        return next((name for name, fields in widths.items() if fields.get(field) == {getattr(c, field)}), None)


def _parents(components: list[Component]) -> dict[Component, list[Component]]:
    """The components in whose slots a component stands."""
    found: dict[Component, list[Component]] = {}
    for parent in components:
        for name in type(parent).model_fields:
            child = getattr(parent, name)
            if isinstance(child, Component) and acts(parent, name):
                found.setdefault(child, []).append(parent)
    return found


def _source(c: Component, field: str) -> str:
    """The field of the same component that a size was taken from, if it is the same thing: head_dim of v_head_dim."""
    info = type(c).model_fields.get(field)
    formula = extra(info).get("formula", "") if info else ""
    taken = "d_model" if formula == "d_embedding" else formula
    if info is None:  # a property: all channels of a head that turn are the channels of the head
        wider = [other for other in type(c).model_fields if set(field.split("_")) <= set(other.split("_"))]
    others = [taken] if info else wider
    return next((other for other in others if _same(c, other, c, field)), field)


def _given_by(parent: Component, c: Component, field: str) -> Iterator[str]:
    """The field of a component that gave one in its slots a size."""
    info = type(c).model_fields.get(field)
    formula = extra(info).get("formula", "") if info else ""
    taken = field if _is_inherited(c, field) else formula
    if _same(parent, taken, c, field):
        yield taken


def _same(c: Component, taken: str, d: Component, field: str) -> bool:
    """Whether a field is the same thing as another: equal, and by name or as a width one of the other."""
    if (c is d and taken == field) or taken not in type(c).model_fields or getattr(c, taken) != getattr(d, field):
        return False
    words, others = set(taken.split("_")), set(field.split("_"))
    return words <= others or others <= words or (taken == "d_model" and field in ("dim", "d_embed"))


def _is_inherited(c: Component, field: str) -> bool:
    info = type(c).model_fields.get(field)
    return info is not None and bool(extra(info).get("inherited"))


def numbers(c: Component) -> list[str]:
    """The fields and properties of a component that hold numbers."""
    found = [f for f in type(c).model_fields if _number(getattr(c, f)) and acts(c, f)]
    own = [
        n
        for cls in type(c).__mro__
        if issubclass(cls, Component)
        for n, v in vars(cls).items()
        if isinstance(v, property)
    ]
    return found + [n for n in own if not n.startswith("_") and _number(getattr(c, n))]


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def meaning(c: Component, field: str) -> str:
    """What makes two sizes of one name the same thing: their description, or that the surrounding spec gives both."""
    return field if _is_inherited(c, field) else describe(c, field)


def describe(c: Component, field: str) -> str:
    """What a size is, in a few words."""
    info = type(c).model_fields.get(field)
    if info is not None:
        return info.description or ""
    text = (getattr(type(c), field).__doc__ or "").strip().splitlines()[0].rstrip(".")
    return text[:1].lower() + text[1:]
