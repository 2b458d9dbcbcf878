"""An expression of the lowered program as Python."""

from collections.abc import Collection, Mapping
from types import MappingProxyType

from archspec.lowering.program import (
    Apply,
    Binary,
    ByName,
    Call,
    Collect,
    Expression,
    Negate,
    Number,
    Once,
    PerLayer,
    Scoped,
    Substate,
    Value,
)

# by member, what its forward takes beside x; a member that is not there takes all
Takes = Mapping[str, Collection[str]]


def printed(expression: Expression, takes: Takes = MappingProxyType({})) -> str:
    """The expression as the body of a forward has it; members are given no more than they take."""
    match expression:
        case Value(name=name):
            return name
        case Number(value=value):
            return repr(value)
        case PerLayer(name=name):
            return f"self.{name}"
        case Negate(operand=inner):
            return f"-{_operand(inner, '*', takes)}"
        case Binary(operator=operator, left=left, right=right):
            return f"{_operand(left, operator, takes)} {operator} {_operand(right, operator, takes, right_side=True)}"
        case Call(member=member, argument=argument, named=named, by_rows=by_rows):
            taken = [(name, value) for name, value in named if name in takes.get(member, (name,))]
            given = [printed(argument, takes), *(f"{name}={printed(value, takes)}" for name, value in taken)]
            if by_rows:
                return f"by_document({', '.join([f'self.{member}', given[0], 'rows', *given[1:]])})"
            return f"self.{member}({', '.join(given)})"
        case Apply(function=function, arguments=arguments):
            return f"{function}({', '.join(printed(argument, takes) for argument in arguments)})"
        case Substate(key=None):
            return "substate(state, i)"
        case Substate(key=key):
            return f'substate(state, "{key}")'
        case Collect():
            return "collect(aux)"
        case Scoped(key=key, numbered=True):
            return f'scope(aux, f"{key}.{{i}}")'
        case Scoped(key=key):
            return f'scope(aux, "{key}")'
        case Once(key=key, value=value):
            return f'once(state, "{key}", lambda: {printed(value, takes)})'
        case ByName(items=items):
            return "{" + ", ".join(f'"{name}": {printed(value, takes)}' for name, value in items) + "}"


def printed_at(expression: Expression, number: str) -> str:
    """What a layer is given, whose number is written so."""
    match expression:
        case Substate(key=None):
            return f"substate(state, {number})"
        case Scoped(key=key, numbered=True) if number.isdigit():
            return f'scope(aux, "{key}.{number}")'
        case Scoped(key=key, numbered=True):
            return f'scope(aux, f"{key}.{{{number}}}")'
    return printed(expression)


def _operand(expression: Expression, operator: str, takes: Takes, right_side: bool = False) -> str:
    """One side of an operation, in parentheses where Python needs them."""
    said = printed(expression, takes)
    if not isinstance(expression, Binary):
        return f"({said})" if isinstance(expression, Negate) and operator == "*" else said
    # What stands on the right keeps its parentheses always: sums of floats depend on their order.
    return f"({said})" if right_side or (operator == "*" and expression.operator in "+-") else said
