"""What element-wise functions keep for their backward pass, as PyTorch's do: their input, their output, or neither."""

from archspec.layers.tensors import Dtype, Saved, Shape

ITSELF = ("identity", "none", "hidden states", "input", "flatten", "first token", "middle token", "last token")
KEEPS_INPUT = ("silu", "gelu", "gelu_tanh", "softplus", "sin")
KEEPS_OUTPUT = ("relu", "tanh", "sigmoid", "exp")
KEEPS_BETWEEN = ("relu2", "-exp(A_log)", "-exp(time_decay)")  # the result of a first step


def activated(fn: str, source: str, result: str, shape: Shape, dtype: Dtype = "model") -> tuple[Saved, ...]:
    """What a function of `source` keeps, whose output is `result` and of that shape; computed in `dtype`."""
    if fn in KEEPS_INPUT:
        return (Saved(source, shape, dtype),)
    if fn in KEEPS_OUTPUT:
        return (Saved(result, shape, dtype),)
    if fn in KEEPS_BETWEEN:
        return (Saved("between", shape, dtype),)
    return ()
