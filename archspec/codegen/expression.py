"""An expression of the lowered program as Python."""

from archspec.lowering.program import Binary, Call, Expression, Negate, Number, Once, Substate, Value


def printed(expression: Expression) -> str:
    """The expression as the body of a forward has it."""
    match expression:
        case Value(name=name):
            return name
        case Number(value=value):
            return repr(value)
        case Negate(operand=inner):
            return f"-{_operand(inner, '*')}"
        case Binary(operator=operator, left=left, right=right):
            return f"{_operand(left, operator)} {operator} {_operand(right, operator, right_side=True)}"
        case Call(member=member, argument=argument, named=named):
            given = [printed(argument), *(f"{name}={printed(value)}" for name, value in named)]
            return f"self.{member}({', '.join(given)})"
        case Substate(key=None):
            return "substate(state, i)"
        case Substate(key=key):
            return f'substate(state, "{key}")'
        case Once(key=key, value=value):
            return f'once(state, "{key}", lambda: {printed(value)})'


def _operand(expression: Expression, operator: str, right_side: bool = False) -> str:
    """One side of an operation, in parentheses where Python needs them."""
    said = printed(expression)
    if not isinstance(expression, Binary):
        return f"({said})" if isinstance(expression, Negate) and operator == "*" else said
    # What stands on the right keeps its parentheses always: sums of floats depend on their order.
    return f"({said})" if right_side or (operator == "*" and expression.operator in "+-") else said
