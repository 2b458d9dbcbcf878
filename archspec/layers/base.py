"""What every component shares: a frozen config whose fields describe themselves, and the ops it is made of.

A component is declared in `layers/<role>s/<kind>.py` and runs as the `nn.Module` of the same name in
`modules/<role>s/<kind>.py`. Fields are made with the four functions below:

- `field`      a setting;
- `derived`    a size that follows from others unless it is given ("d_model / n_heads");
- `inherited`  a value that the surrounding spec gives (d_model, vocab_size, ...), never written in the component;
- `slot`       a place for another component, for example the position encoding of an attention.

Nothing here imports torch.
"""

from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo

from archspec.layers.ops import Norm, Op

LARGEST = 2**40  # no tensor of any model comes near; bounds what a hostile spec can ask for

Size = Annotated[int, Field(gt=0, le=LARGEST)]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]

REQUIRED: Any = ...


class Component(BaseModel):
    """A node of a resolved spec. Subclasses name their `role` and give `examples` that the contract tests build."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True, defer_build=True)

    role: ClassVar[str]
    examples: ClassVar[tuple[dict[str, Any], ...]] = ({},)

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.check()
        return self

    def check(self) -> None:
        """Raise ValueError where settings contradict one another: say what was found and what would be right."""

    def ops(self) -> tuple[Op, ...]:
        """The ops in the order in which the module registers their tensors; the last one is the output."""
        raise NotImplementedError(f"{type(self).__name__} declares no ops")

    @property
    def arguments(self) -> tuple[str, ...]:
        """What `forward` takes after x, in order: of state, mask, memory, memory_mask, bias, prefix_len."""
        return ()

    @property
    def title(self) -> str:
        """A short name for tables and pictures."""
        return type(self).__name__


class NormComponent(Component):
    """A norm: unlike other components it is told the width that it normalises when it is built."""

    role: ClassVar[str] = "norm"

    def op(
        self, name: str, dim: int, inputs: tuple[str, ...] = ("x",), shape: tuple[int | str, ...] | None = None
    ) -> Norm:
        """The op of this norm over `dim` channels, as a sub-module called `name`."""
        raise NotImplementedError(f"{type(self).__name__} declares no op")


def field(
    description: str, default: Any = REQUIRED, *, inherit: str = "", when: tuple[Any, ...] | None = None, **limits: Any
) -> Any:
    """A setting of a component.

    Args:
        description: what it is, in one line, with its unit or shape.
        default: its value when neither the component nor, by `inherit`, the surrounding spec gives one.
        inherit: the name under which the surrounding spec may hold a default (`dropout`, `mask`).
        when: (other field, values...): the setting acts only when that field has one of the values (or, without
            values, is set); given where it cannot act, it is refused.
        limits: pydantic's own, such as gt or le.
    """
    extra: dict[str, Any] = ({"inherit": inherit} if inherit else {}) | ({"when": when} if when else {})
    return Field(default, description=description, json_schema_extra=extra or None, **limits)


def derived(description: str, formula: str, *, when: tuple[Any, ...] | None = None, **limits: Any) -> Any:
    """A size that follows from others by `formula` unless it is given."""
    extra: dict[str, Any] = {"formula": formula} | ({"when": when} if when else {})
    return Field(description=description, json_schema_extra=extra, **limits)


def inherited(description: str) -> Any:
    """A value that the surrounding spec gives and the component itself does not repeat."""
    return Field(description=description, json_schema_extra={"inherited": True})


def slot(
    role: str, description: str, default: Any = REQUIRED, *, inherit: str = "", when: tuple[Any, ...] | None = None
) -> Any:
    """A place for a component of that role.

    Args:
        role: which components fit.
        description: what it is for.
        default: None where nothing need be there; a dict is the component that stands there unless another is given.
        inherit: the name under which the surrounding spec holds the default (every norm inherits `norm`).
        when: as for `field`.
    """
    extra: dict[str, Any] = (
        {"slot": role} | ({"inherit": inherit} if inherit else {}) | ({"when": when} if when else {})
    )
    if isinstance(default, dict):
        extra["component"] = default
        default = REQUIRED
    if inherit:
        default = REQUIRED
    return Field(default, description=description, json_schema_extra=extra)


def acts(c: Component, name: str) -> bool:
    """Whether a field of a component does anything, given the field that it depends on."""
    when = extra(type(c).model_fields[name]).get("when")
    if not when:
        return True
    found = getattr(c, when[0])
    return found in when[1:] if len(when) > 1 else bool(found)


def extra(info: FieldInfo) -> dict[str, Any]:
    """What `field`, `derived`, `inherited` and `slot` wrote down about a field."""
    found = info.json_schema_extra
    return found if isinstance(found, dict) else {}
