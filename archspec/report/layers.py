"""Layers that are alike, as one name: `blocks.0-3`, `blocks.0,4..28`."""

import re
from collections.abc import Sequence

from archspec.passes.places import ranges

_SECTION = re.compile(r"(?:\w+\.)??(?:blocks\.[\d,-]+(?:\.\.\d+)?|embedding|position_bias|norm|head)(?=\.|$)")


def section_of(module: str) -> str:
    """The part of the model that a module stands in: the embedding, some layers, the head."""
    match = _SECTION.match(module)
    return match[0] if match else module


def layers_of(section: str) -> tuple[int, ...]:
    """The layers of `blocks.3`, `blocks.0-3`, `blocks.0,4` and `blocks.0,4..12`; none of other sections."""
    _, blocks, spread = section.partition("blocks.")
    if not blocks:
        return ()
    numbers = [int(n) for n in re.findall(r"\d+", spread)]
    step = 1 if "-" in spread or len(numbers) == 1 else numbers[1] - numbers[0]
    return tuple(range(numbers[0], numbers[-1] + 1, step))


def of_layers(section: str, layers: Sequence[int]) -> str:
    """The section of a stack that holds these layers."""
    return f"{section.partition('blocks.')[0]}blocks.{ranges(layers)}"
