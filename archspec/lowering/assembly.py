"""A whole spec lowered: embedding, layers, final norm and heads, in one stack or several."""

from archspec.language.model import Block, Head, Spec, Stack
from archspec.language.streams import named
from archspec.layers.arguments import ARGUMENTS, in_order
from archspec.lowering.layout import LaidOut
from archspec.lowering.program import (
    Apply,
    Assign,
    ByName,
    Call,
    Collect,
    Each,
    Expression,
    Function,
    Layers,
    Member,
    Once,
    Parameter,
    Passed,
    Period,
    Run,
    Scoped,
    Statement,
    Substate,
    Value,
)
from archspec.lowering.wiring import lower_block, plain

# names that the forward of a model uses
LOCAL = frozenset({"self", "x", "once", "substate", "collect", "scope", "as_mask", "as_documents", "as_global_mask"})


def lower_model(spec: Spec) -> Function:
    """The function of a spec. One stack is part of the model itself; several are members of it, run one by one."""
    arguments = tuple(Parameter(a.name, a.of, not a.optional) for a in spec.arguments)
    collects = any(a.of == "aux" for a in spec.arguments)
    first = (Assign("aux", Collect()),) if collects else ()
    heads = tuple(Member(head.member, head.component) for head in spec.heads)
    if len(spec.stacks) == 1:
        members, statements, x = _body(spec, spec.main, arguments[0].name)
        last, result = _headed(spec, x)
        return Function(spec, spec.main, (*members, *heads), arguments, (*first, *statements, *last), result)
    members = tuple(Member(s.name, _lower_stack(spec, s)) for s in spec.stacks)
    runs = tuple(
        statement
        for stack in spec.stacks
        for statement in (*_numbered(spec, stack), *_masked(spec, stack), *_remembered(spec, stack), _run(spec, stack))
    )
    last, result = _headed(spec, Value("x"))
    return Function(spec, spec.main, (*members, *heads), arguments, (*first, *runs, *last), result)


def _headed(spec: Spec, x: Expression) -> tuple[tuple[Assign, ...], Expression]:
    """What the heads give of the last hidden states, after statements: that of one, or a dict by their names."""
    if not spec.by_name:
        return (), _answer(spec, spec.heads[0], x)
    named = () if x == Value("x") else (Assign("x", x, ("B", "T", spec.main.d_model)),)
    return named, ByName(tuple((head.name, _answer(spec, head, Value(head.reads or "x"))) for head in spec.heads))


def _answer(spec: Spec, head: Head, x: Expression) -> Call:
    """A head on what it reads, with the arguments of the main stack that it takes."""
    own = {a.of: a.name for a in spec.arguments if a.stack == spec.main.name}
    named = ((name, Value(own[name])) for name in head.component.arguments if name in own)
    return Call(head.member, x, tuple(named))


def _lower_stack(spec: Spec, stack: Stack) -> Function:
    """The function of one of several stacks."""
    reads = stack.embedding.reads
    members, statements, x = _body(spec, stack, reads)
    takes = tuple(Parameter(name, name) for name in _takes(spec, stack))
    return Function(stack, stack, members, (Parameter(reads, reads, True), *takes), statements, x)


def _takes(spec: Spec, stack: Stack) -> tuple[str, ...]:
    """What a stack of its own takes beside its input: what its caller gives, or another stack."""
    names = {*spec.given(stack), *(name for name in spec.layers_take(stack) if ARGUMENTS[name].maker != "model")}
    names |= {name for name in ("memory_mask", "memory_documents") if name in spec.layers_take(stack)}
    return in_order((names | ({"state"} if spec.decodes(stack) else set())) - {"bias"} - _made_here(spec, stack))


def _made_here(spec: Spec, stack: Stack) -> set[str]:
    """Positions that are counted, and not given."""
    return {"positions"} - spec.given(stack) | (set() if spec.decodes(stack) else {"state"})


def _run(spec: Spec, stack: Stack) -> Assign:
    """One of several stacks called; those before the last run once for a sequence."""
    own = [a for a in spec.arguments if a.stack == stack.name]
    given: dict[str, Expression] = {a.of: Value(a.name) for a in own}
    given |= {"memory": Value(_local(spec, stack.memory or "")), "memory_mask": Value(f"{stack.memory}_mask")}
    given |= {"memory_documents": Value(f"{stack.memory}_documents")}
    given |= {"state": Substate(stack.name), "aux": Scoped(stack.name)}
    call = Call(stack.name, Value(own[0].name), tuple((name, given[name]) for name in _takes(spec, stack)))
    shape = ("B", "T", stack.d_model)
    if stack is spec.main:
        return Assign("x", call, shape)
    output = _local(spec, stack.name)
    remembered = Once(f"{stack.name}_output", call)
    return Assign(output, remembered) if spec.decodes(spec.main) else Assign(output, call, shape)


