"""How a picture writes things for people: signs, functions, wirings, numbers and shapes."""

import math

TIMES, DOT, ARROW, SIGMA = "\u00d7", "\u00b7", "\u2192", "\u03a3"
MINUS, SQUARED, ELLIPSIS, DOTS = "\u2212", "\u00b2", "\u2026", "\u22ee"

SPELLED = {
    "silu": "SiLU",
    "gelu": "GELU",
    "gelu_tanh": "GELU (tanh)",
    "relu": "ReLU",
    "relu2": f"ReLU{SQUARED}",
    "rope": "RoPE",
    "alibi": "ALiBi",
    "bias": "position bias",
}
GATED = {"silu": "SwiGLU", "gelu": "GEGLU", "gelu_tanh": "GEGLU", "relu": "ReGLU", "sigmoid": "GLU"}
WIRINGS = {
    "pre": "pre-norm residual",
    "post": "post-norm residual",
    "sandwich": "norms before and after each branch",
    "inner_post": "norm at the end of each branch",
    "parallel": "parallel branches, one norm",
    "parallel_two_norms": "parallel branches, two norms",
    "deepnorm": "post-norm residual, DeepNorm",
    "layer_scale": "pre-norm residual with LayerScale",
    "none": "residual without norms",
    "": "custom wiring",
}


def spelled(name: str) -> str:
    """A function, or what a layer takes, as the field writes it."""
    return SPELLED.get(name, name.replace("_", " "))


def times(factor: float, width: int = 0) -> str:
    """A factor: `x 0.25`; the root of `width` is written as one."""
    root = width > 1 and math.isclose(factor, math.sqrt(width), rel_tol=1e-4)
    return f"{TIMES} sqrt({width})" if root else f"{TIMES} {factor:.4g}"


def by(*sizes: int) -> str:
    """Sizes multiplied: 32 x 128."""
    return f" {TIMES} ".join(map(str, sizes))


def to(*widths: int | str) -> str:
    """Widths one after another: 4096 -> 14336."""
    return f" {ARROW} ".join(map(str, widths))


def amount(n: float, digits: int = 3) -> str:
    """A number of parameters in short: 67.1 M, 2.82 B, and below ten thousand the number itself: 1,253."""
    if n < 10_000:
        return f"{n:,}" if isinstance(n, int) else f"{n:g}"
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if n >= size * (1 - 0.5 * 10**-digits):
            return f"{_significant(n / size, digits)} {unit}"
    return f"{n:g}"


def byte_size(n: float) -> str:
    """A number of bytes in short: 576 KiB, 4.0 GiB."""
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if n >= 1024**power:
            value = n / 1024**power
            return f"{value:.0f} {unit}" if value == int(value) else f"{_significant(value, 3)} {unit}"
    return f"{n:.0f} B"


def _significant(value: float, digits: int) -> str:
    whole = len(str(int(value)))
    return f"{value:.{max(digits - whole, 0)}f}"


def share(part: float, whole: float) -> str:
    """A percentage: 87.4 %."""
    percent = 100 * part / whole if whole else 0.0
    return "< 0.1 %" if 0 < percent < 0.05 else f"{percent:.1f} %"


def shape_text(shape: tuple[int | str, ...]) -> str:
    """A shape as it stands on an edge: [B, T, 4096]."""
    return f"[{', '.join(map(str, shape))}]"
