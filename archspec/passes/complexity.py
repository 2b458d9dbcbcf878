"""What each kind of layer and the whole model cost, as formulas in B, T, S, M and the model's own sizes.

FLOPs are those of `archspec.passes.cost`: two a multiply-add, as PyTorch's counter has them. The state is what decoding
keeps, in numbers. Memory is in bytes: of a part all that its ops need, its input too; of the whole each tensor once,
those of norms and wiring too. Of a mixer the class names first what mixes tokens, then the projections beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from archspec.language.model import Spec, need_spec
from archspec.passes.crossings import Crossing
from archspec.passes.figures import Figure
from archspec.passes.html import html_table
from archspec.passes.places import ranges
from archspec.passes.spec_formulas import Part, SpecFormulas

MEANING = {
    "training": "FLOPs forward and backward, of all pairs in attention",
    "prefill": "FLOPs forward",
    "needed": "FLOPs forward without the pairs that a mask or a window hides",
    "decoding": "FLOPs of one more token, which sees S",
    "state": "numbers kept while decoding",
    "steps": "operations of a forward pass that must follow one another",
    "memory": "bytes that training keeps for the backward pass: bfloat16, attention as flash, B > 1, T > 1",
}


@dataclass(frozen=True)
class Complexity:
    """The formulas of a spec.

    Attributes:
        layers: that run.
        tokens: of every input, where that is of one size (an image).
        parts: of each kind of layer, and outside of the layers.
        whole: the costs of the model by name, with numbers for its sizes.
        crossings: where one kind of work begins to need more FLOPs than another: with T in the forward pass.
        decoding_crossings: the same with S, for one decoded token.
        silent: why it does not decode; nothing where it does.
    """

    name: str
    layers: int
    tokens: int | None
    max_seq_len: int | None
    parts: tuple[Part, ...]
    whole: Mapping[str, Figure] = field(repr=False)
    crossings: tuple[Crossing, ...]
    decoding_crossings: tuple[Crossing, ...]
    silent: str = ""

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """Layers, part, cost, class and formula of every figure, after a header."""
        found: list[tuple[str, ...]] = [("layers", "part", "cost", "class", "formula")]
        places = [(ranges(p.layers), f"{p.part}: {p.title}", p.figures) for p in self.parts]
        for layers, part, figures in (*places, ("", "whole", self.whole)):
            for f in figures.values():
                found += [(layers, part, f.name, f.order, f"{when}: {x}" if when else x) for when, x in f.pieces]
        return found

    def _repr_html_(self) -> str:
        return html_table(self.rows, self.name)


def complexity(spec: Spec) -> Complexity:
    """The formulas and classes of what a spec costs.

    Raises:
        TypeError: what is given is no spec.
    """
    need_spec(spec)
    found, tokens = SpecFormulas(spec), spec.main.embedding.n_tokens
    parts = tuple(found.parts())
    whole = {name: figure for name in MEANING if (figure := found.whole(name, parts)) is not None}
    if "needed" in whole and whole["needed"].formula == whole["prefill"].formula:
        del whole["needed"]
    return Complexity(
        name=spec.name,
        layers=sum(stack.n_layers for stack in spec.stacks),
        tokens=None if tokens == "T" else tokens,
        max_seq_len=spec.max_seq_len,
        parts=parts,
        whole=whole,
        crossings=tuple(found.crossings("needed")),
        decoding_crossings=tuple(found.crossings("decoding")),
        silent=found.silent,
    )
