"""One layer run as its wiring says: an interpreter of the dataflow language over the block's parts.

Generated files print the wiring as Python instead; this form is what they are compared with.
"""

from typing import Any

from torch import Tensor, nn

from archspec.kernels.state import substate
from archspec.language.model import Block as Config
from archspec.language.wiring import Binary, Call, Expr, Name, Negate, Number
from archspec.layers.base import NormComponent
from archspec.modules import submodule


class Block(nn.Module):
    """Norms, mixer, feed-forward and whatever else the wiring calls, with their residual paths."""

    def __init__(self, c: Config, d_model: int):
        super().__init__()
        self.c = c
        for name, part in c.parts:
            self.add_module(name, submodule(part, d_model) if isinstance(part, NormComponent) else submodule(part))
        if "dropout" in c.wiring.calls():
            self.dropout = nn.Dropout(c.dropout)

    def forward(self, x: Tensor, **inputs: Any) -> Tensor:
        """x (B, T, d_model) -> (B, T, d_model); each part gets those of the inputs that it takes."""
        values = {"x": x}
        for step in self.c.wiring.steps:
            values[step.target] = self.value(step.value, values, inputs)
        return values["x"]

    def value(self, expr: Expr, values: dict[str, Tensor], inputs: dict[str, Any]) -> Any:
        """What an expression of the wiring comes to."""
        match expr:
            case Name(name=name):
                return values[name]
            case Number(value=number):
                return number
            case Negate(operand=operand):
                return -self.value(operand, values, inputs)
            case Call(module=module, argument=argument):
                return self.call(module, self.value(argument, values, inputs), inputs)
            case Binary(operator=operator, left=left, right=right):
                a, b = self.value(left, values, inputs), self.value(right, values, inputs)
                return a + b if operator == "+" else a - b if operator == "-" else a * b
        raise TypeError(f"not an expression of the wiring: {expr}")

    def call(self, name: str, x: Tensor, inputs: dict[str, Any]) -> Any:
        """A part, given what it takes."""
        part = self.c.part(name)
        takes = {i: inputs.get(i) for i in (part.arguments if part is not None else ())}
        if "state" in takes:
            takes["state"] = substate(takes["state"], name)
        return getattr(self, name)(x, **takes)
