"""Bytes of a number in the types that models are kept in."""

from archspec.errors import CostError

BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "float8": 1, "int8": 1}
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
