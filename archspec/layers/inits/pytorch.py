"""PyTorch's own init: linear layers uniform within fan_in^-0.5, weights and biases; tables N(0, 1).

Source: `reset_parameters` of `torch.nn.Linear` and `torch.nn.Embedding`.
"""

from typing import ClassVar, Literal

from archspec.layers.base import Component
from archspec.layers.ops import Op


class PyTorchInit(Component):
    """What `torch.nn` does by itself."""

    role: ClassVar[str] = "init"

    kind: Literal["pytorch"] = "pytorch"

    def ops(self) -> tuple[Op, ...]:
        """None: an init changes values, not tensors."""
        return ()
