"""Colours and sizes: one hue for each class of operator, pale fill and dark border, in every panel and in the bars."""

from collections.abc import Iterable
from dataclasses import dataclass

from archspec.layers.base import Component
from archspec.layers.ops import Attend, Conv, Experts, FFTConv, Op, Recurrent, Scan

FONT = "Helvetica,Arial,Liberation Sans,sans-serif"
INK, GREY, WHITE = "#1F2933", "#5B6673", "#FFFFFF"
RAIL, FRAME, HAIR = "#8A94A0", "#7B8794", "#A3ACB6"


@dataclass(frozen=True, slots=True)
class Tone:
    """Fill and border of a class of operators, and what the class is called in the bars."""

    fill: str
    border: str
    name: str = ""


ATTENTION = Tone("#FCE7BF", "#B9770E", "attention")
RECURRENT = Tone("#CFEDE5", "#1F7A6C", "recurrent")
CONVOLUTION = Tone("#E7DEF6", "#6B4AA0", "convolution")
OTHER = Tone("#E8ECC6", "#6C7A1E", "mixer")
MLP = Tone("#DCE5FA", "#3F5FA8", "MLP")
MOE = Tone("#F9D9E2", "#A83258", "MoE")
NORM = Tone("#F1EFE6", "#8A8470", "norms")
TABLE = Tone("#E4E8EE", "#4F5D6B", "embedding + head")
NEUTRAL = Tone(WHITE, "#6B7280", "other")
PANEL = Tone("#FAFBFC", "#C9D1DA")
DARK = Tone(INK, INK)

_CLASSES: tuple[tuple[type[Op], Tone], ...] = (
    (Experts, MOE),
    (Attend, ATTENTION),
    (Scan, RECURRENT),
    (Recurrent, RECURRENT),
    (FFTConv, CONVOLUTION),
)


def tone(component: Component | None, ops: Iterable[Op] = ()) -> Tone:
    """The class of a component, by its role and the ops it is made of."""
    if component is None:
        return NEUTRAL
    if component.role in ("norm", "scale"):
        return NORM
    if component.role not in ("mixer", "ffn"):
        return TABLE
    found = tuple(ops) or component.ops()
    for kind, style in _CLASSES:
        if any(isinstance(op, kind) for op in found):
            return style
    if component.role == "ffn":
        return MLP
    return CONVOLUTION if any(isinstance(op, Conv) for op in found) else OTHER
