"""The text of a block: its parts, and its wiring printed as Python."""

from archspec.codegen.layout import WIDTH
from archspec.codegen.lines import fitted, header, signature
from archspec.codegen.writer import Writer
from archspec.language.model import Block, Stack
from archspec.language.wiring import Binary, Call, Expr, Name, Negate, text
from archspec.layers.base import NormComponent


def write_block(writer: Writer, block: Block, stack: Stack) -> str:
    """The class of a block; returns its name."""
    name = writer.names[block]
    if name in writer.parts:
        return name
    width = width_of(writer, stack)
    lines = [f"class {name}(nn.Module):", f'    """{summary(block)}"""', "", "    def __init__(self) -> None:"]
    lines.append("        super().__init__()")
    for part_name, part in block.parts:
        made = writer.layer(part)
        lines.append(f"        self.{part_name} = {made}({width if isinstance(part, NormComponent) else ''})")
    if "dropout" in block.wiring.calls():
        lines.append(f"        self.dropout = nn.Dropout({block.dropout!r})")
    if "state" in stack.arguments:
        need_state(writer)
    lines += ["", *header("forward", signature(stack.arguments))]
    lines.append(f'        """x (B, T, {width}) -> (B, T, {width})."""')
    for i, step in enumerate(block.wiring.steps):
        value = expression(step.value, block)
        is_last = i == len(block.wiring.steps) - 1
        lines += fitted("return " + value if is_last else f"{step.target} = {value}")
    writer.parts[name] = "\n".join(lines)
    return name


def need_state(writer: Writer) -> None:
    """Import what handling decoding state needs."""
    writer.need("archspec.kernels.state", "State")
    writer.need("archspec.kernels.state", "substate")


def width_of(writer: Writer, stack: Stack) -> str:
    """The width of a stack as the file calls it."""
    parts = [p for s in stack.segments for la in s.layers for _, p in la.block.parts]
    for c in [*parts, stack.embedding]:
        if getattr(c, "d_model", None) == stack.d_model:
            return writer.constant(c, "d_model", stack.d_model) or str(stack.d_model)
    return str(stack.d_model)


def summary(block: Block) -> str:
    """What a block computes, as its docstring."""
    said = "; ".join(block.wiring.lines())
    return said + "." if len(said) < WIDTH - 14 else "One residual block."


def expression(expr: Expr, block: Block) -> str:
    """An expression of the wiring as Python."""
    match expr:
        case Call(module=module, argument=argument):
            part = block.part(module)
            extra = [f"{i}={passed(i, module)}" for i in (part.arguments if part is not None else ())]
            return f"self.{module}({', '.join([expression(argument, block), *extra])})"
        case Binary(operator=operator, left=left, right=right):
            a, b = operand(left, block, operator), operand(right, block, operator, right_side=True)
            return f"{a} {operator} {b}"
        case Negate(operand=inner):
            return f"-{operand(inner, block, '*')}"
        case Name(name=name):
            return name
    return text(expr)


def operand(expr: Expr, block: Block, operator: str, right_side: bool = False) -> str:
    """One side of an operation, in parentheses where Python needs them."""
    said = expression(expr, block)
    if not isinstance(expr, Binary):
        return f"({said})" if isinstance(expr, Negate) and operator == "*" else said
    # What stands on the right keeps its parentheses always: sums of floats depend on their order.
    return f"({said})" if right_side or (operator == "*" and expr.operator in "+-") else said


def passed(name: str, module: str) -> str:
    """What a part is given for one of its inputs."""
    return f'substate(state, "{module}")' if name == "state" else name
