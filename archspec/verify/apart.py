"""How far outputs are apart."""

from torch import Tensor


def apart(a: Tensor, b: Tensor, scale: Tensor | None = None) -> float:
    """The largest difference, in units of the largest number of `scale`, or of b; infinite where one is no number."""
    if not a.numel():
        return 0.0
    error = float((a - b).abs().max() / (b if scale is None else scale).abs().max().clamp_min(1e-30))
    return error if error == error else float("inf")
