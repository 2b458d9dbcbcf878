"""What is wrong with a wiring for the parts of its block: names, modules that run, values that are read, the output."""

from collections.abc import Collection, Iterator
from itertools import chain, islice

from archspec.errors import closest, suggest
from archspec.language.arithmetic import FUNCTIONS
from archspec.language.wiring import Binary, Call, Expr, Name, Negate, Number, Wiring, listed_names, walk, written

MAX_PROBLEMS = 50


def problems(
    wiring: Wiring,
    modules: Collection[str],
    sizes: Collection[str] = (),
    given: Collection[str] = (),
    taken: Collection[str] = (),
    streams: Collection[str] = ("x",),
) -> list[str]:
    """What is wrong with a wiring for a block with these modules, in words (at most 50); empty when it is right.

    Args:
        wiring: the lines.
        modules: the parts of the block.
        sizes: the names whose values are put in, for whoever misspelt one.
        given: values of earlier layers, which lines may name and must.
        taken: values that later layers may read.
        streams: what comes in and goes on.
    """
    comes_in = {*given, *streams}
    wrong = chain(_hidden(modules, comes_in), _wrong_lines(wiring, modules, sizes, comes_in))
    lines = list(islice(wrong, MAX_PROBLEMS))
    unread = (f"reads {name!r} of an earlier layer, which no line names" for name in sorted(given)
              if not any(name in _reads(step.value) for step in wiring.steps))  # fmt: skip
    whole = chain(_unread(wiring, {*taken, *streams}), unread, _wrong_output(wiring, bool(lines), streams))
    called = {*wiring.calls(), *(modules if lines else ())}  # a wrong line may be where one was meant to be called
    uncalled = (f"the module {module!r} is never called" for module in sorted(modules) if module not in called)
    return list(islice(chain(lines, whole, uncalled), MAX_PROBLEMS))


def _hidden(modules: Collection[str], given: Collection[str]) -> Iterator[str]:
    """Values that come in under the name of a part."""
    for name in sorted({*given} & {*modules}):
        yield f"{name!r} comes into the block under the name of a module; choose another name"


def _wrong_lines(
    wiring: Wiring, modules: Collection[str], sizes: Collection[str], given: Collection[str]
) -> Iterator[str]:
    """Each line by itself, with the names that are defined when it runs."""
    defined = {*given}
    for number, step in enumerate(wiring.steps, 1):
        parts = list(walk(step.value))
        for wrong in chain.from_iterable(_wrong_part(part, defined, modules, sizes) for part in parts):
            yield f"line {number} {wrong}"
        if step.target in modules:
            yield f"line {number} assigns {step.target!r}, which is the name of a module; choose another name"
        if not _is_tensor(step.value):
            yield f"line {number} gives {step.target!r} a number; a line needs a tensor, such as x or mixer(x)"
        for part in parts:
            if isinstance(part, Binary) and part.operator == "*":
                for factor, other in ((part.left, part.right), (part.right, part.left)):
                    if _is_zero(factor) and _is_tensor(other):
                        yield f"line {number}: the factor 0 leaves nothing of {written(other)}; remove the product"
        defined.add(step.target)


def _wrong_part(
    part: Expr, defined: Collection[str], modules: Collection[str], sizes: Collection[str]
) -> Iterator[str]:
    """A name that is not defined yet, a module that does not exist, a module that gets a number."""
    if isinstance(part, Name) and part.name not in defined:
        if part.name in modules:
            yield f"names the module {part.name!r} without a call; write {part.name}(x)"
        else:
            meant = closest(part.name, sizes)
            advice = f"; did you mean the size {meant!r}?" if meant else f"; known: {listed_names(defined)}"
            yield f"reads {part.name!r}, which no earlier line defines{advice}"
    elif isinstance(part, Call):
        if part.module not in modules:
            known = suggest(part.module, modules) if modules else "; it has none"
            if part.module in FUNCTIONS:
                known = f"; {part.module} of numbers and sizes is a number, but this is a tensor"
            yield f"calls {part.module!r}, which is no module of the block{known}"
        if not _is_tensor(part.argument):
            yield f"gives {part.module!r} a number; a module needs a tensor"


def _is_zero(expr: Expr) -> bool:
    match expr:
        case Number(value=value):
            return value == 0
        case Negate(operand=operand):
            return _is_zero(operand)
        case Binary(operator="*", left=left, right=right):
            return _is_zero(left) or _is_zero(right)
    return False


def _is_tensor(expr: Expr) -> bool:
    return any(isinstance(part, (Name, Call)) for part in walk(expr))


def _reads(expr: Expr) -> set[str]:
    return {part.name for part in walk(expr) if isinstance(part, Name)}


def _unread(wiring: Wiring, taken: Collection[str]) -> Iterator[str]:
    """Values that are dropped: assigned, and then assigned again or forgotten before anything reads them."""
    waiting: dict[str, int] = {}  # what is not read yet, and the line that assigned it
    found = {}
    for number, step in enumerate(wiring.steps, 1):
        waiting = {target: at for target, at in waiting.items() if target not in _reads(step.value)}
        if (at := waiting.get(step.target)) is not None:
            found[at] = f"line {at} assigns {step.target!r}, which line {number} overwrites before anything reads it"
        waiting[step.target] = number
    for target, at in waiting.items():
        if at < len(wiring.steps) and target not in taken:
            found[at] = f"line {at} assigns {target!r}, which no later line reads"
    yield from (found[at] for at in sorted(found))


def _wrong_output(wiring: Wiring, doubtful: bool, streams: Collection[str]) -> Iterator[str]:
    """The last line must assign x, or a stream; what goes on must have come from what came in.

    A wrong line leaves open whether it has.
    """
    independent: set[str] = set()
    for step in wiring.steps:  # a name that nothing defines is taken to depend on x, as it is told elsewhere
        depends = bool(_reads(step.value) - independent)
        independent = independent - {step.target} if depends else independent | {step.target}
    last, names = wiring.steps[-1].target, " or ".join(streams)
    if last not in streams:
        yield f"the last line assigns {last!r}, but the output of a block is {names}; write {names} = ... there"
    elif not doubtful and (lost := sorted(independent.intersection(streams))):
        yield f"the output {lost[0]} does not depend on the input {names}"
