"""Exact parameter counts: of every tensor, module and kind, folded over repeats, with totals.

Tied and shared tensors count once. `active` is what one token uses: all parameters, but of the routed experts only the
share that the router picks (of expert choice, the share on average). Caches and states are those of the main stack, the
only one that decodes; the outputs of earlier stacks, which decoding holds beside them, are not among them. What grows
with the text is `cache_bytes`, what does not `state_bytes`, as in a cost.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from math import prod
from typing import Any, get_args

from archspec.errors import many
from archspec.graph import Node, graph
from archspec.language.model import Spec
from archspec.layers.ops import Kept, Param, Run
from archspec.passes import records
from archspec.passes.dtypes import bytes_of
from archspec.passes.html import html_table
from archspec.passes.tensors import Tensor, registered, tensors
from archspec.passes.workload import workload


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
    """The counts of a spec, in numbers of elements, and the bytes of its decoding state.

    Attributes:
        rows: one for each sub-module, layers that repeat once.
        total: parameters, tied and shared ones once; `trainable` are those that are trained.
        active: parameters that one token uses.
        embedding, tied, buffers: parameters of embeddings; those that a tied tensor does not add; persistent buffers.
        layers: that run, of all stacks.
        kv_bytes_per_token, memory_bytes_per_token: what caches grow by for a token of one sequence, and of its memory.
        cache_bytes: what grows with the text, of `batch` sequences of `seq` tokens and `memory` of their memory; None
            where there is no length, neither given nor as max_seq_len.
        state_bytes: what does not, of `batch` sequences.
        held_bytes: both, as they stand in memory, where caches grow by whole blocks of tokens.
        batch, seq, memory, dtype: what the bytes are of; states that are always exact keep at least 4 bytes a number.
    """

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
    cache_bytes: int | None
    state_bytes: int
    held_bytes: int | None
    batch: int
    seq: int | None
    memory: int | None
    dtype: str
    nodes: tuple[Node, ...] = field(repr=False, compare=False)

    def __str__(self) -> str:
        layers = many(self.layers, "layer")
        active = f", {self.active:,} of them active" if self.active != self.total else ""
        lines = [f"{self.name}: {many(self.total, 'parameter')} in {layers}{active}"]
        lines += [f"  {name} {n:,}" for name, n in records.kinds(self).items() if n]
        each, all_of = (" of each sequence", f" of {self.batch:,} sequences") if self.batch > 1 else ("", "")
        grows = [f"{self.kv_bytes_per_token:,} bytes a token{each}"] if self.kv_bytes_per_token else []
        fixed = [f"{self.state_bytes:,} bytes of state{all_of}"] if self.state_bytes else []
        return "\n".join([*lines, *(["  decoding keeps " + " and ".join([*grows, *fixed])] if grows or fixed else [])])

    def _repr_html_(self) -> str:
        found = records.records(self, "module")
        lines = [tuple(f"{v:,}" if isinstance(v, int) else v for v in record.values()) for record in found]
        caption = f"{self.name}: {many(self.total, 'parameter')}"
        return html_table([("module", "kind", "shape", "count", "copies", "total", "note"), *lines], caption)

    def to_pandas(self, by: records.By = "module") -> Any:
        """The modules, tensors or kinds as a pandas.DataFrame, with the columns that JSON and CSV have.

        Raises:
            MissingError: pandas is not installed.
        """
        if by not in get_args(records.By):
            raise ValueError(f"by = {by!r} is none of {', '.join(get_args(records.By))}")
        return records.frame(records.records(self, by))

    @cached_property
    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor of the model, repeats written out."""
        return tuple(tensors(self.nodes))


def count(
    spec: Spec, *, batch: int = 1, seq: int | None = None, memory: int | None = None, dtype: str = "bfloat16"
) -> Count:
    """Count the parameters of a spec without building it, and the bytes of its decoding state.

    Args:
        spec: what to count.
        batch: sequences whose decoding state is counted.
        seq: tokens of each; max_seq_len where it is not given.
        memory: tokens of what an encoder has read, as many as `seq` where it is not given.
        dtype: of the decoding state.

    Raises:
        CostError: a size is none, or beyond what the model takes; or there is no such dtype.
    """
    every = graph(spec).nodes
    decoding = [node for node in every if node.stack == spec.main.name]
    total = _sum(every, lambda p: 0 if p.buffer else p.numel)
    width = bytes_of(dtype)
    known = seq is not None or spec.max_seq_len is not None or spec.main.embedding.n_tokens != "T"
    work = workload(spec, batch=batch, seq=seq if known else 1, memory=memory, phase="prefill")
    keeps = partial(cache_bytes, decoding, work.seq, width, memory=work.memory, batch=batch)
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
        kv_bytes_per_token=_per_token(decoding, "S", width),
        memory_bytes_per_token=_per_token(decoding, "M", width),
        cache_bytes=keeps(grown=True) if known else None,
        state_bytes=keeps(grown=False),
        held_bytes=keeps(held=True) if known else None,
        batch=batch,
        seq=work.seq if known else None,
        memory=work.memory if known and spec.main.memory else None,
        dtype=dtype,
        nodes=every,
    )


def _per_token(nodes: Iterable[Node], length: str, width: int) -> int:
    return sum(n.repeat * k.width(width) * k.per_token() for n, k in kept(nodes) if k.grows == length)


def kept(nodes: Iterable[Node]) -> Iterator[tuple[Node, Kept]]:
    """What each node keeps while decoding."""
    return ((node, k) for node in nodes for k in node.op.kept)


def cache_bytes(
    nodes: Iterable[Node],
    tokens: int,
    width: int = 2,
    held: bool = False,
    *,
    memory: int | None = None,
    batch: int = 1,
    grown: bool | None = None,
) -> int:
    """Bytes of decoding state after that many tokens.

    Args:
        nodes: what decodes.
        tokens: that it has seen.
        width: bytes of an element of the model; some states are wider whatever the model's type.
        held: what stands in memory, which grows by whole blocks of tokens, instead of what is needed.
        memory: tokens of the memory; as many where nothing is said.
        batch: sequences.
        grown: only what grows with the text or the memory, or only what does not; both where nothing is said.
    """
    run = Run(B=batch, T=1, S=tokens, M=tokens if memory is None else memory)
    every = ((n, k) for n, k in kept(nodes) if grown is None or grown == bool(k.grows))
    return sum(n.repeat * k.width(width) * prod(k.held(run) if held else k.needed(run)) for n, k in every)


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
