"""What an op takes of the tensors that lie side by side in its inputs: each of them is read, and of the width told."""

from collections.abc import Iterator

import pytest
from contract_specs import cases, example, host, name

from archspec.graph import graph
from archspec.language.load import load
from archspec.layers.ops import Conv, FFTConv, Linear, Norm, Op

CASES = cases("mixer", "ffn")


def ops_of(case: tuple[str, str, int]) -> dict[str, Op]:
    """The ops of a spec around one example of a component."""
    document, _ = host(case[0], example(*case))
    return {node.name: node.op for node in graph(load(document)).nodes}


def taken(op: Op, ops: dict[str, Op]) -> Iterator[tuple[str, str, int]]:
    """Input, name and width of each tensor that an op takes."""
    for source in (i for i in op.inputs if i in ops):
        yield from ((source, n, w) for n, w in ops[source].outputs if n in op.takes)


def read_width(op: Op) -> int | None:
    """How many channels an op reads of its first input, where it says so."""
    match op:
        case Linear(d_in=width) | Conv(channels=width) | FFTConv(channels=width):
            return width
        case Norm():
            return op.shape[-1] if isinstance(op.shape[-1], int) else None
    return None


@pytest.mark.parametrize("case", CASES, ids=name)
def test_outputs_lie_side_by_side(case: tuple[str, str, int]) -> None:
    for op in ops_of(case).values():
        assert not op.outputs or sum(width for _, width in op.outputs) == op.shape[-1], op.name


@pytest.mark.parametrize("case", CASES, ids=name)
def test_what_is_taken_is_there_and_of_the_width_that_is_read(case: tuple[str, str, int]) -> None:
    ops = ops_of(case)
    for op in ops.values():
        found = list(taken(op, ops))
        assert sorted(n for _, n, _ in found) == sorted(op.takes), op.name
        if op.takes and (width := read_width(op)) is not None:
            assert sum(w for _, _, w in found) == width, op.name


@pytest.mark.parametrize("case", CASES, ids=name)
def test_nothing_that_lies_side_by_side_is_left_unread(case: tuple[str, str, int]) -> None:
    ops = ops_of(case)
    for source in (op for op in ops.values() if op.outputs):
        readers = [op for op in ops.values() if source.name in op.inputs]
        every = {n for n, _ in source.outputs}
        if any(set(op.takes) & every for op in readers):
            assert set().union(*(set(op.takes) & every or every for op in readers)) == every, source.name
