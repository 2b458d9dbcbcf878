"""Bytes of a number in the types that models are kept in."""

from archspec.errors import CostError

BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "float8": 1, "int8": 1}
NO_GRADIENTS = {"float8", "int8"}  # autograd has no gradients of these
SHORT = {"fp64": "float64", "fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "fp8": "float8"}


def bytes_of(dtype: str, name: str = "dtype") -> int:
    """Bytes of a number of that type, by its name or its short name; `name` is what errors call it.

    Raises:
        CostError: there is no such type.
    """
    found = BYTES.get(SHORT.get(dtype, dtype)) if isinstance(dtype, str) else None
    if found is None:
        raise CostError(f"{name} = {dtype!r} is unknown; known: {', '.join((*BYTES, *SHORT))}")
    return found


def trains(dtype: str, name: str = "dtype") -> int:
    """As `bytes_of`, of a type that autograd computes gradients of.

    Raises:
        CostError: there is no such type, or it has no gradients.
    """
    found = bytes_of(dtype, name)
    if SHORT.get(dtype, dtype) in NO_GRADIENTS:
        known = ", ".join(t for t in BYTES if t not in NO_GRADIENTS)
        raise CostError(f"{name} = {dtype!r} has no gradients, so that a training step cannot use it; known: {known}")
    return found
