"""A block lowered: its wiring, with what each part takes beside its operand."""

from functools import cache

from archspec.language import wiring as written
from archspec.language.model import Block, Stack
from archspec.language.streams import named
from archspec.layers.base import NormComponent
from archspec.lowering.handing import Handing
from archspec.lowering.program import (
    Assign,
    Binary,
    Call,
    Dropout,
    Expression,
    Function,
    Member,
    Negate,
    Number,
    Parameter,
    PerLayer,
    Scoped,
    Substate,
    Value,
)

OF_ROWS = ("mask", "key_mask")  # what rows of one document each have of their own, also in a model that takes no mask


def lower_block(block: Block, stack: Stack, takes: tuple[str, ...]) -> Function:
    """The function of a block; it takes what any layer of its stack takes, so that all are called alike."""
    parts = [
        Member(name, part, stack.d_model if isinstance(part, NormComponent) else None) for name, part in block.parts
    ]
    if "dropout" in block.wiring.calls():
        parts.append(Member("dropout", Dropout(block.dropout)))
    first, *others = named(stack.streams)
    reads = dict.fromkeys((*others, *(link.name for link in block.reads)))
    statements: list[Assign] = []
    handing = Handing(block)
    for line in block.wiring.steps:
        before, value = handing.line(_expression(line.value, block, stack, takes))
        statements += [*before, Assign(line.target, value)]
    given = tuple(link.name if link.part else link.port for link in block.gives)
    last = Value(first) if others or first in given else statements.pop().value
    return Function(
        of=block,
        stack=stack,
        members=tuple(parts),
        parameters=(
            Parameter(first, "x", True),
            *(Parameter(name, name, True) for name in reads),
            *(Parameter(name, name) for name in takes),
        ),
        statements=tuple(statements),
        result=last,
        gives=(*others, *given),
    )


def _expression(expr: written.Expr, block: Block, stack: Stack, takes: tuple[str, ...]) -> Expression:
    match expr:
        case written.Name(name=name):
            return Value(name)
        case written.Number(value=value):
            return Number(value)
        case written.PerLayer(text=text):
            return PerLayer(_names_of_factors(block)[text], text)
        case written.Negate(operand=operand):
            return Negate(_expression(operand, block, stack, takes))
        case written.Binary(operator=operator, left=left, right=right):
            return Binary(operator, _expression(left, block, stack, takes), _expression(right, block, stack, takes))
        case written.Call(module=module, argument=argument):
            part = block.part(module)
            by_rows = part is not None and "rows" in takes and stack.by_rows(part)
            names = () if part is None else tuple(n for n in part.arguments if n in takes or (by_rows and n in OF_ROWS))
            read = tuple((link.port, Value(link.name)) for link in block.reads if link.part == module)
            given = ((name, passed(name, module) if name in takes else Value("None")) for name in names)
            named = (*(pair for pair in given if pair[0] not in dict(read)), *read)
            return Call(module, _expression(argument, block, stack, takes), named, by_rows)
    raise TypeError(f"{written.written(expr)} has no value yet")


def _names_of_factors(block: Block) -> dict[str, str]:
    """What a block calls its numbers that differ from layer to layer: `factor`, or `factor1`, `factor2`, ..."""
    texts = block.wiring.per_layer()
    taken = {name for name, _ in block.parts}
    wished = ["factor"] if len(texts) == 1 else [f"factor{i}" for i in range(1, len(texts) + 1)]
    return {text: f"{name}_" if name in taken else name for text, name in zip(texts, wished, strict=True)}


def plain(expr: written.Expr) -> Expression:
    """An expression that calls nothing."""
    match expr:
        case written.Name(name=name):
            return Value(name)
        case written.Number(value=value):
            return Number(value)
        case written.Negate(operand=operand):
            return Negate(plain(operand))
        case written.Binary(operator=operator, left=left, right=right):
            return Binary(operator, plain(left), plain(right))
    raise TypeError(f"{written.written(expr)} is not plain")


@cache
def passed(argument: str, member: str) -> Expression:
    """What a member is given for one of its arguments: the value of that name, or its share of the state or of aux."""
    return Substate(member) if argument == "state" else Scoped(member) if argument == "aux" else Value(argument)
