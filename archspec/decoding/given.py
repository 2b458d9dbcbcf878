"""What people give to a state: numbers, devices and types, each checked where it comes in."""

from operator import index
from typing import Any

import torch

from archspec.errors import StateError

MOST = 1 << 40  # tokens or sequences: more can be no size of a tensor


def whole(given: Any, right: str, found: str = "", least: int = 0, most: int = MOST) -> int:
    """A whole number within its limits, both included.

    Args:
        given: an int, or what stands for one (of NumPy, or a tensor of one).
        right: what is expected, in words.
        found: what stands before the number in the message where it is found.
        least: the least that it may be.
        most: the most that it may be.

    Raises:
        StateError: it is none, or beyond its limits.
    """
    number = None if _is_truth(given) else _index(given)
    if number is None or not least <= number <= most:
        what = given if number is None else number
        kind = f", a {type(given).__name__}" if number is None and given is not None else ""
        raise StateError(f"expected {right}, found {found}{what!r}{kind}")
    return number


def device_of(given: Any) -> torch.device:
    """A device with its number, as tensors on it say it.

    Raises StateError for what is none, or is not there.
    """
    if isinstance(given, torch.dtype):
        raise StateError(f"expected a device, found {given}: a type is given as dtype={given}")
    try:
        return torch.empty(0, device=given).device
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:  # PyTorch says each case in another way
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise StateError(f"expected a device such as 'cpu' or 'cuda:0', found {given!r}: {reason}") from None


def type_of(given: Any) -> torch.dtype:
    """The type of a model's parameters.

    Raises StateError for what is no floating type.
    """
    if not isinstance(given, torch.dtype) or not given.is_floating_point:
        raise StateError(f"expected a floating dtype such as torch.bfloat16, found {given!r}")
    return given


def _is_truth(given: Any) -> bool:
    return isinstance(given, bool) or (isinstance(given, torch.Tensor) and given.dtype == torch.bool)


def _index(given: Any) -> int | None:
    try:
        return index(given)
    except (TypeError, RuntimeError):  # PyTorch's, of a tensor without a number
        return None
