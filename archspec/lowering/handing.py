"""Calls that give more than one value, each taken out of its line: what later layers read has a name before x goes on.

    x = x + mixer(norm1(x))       mixer_output, k, v = mixer(norm1(x))
                                  x = x + mixer_output

What runs before such a call in its line still does: parts run in the order in which the wiring names them.
"""

from archspec.language.model import Block
from archspec.lowering.program import Assign, Binary, Call, Expression, Negate, Value, walk


class Handing:
    """The lines of one block, taken apart where a part gives more than its output."""

    def __init__(self, block: Block):
        self.block = block
        self.taken = {step.target for step in block.wiring.steps}
        self.taken |= {link.name for link in (*block.gives, *block.reads)}

    def line(self, value: Expression) -> tuple[list[Assign], Expression]:
        """The statements that come before a line, and what is left of its value."""
        if not self._hands(value):
            return [], value
        match value:
            case Call(member=member, argument=argument):
                before, argument = self.line(argument)
                call = value._replace(argument=argument)
                names = self._names(member)
                if not names:
                    return before, call
                part = self.block.part(member)
                assert part is not None
                output = self._output(member)
                targets = [output, *(names.get(port, "_") for port in part.offers)]
                return [*before, Assign(", ".join(targets), call)], Value(output)
            case Negate(operand=operand):
                before, operand = self.line(operand)
                return before, Negate(operand)
            case Binary(operator=operator, left=left, right=right):
                before, left = self.line(left)
                after, right = self.line(right)
                ran, left = self._ran(left) if after else ([], left)
                return [*before, *ran, *after], Binary(operator, left, right)
        return [], value

    def _ran(self, value: Expression) -> tuple[list[Assign], Expression]:
        """An expression whose calls have run before it, as statements."""
        match value:
            case Call(member=member):
                output = self._output(member)
                return [Assign(output, value)], Value(output)
            case Negate(operand=operand):
                before, operand = self._ran(operand)
                return before, Negate(operand)
            case Binary(operator=operator, left=left, right=right):
                before, left = self._ran(left)
                after, right = self._ran(right)
                return [*before, *after], Binary(operator, left, right)
        return [], value

    def _hands(self, value: Expression) -> bool:
        return any(isinstance(part, Call) and bool(self._names(part.member)) for part in walk(value))

    def _names(self, part: str) -> dict[str, str]:
        """What later layers read of a part: names by port."""
        return {link.port: link.name for link in self.block.gives if link.part == part}

    def _output(self, part: str) -> str:
        """A name for the output of a part, unlike all others of the block."""
        wished = f"{part}_output"
        while wished in self.taken:
            wished += "_"
        self.taken.add(wished)
        return wished
