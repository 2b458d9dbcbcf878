"""Exact formulas in B, T, S, M and the sizes of a model: what a cost is when no number is put in.

The rules of ops (`archspec.layers.ops`) are written once, with `+ - *` and what is in `functions`. Given whole numbers
they give a whole number; given a `Formula` for a length, a `Formula`; given a `Size`, a number that knows its name, a
formula in that name. So a figure, its polynomial and its explanation cannot differ.
"""

from archspec.formulas.polynomial import Formula, Growth
from archspec.formulas.sizes import Size

__all__ = ["Formula", "Growth", "Size"]
