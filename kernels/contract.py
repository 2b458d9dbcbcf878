"""What an operator demands of its arguments, said once a call: shapes by named axes, floating types, one device."""

from torch import Tensor


def require(op: str, /, **tensors: tuple[Tensor | None, str]) -> dict[str, int]:
    """Check tensors given as name=(tensor, "B T D") and return the size of each axis.

    An axis that appears twice must have one size; a number is that size; a leading "..." stands for any axes. None is
    an absent argument. Raises ValueError or TypeError naming the operator, the argument, what it is and what is right.
    """
    sizes: dict[str, int] = {}
    first = ""
    device = None
    for name, (tensor, axes) in tensors.items():
        if tensor is None:
            continue
        wanted = axes.split()
        shape = tuple(tensor.shape)
        if wanted[:1] == ["..."]:
            wanted = wanted[1:]
            shape = shape[max(len(shape) - len(wanted), 0) :]
        if len(shape) != len(wanted):
            least = "at least " if axes.startswith("...") else ""
            raise ValueError(
                f"{op}: {name} has shape {tuple(tensor.shape)}, expected {least}{len(wanted)} axes ({axes})"
            )
        for axis, size in zip(wanted, shape, strict=True):
            if (int(axis) if axis.isdigit() else sizes.setdefault(axis, size)) != size:
                right = ", ".join(f"{a} = {sizes[a]}" for a in dict.fromkeys(wanted) if a in sizes)
                raise ValueError(f"{op}: {name} has shape {tuple(tensor.shape)}, expected ({axes}) with {right}")
        if not (tensor.is_floating_point() or tensor.is_complex()):
            raise TypeError(f"{op}: {name} is {tensor.dtype}, expected a floating type")
        if device is None:
            first, device = name, tensor.device
        elif tensor.device != device:
            raise ValueError(f"{op}: {name} is on {tensor.device}, expected {device}, where {first} is")
    return sizes


def require_integers(op: str, beside: Tensor | None = None, /, **tensors: Tensor | None) -> None:
    """Check that arguments that number things are whole numbers (or None), on the device of the tensor `beside`."""
    for name, tensor in tensors.items():
        if tensor is not None and (tensor.is_floating_point() or tensor.is_complex()):
            raise TypeError(f"{op}: {name} is {tensor.dtype}, expected whole numbers")
        if tensor is not None and beside is not None and tensor.device != beside.device:
            raise ValueError(f"{op}: {name} is on {tensor.device}, expected {beside.device}")


def require_choice(op: str, name: str, value: object, choices: tuple[object, ...]) -> None:
    """Check that a setting is one of its choices."""
    if value not in choices:
        raise ValueError(f"{op}: {name} is {value!r}, expected one of {', '.join(map(repr, choices))}")
