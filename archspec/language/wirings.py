"""The built-in wirings: where norms, residual paths, layer scales and dropout usually go."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from archspec.errors import Fault
from archspec.language.wiring import Wiring, parse_wiring

SUBLAYERS = ("mixer", "cross", "ffn")

# one line for each sub-layer f; <...> is the branch that dropout wraps, a and b number the norms of the line
_EACH = {
    "pre": "x = x + <{f}(norm{a}(x))>",
    "post": "x = norm{a}(x + <{f}(x)>)",
    "sandwich": "x = x + <norm{b}({f}(norm{a}(x)))>",
    "inner_post": "x = x + <norm{a}({f}(x))>",
    "deepnorm": "x = norm{a}({alpha} * x + <{f}(x)>)",
    "layer_scale": "x = x + <scale{a}({f}(norm{a}(x)))>",
    "none": "x = x + <{f}(x)>",
}
# all sub-layers beside each other: the lines before, and the branch of each
_PARALLEL: dict[str, tuple[tuple[str, ...], str]] = {
    "parallel": (("h = norm1(x)",), "<{f}(h)>"),
    "parallel_two_norms": ((), "<{f}(norm{a}(x))>"),
}
BUILTINS = (*_EACH, *_PARALLEL)


@lru_cache
def named_wiring(kind: str, sublayers: tuple[str, ...], dropout: bool, alpha: float | None) -> Wiring:
    """A built-in wiring, read."""
    return replace(parse_wiring(builtin(kind, sublayers, dropout, alpha)), name=kind)


def builtin(kind: str, sublayers: Sequence[str], dropout: bool = False, alpha: float | None = None) -> tuple[str, ...]:
    """The lines of a built-in wiring for the sub-layers that are present, norms numbered in order of use.

    `sublayers` is some of mixer, cross, ffn in that order. With `dropout` each branch is wrapped in dropout(...) just
    before it is added. `alpha` is the residual factor of DeepNorm (Wang et al. 2022, arXiv:2203.00555) and belongs to
    `deepnorm` alone. Raises Fault where a parallel wiring has nothing to put beside each other.
    """
    if kind in _PARALLEL:
        if len(sublayers) < 2:
            raise Fault(f"{kind} needs at least two sub-layers, found {sublayers[0]} alone; use pre")
        before, branch = _PARALLEL[kind]
        lines = [*before, " + ".join(["x = x", *(branch.format(f=f, a=a) for a, f in enumerate(sublayers, 1))])]
    else:
        norms = 2 if "{b}" in _EACH[kind] else 1
        numbered = enumerate(sublayers)
        lines = [_EACH[kind].format(f=f, a=norms * i + 1, b=norms * i + 2, alpha=repr(alpha)) for i, f in numbered]
    opening, closing = ("dropout(", ")") if dropout else ("", "")
    return tuple(line.replace("<", opening).replace(">", closing) for line in lines)
