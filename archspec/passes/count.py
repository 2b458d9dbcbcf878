"""Exact parameter counts: of every tensor, module and kind, folded over repeats, with totals.

Tied and shared tensors count once. `active` is what one token uses: all parameters, but of the routed experts only the
share that the router picks (of expert choice, the share on average). Caches and states are those of the main stack, the
only one that decodes; the outputs of earlier stacks, which decoding holds beside them, are not among them.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

from archspec.graph import Node, graph
from archspec.language.model import Spec
from archspec.layers.ops import Kept, Param, Run
from archspec.passes.tensors import Tensor, registered, tensors


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: `count` elements in each of `copies` places, for `repeat` layers.

    `buffer` says that all of it are buffers, which are no parameters; `note` is a remark for people.
    """

    module: str
    kind: str
    shape: str
    count: int
    copies: int
    repeat: int
    buffer: bool
    note: str

    @property
    def total(self) -> int:
        """Elements of all copies."""
        return self.count * self.copies


@dataclass(frozen=True)
class Count:
    """The counts of a spec; sizes are numbers of elements, `*_bytes*` are bytes at 2 bytes an element."""

    name: str
    rows: tuple[Row, ...]
    total: int
    trainable: int
    active: int
    embedding: int
    tied: int
    buffers: int
    layers: int
    kv_bytes_per_token: int
    memory_bytes_per_token: int
    state_bytes: int
    cache_bytes_at_max: int | None
    held_bytes_at_max: int | None
    nodes: tuple[Node, ...] = field(repr=False, compare=False)

    @cached_property
    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor of the model, repeats written out."""
        return tuple(tensors(self.nodes))


def count(spec: Spec) -> Count:
    """Count the parameters of a spec without building it."""
    every = graph(spec).nodes
    decoding = [node for node in every if node.stack == spec.main.name]
    total = _sum(every, lambda p: 0 if p.buffer else p.numel)
    window = spec.max_seq_len
    return Count(
        name=spec.name,
        rows=tuple(rows(every)),
        total=total,
        trainable=total,
        active=_sum(every, lambda p: 0 if p.buffer else p.numel * p.active[0] // p.active[1]),
        embedding=_sum((s for s in every if s.part == "embedding"), lambda p: 0 if p.buffer else p.numel),
        tied=_tied(spec, every),
        buffers=_sum(every, lambda p: p.numel if p.buffer else 0),
        layers=sum(stack.n_layers for stack in spec.stacks),
        kv_bytes_per_token=sum(n.repeat * k.width() * k.per_token() for n, k in kept(decoding) if k.grows == "S"),
        memory_bytes_per_token=sum(n.repeat * k.width() * k.per_token() for n, k in kept(decoding) if k.grows == "M"),
        state_bytes=sum(n.repeat * k.width() * k.fixed() for n, k in kept(decoding)),
        cache_bytes_at_max=None if window is None else cache_bytes(decoding, window),
        held_bytes_at_max=None if window is None else cache_bytes(decoding, window, held=True),
        nodes=every,
    )


def kept(nodes: Iterable[Node]) -> Iterator[tuple[Node, Kept]]:
    """What each node keeps while decoding."""
    return ((node, k) for node in nodes for k in node.op.kept)


def cache_bytes(nodes: Iterable[Node], tokens: int, width: int = 2, held: bool = False) -> int:
    """Bytes of decoding state of one sequence after that many tokens (and with a memory of as many).

    Args:
        nodes: what decodes.
        tokens: that it has seen.
        width: bytes of an element of the model; some states are wider whatever the model's type.
        held: what stands in memory, which grows by whole blocks of tokens, instead of what is needed.
    """
    run = Run(B=1, T=1, S=tokens, M=tokens)
    return sum(n.repeat * k.width(width) * prod(k.held(run) if held else k.needed(run)) for n, k in kept(nodes))


def rows(every: Iterable[Node]) -> list[Row]:
    """One row for each sub-module that has tensors, in order."""
    found: list[Row] = []
    for node in every:
        by_module: dict[str, list[Param]] = {}
        for p in registered(node.params):
            by_module.setdefault(p.name.rpartition(".")[0], []).append(p)
        for module, params in by_module.items():
            found.append(_row(module, node, params))
    return found


def _row(module: str, node: Node, params: list[Param]) -> Row:
    return Row(
        module=spread(module, node),
        kind=kind(node),
        shape=", ".join(map(_sized, params)),
        count=sum(p.numel for p in params),
        copies=node.copies,
        repeat=node.repeat,
        buffer=all(p.buffer for p in params),
        note=_note(node, module, params),
    )


def spread(module: str, node: Node) -> str:
    """The name of a module over all of its repeats: `blocks.0` of 4 repeats of one layer is `blocks.0-3`."""
    if node.repeat == 1 or "blocks." not in module:
        return module
    head, _, tail = module.partition("blocks.")
    index, dot, rest = tail.partition(".")
    first, last = int(index), int(index) + (node.repeat - 1) * node.period
    if node.period == 1:
        return f"{head}blocks.{first}-{last}{dot}{rest}"
    middle = f"{first},{last}" if node.repeat == 2 else f"{first},{first + node.period}..{last}"
    return f"{head}blocks.{middle}{dot}{rest}"


def kind(node: Node) -> str:
    """The kind of thing that owns a node's tensors, for totals by kind."""
    return node.component.kind if node.component is not None else node.part


def _sized(p: Param) -> str:
    """The shape of a tensor, after its name where that says more than weight or bias."""
    name, shape = p.name.rpartition(".")[2], " x ".join(map(str, p.shape))
    return shape if name in ("weight", "bias") else f"{name} {shape}"


def _note(node: Node, module: str, params: list[Param]) -> str:
    """What is said of an op stands at its own module, or at the one that holds its tensors itself."""
    op = node.op.note if module in (node.op.name, node.op.name.rpartition(".")[0]) else ""
    own = ", ".join(name for name, _ in node.op.outputs) if module == node.op.name else ""
    notes = [n for n in [own, op, *(p.note for p in params)] if n]
    used, of = next((p.active for p in params if p.active != (1, 1)), (1, 1))
    notes += [f"{used} of {of} for each token"] if used != of else []
    return "; ".join(dict.fromkeys(notes))


def _sum(every: Iterable[Node], size: Callable[[Param], int]) -> int:
    return sum(node.copies * size(p) for node in every for p in node.params)


def _tied(spec: Spec, every: Iterable[Node]) -> int:
    sizes = {p.name: p.numel for node in every for p in node.params}
    return sum(sizes.get(used, 0) for _, used in spec.ties)
