"""A spec lowered once, to functions of statements: what is called, on what, what it gives.

    lower_model(spec) -> Function "model" -> (Function "stack" ->) Layers -> Function "block"

The graph is these functions with the ops of each component written out; the eager model runs them, the code generator
prints them, and the picture draws them. Nothing else interprets a wiring or knows in which order a model is put
together.
"""

from archspec.lowering.assembly import lower_model
from archspec.lowering.program import Function

__all__ = ["Function", "lower_model"]
