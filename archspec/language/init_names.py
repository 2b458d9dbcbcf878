"""What an init must know of a model, read off the facts of its ops: which projections end a branch, and so on."""

from collections.abc import Iterable, Iterator, Sequence

from archspec.language.model import Head, Stack
from archspec.layers.base import NormComponent
from archspec.layers.ops import Attend, Conv, Embedding, Experts, Linear, Op, Recurrent, projection
from archspec.layers.starting import Ends, InitNames, Numbers

Placed = tuple[str, Op]  # the path of a module, and the op that it is


def init_names(stacks: Sequence[Stack], heads: Sequence[Head]) -> InitNames:
    """The names by which an init finds the tensors that it starts in a way of their own."""
    groups = [*_groups(stacks), *(_of_head(head) for head in heads)]
    every = [placed for group in groups for placed in group]
    projections = [op for _, op in every if isinstance(op, Linear)]
    patches = [op for _, op in every if isinstance(op, Conv) and op.d_in is not None]
    linears = [path for path, op in every if isinstance(op, Linear)]
    ending = {path for path, op in every if isinstance(op, Linear) and op.residual}
    queries = {path for group in groups for path in _queries(group)}
    matrices = [(path, p) for path, op in every if isinstance(op, Experts) for p in op.params if len(p.shape) == 3]
    tables = [path for path, op in every if isinstance(op, Embedding)]
    biases = {path for path, op in every if isinstance(op, Embedding) and op.biases}
    cells = (p for _, op in every if isinstance(op, Recurrent) for p in op.params)
    outputs = tuple(_output(head) for head in heads if _output(head))
    return InitNames(
        residual=_suffixes(linears, ending),
        branches=_by_stack(stacks, [stack.n_branches for stack in stacks]),
        widths=_by_stack(stacks, [stack.d_model for stack in stacks]),
        queries=_suffixes(linears, queries),
        head_dims=_head_dims(stacks),
        output=outputs[0] if len(outputs) == 1 else "",
        outputs=outputs if len(outputs) > 1 else (),
        biases=_suffixes(tables, biases),
        stacked=_once(p.name for _, p in matrices),
        stacked_residual=_once(p.name for _, p in matrices if p.residual),
        cells=_once("." + p.name.partition(".")[0] for p in cells),
        linear_biases=any(p.name.endswith(".bias") for op in (*patches, *projections) for p in op.params),
        convolutions=bool(patches),
        tables=bool(tables),
    )


def _groups(stacks: Sequence[Stack]) -> Iterator[list[Placed]]:
    """The ops of each different component, with the paths of their modules below the layer."""
    for stack in stacks:
        yield [(f"embedding.{op.name}", op) for op in stack.embedding.ops()]
        if stack.position_bias is not None:
            yield [(f"position_bias.{op.name}", op) for op in stack.position_bias.ops()]
    blocks = dict.fromkeys(layer.block for stack in stacks for s in stack.segments for layer in s.layers)
    for name, part in dict.fromkeys(placed for block in blocks for placed in block.parts):
        if not isinstance(part, NormComponent):
            yield [(f"{name}.{op.name}", op) for op in part.ops()]


def _of_head(head: Head) -> list[Placed]:
    """The ops of a head."""
    return [(f"{head.member}.{op.name}", op) for op in head.component.ops()]


def _output(head: Head) -> str:
    """The output layer of a head, where it has weights of its own."""
    path, last = _of_head(head)[-1]
    return path if isinstance(last, Linear) and head.component.tied_shape is None else ""


def _queries(group: list[Placed]) -> dict[str, int]:
    """The projections whose outputs are the queries of an attention, and the channels of a head of them."""
    ops = {op.name: op for _, op in group}
    found = [(projection(ops, op.inputs[0]), op.qk_dim) for op in ops.values() if isinstance(op, Attend)]
    return {path: dim for path, op in group for source, dim in found if op is source}


def _by_stack(stacks: Sequence[Stack], numbers: Sequence[int]) -> Numbers:
    """A number of each stack, by what the names in it start with; nothing where all have the same."""
    if len(set(numbers)) <= 1:
        return ()
    return tuple((f"{stack.name}.", number) for stack, number in zip(stacks, numbers, strict=True))


def _head_dims(stacks: Sequence[Stack]) -> Numbers:
    """The channels of a head of queries: of all, or of those of a stack, or of each projection."""
    found: dict[str, dict[str, int]] = {}
    for stack in stacks:
        start = f"{stack.name}." if len(stacks) > 1 else ""
        found[start] = {
            f"{start}blocks.{i}.{path}": dim
            for i, layer in enumerate(stack.layers)
            for name, part in layer.block.parts
            if not isinstance(part, NormComponent)
            for path, dim in _queries([(f"{name}.{op.name}", op) for op in part.ops()]).items()
        }
    every = {dim for own in found.values() for dim in own.values()}
    if len(every) == 1:
        return (("", every.pop()),)
    pairs: list[tuple[str, int]] = []
    for start, own in found.items():
        one = set(own.values())
        pairs += [(start, one.pop())] if len(one) == 1 else own.items()
    return tuple(pairs)


def _suffixes(every: list[str], wanted: set[str]) -> Ends:
    """The shortest ends of the wanted paths that no other path has."""
    others = [path for path in every if path not in wanted]
    found: list[str] = []
    for path in sorted(wanted, key=len):
        if not path.endswith(tuple(found)):
            pieces = path.split(".")
            ends = (".".join(pieces[i:]) for i in range(len(pieces) - 1, -1, -1))
            found.append(next((end for end in ends if not any(o.endswith(end) for o in others)), path))
    return _once(end for path in every for end in found if path.endswith(end))


def _once(names: Iterable[str]) -> Ends:
    """Each name once; a single one by itself."""
    found = tuple(dict.fromkeys(names))
    return found[0] if len(found) == 1 else found