def _numbered(spec: Spec, stack: Stack) -> tuple[Assign, ...]:
    """The documents of a stack by numbers, which another stack is given too."""
    own = {a.of: Value(a.name) for a in spec.arguments if a.stack == stack.name}
    if "documents" not in own:
        return ()
    check = Apply("as_documents", (own["documents"], own[stack.embedding.reads]))
    return (Assign(own["documents"].name, check, checks=True),)


def _masked(spec: Spec, stack: Stack) -> tuple[Assign, ...]:
    """The mask of a stack as booleans, where another stack reads its output; of an image it is known afterwards."""
    own = {a.of: Value(a.name) for a in spec.arguments if a.stack == stack.name}
    others = (s for s in spec.stacks if s.memory == stack.name)
    if (
        "mask" not in own
        or stack.embedding.n_tokens != "T"
        or not any("memory_mask" in _takes(spec, s) for s in others)
    ):
        return ()
    return (Assign(own["mask"].name, Apply("as_mask", (own["mask"], own[stack.embedding.reads])), checks=True),)


def _remembered(spec: Spec, stack: Stack) -> tuple[Assign, ...]:
    """The mask of the memory that a stack reads: given with the first tokens, it holds for the rest."""
    if not spec.decodes(stack) or "memory_mask" not in _takes(spec, stack):
        return ()
    mask = f"{stack.memory}_mask"
    return (Assign(mask, Once(mask, Value(mask))),)


def _local(spec: Spec, stack: str) -> str:
    """What the output of a stack is called in the forward of the model, where other names have a meaning."""
    others = {*LOCAL, *(a.name for a in spec.arguments)}
    return f"{stack}_output" if stack in others else stack


def _body(spec: Spec, stack: Stack, reads: str) -> tuple[tuple[Member, ...], tuple[Statement, ...], Expression]:
    """The members of a stack, the statements from its input to its layers' output, and what it gives."""
    decodes = spec.decodes(stack)
    laid_out = LaidOut(spec, stack, reads)
    members = [Member("embedding", stack.embedding)]
    statements: list[Statement] = laid_out.statements()
    if stack.position_bias is not None:
        members.append(Member("position_bias", stack.position_bias))
        shape = (1, "H", "T", "S" if decodes else "T")
        statements.append(Assign("bias", laid_out.call("position_bias", stack.position_bias, Value("x")), shape))
    takes = spec.layers_take(stack)
    members.append(Member("blocks", Layers(tuple(_periods(stack, takes)))))
    each = [name for name in takes if name != "state" or decodes]
    own: dict[str, Expression] = {"state": Substate(None), "aux": Scoped("blocks", numbered=True)}
    layers = tuple((name, own.get(name, laid_out.value(name))) for name in each)
    statements += [Assign(s.target, plain(s.value)) for s in (stack.streams.start.steps if stack.streams else ())]
    statements.append(Each(named(stack.streams)[0], "blocks", layers, _runs_of(stack) if stack.links else ()))
    statements += [Assign(s.target, plain(s.value)) for s in (stack.streams.end.steps if stack.streams else ())]
    for name in dict.fromkeys(head.reads for head in spec.heads if head.reads and stack is spec.main):
        value = laid_out.restored(Value(name))
        statements += [Assign(name, value)] if value != Value(name) else []
    x = laid_out.restored(Value("x"))
    if stack.final_norm is None:
        return tuple(members), tuple(statements), x
    members.append(Member("norm", stack.final_norm, stack.d_model))
    return tuple(members), tuple(statements), Call("norm", x)


def _runs_of(stack: Stack) -> tuple[Run, ...]:
    """What passes between the layers of each segment beside x."""
    return tuple(Run(s.start, s.repeat, tuple(_passed(la.block, stack) for la in s.layers)) for s in stack.segments)


def _passed(block: Block, stack: Stack) -> Passed:
    """What passes by a block beside x, or the first stream, each value once."""
    others = named(stack.streams)[1:]
    reads = dict.fromkeys((*others, *(link.name for link in block.reads)))
    return Passed(tuple(reads), (*others, *(link.name for link in block.gives)))


def _periods(stack: Stack, takes: tuple[str, ...]) -> list[Period]:
    """The segments of a stack with their blocks lowered, equal blocks once."""
    done: dict[object, Function] = {}
    for segment in stack.segments:
        for layer in segment.layers:
            if layer.block not in done:
                done[layer.block] = lower_block(layer.block, stack, takes)
    return [Period(s.start, tuple(done[layer.block] for layer in s.layers), s.repeat, s.shared) for s in stack.segments]
