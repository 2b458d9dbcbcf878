"""How a component declares its fields, and what was declared.

- `field`      a setting;
- `derived`    a size that follows from others unless it is given ("d_model / n_heads");
- `inherited`  a value that the surrounding spec gives (d_model, vocab_size, ...), never written in the component;
- `wired`      what passes between layers here, as `gives` and `reads` of the block say;
- `named`      sizes by names of the spec's own;
- `slot`       a place for another component, for example the position encoding of an attention.

The type of a size says what it is: a `Width` is a number of channels, which a small copy of a model may cut; `Tokens`
are a length; `Size` and `Count` count things (heads, experts, layers).
"""

from typing import Annotated, Any

from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo

LARGEST = 2**40  # no tensor of any model comes near; bounds what a hostile spec can ask for

PROVABLE = 128  # tokens that a proof reaches on any machine: limits of texts move here in a small copy of a model
WIDTH, LENGTH = "width", "length"  # what a size is a number of
Size = Annotated[int, Field(gt=0, le=LARGEST)]
Sizes = tuple[tuple[str, Size], ...]  # by name
Width = Annotated[int, Field(gt=0, le=LARGEST), WIDTH]
Tokens = Annotated[int, Field(gt=0, le=LARGEST), LENGTH]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]

REQUIRED: Any = ...


def field(
    description: str,
    default: Any = REQUIRED,
    *,
    inherit: str = "",
    when: tuple[Any, ...] | None = None,
    later: bool = False,
    **limits: Any,
) -> Any:
    """A setting of a component.

    Args:
        description: what it is, in one line, with its unit or shape.
        default: its value when neither the component nor, by `inherit`, the surrounding spec gives one.
        inherit: the name under which the surrounding spec may hold a default (`dropout`, `mask`); `norm.eps` is a
            setting that the surrounding `norm` writes down.
        when: (other field, values...): the setting acts only when that field has one of the values (or, without
            values, is set); given where it cannot act, it is refused.
        later: it came after specs had their digests, so that it is no part of one where it has its default.
        limits: pydantic's own, such as gt or le.
    """
    extra: dict[str, Any] = ({"inherit": inherit} if inherit else {}) | ({"when": when} if when else {})
    extra |= {"later": True} if later else {}
    return Field(default, description=description, json_schema_extra=extra or None, **limits)


def derived(description: str, formula: str, *, when: tuple[Any, ...] | None = None, **limits: Any) -> Any:
    """A size that follows from others by `formula` unless it is given."""
    extra: dict[str, Any] = {"formula": formula} | ({"when": when} if when else {})
    return Field(description=description, json_schema_extra=extra, **limits)


def named(description: str) -> Any:
    """Sizes by names that the spec makes up, a mapping there and pairs here; none by default."""
    return Field((), description=description, json_schema_extra={"named": True, "later": True})


def wired(description: str) -> Any:
    """Names of what passes between layers here, which `gives` and `reads` of the block say."""
    return Field((), description=description, json_schema_extra={"inherited": True, "wired": True, "later": True})


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
        default: None where nothing need be there.
        inherit: the name under which the surrounding spec holds the default (every norm inherits `norm`).
        when: as for `field`.
    """
    extra: dict[str, Any] = (
        {"slot": role} | ({"inherit": inherit} if inherit else {}) | ({"when": when} if when else {})
    )
    if inherit:
        default = REQUIRED
    return Field(default, description=description, json_schema_extra=extra)


def acts(c: BaseModel, name: str) -> bool:
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


def unit(info: FieldInfo) -> str:
    """What a size is a number of: WIDTH, LENGTH, or nothing in particular."""
    found = [*info.metadata]
    for part in (info.annotation, *getattr(info.annotation, "__args__", ())):
        found += getattr(part, "__metadata__", ())
    return next((m for m in found if m in (WIDTH, LENGTH)), "")


def most(info: FieldInfo) -> int:
    """The largest number that a field may have, LARGEST where nothing less is said."""
    return min((int(m.le) for m in info.metadata if hasattr(m, "le")), default=LARGEST)
