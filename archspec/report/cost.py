"""A `Cost` as a table for a terminal, as Markdown, as JSON and as CSV.

layer          times        forward       backward          total  share  bytes moved
embedding                         0              0              0   0.0%    3,145,728
blocks.0-11       12  96,636,764,160 ...
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from archspec.errors import in_tokens, many
from archspec.layers.ops import CLASSES, SCAN, Attend, Experts, Scan
from archspec.passes.cost import Cost
from archspec.passes.count import spread
from archspec.passes.dtypes import bytes_of
from archspec.passes.work import Line as Work
from archspec.report.layers import layers_of, of_layers, section_of
from archspec.report.text import Line, human_bytes, human_flops, in_columns, in_markdown

BY = ("layer", "kind", "op")
_RIGHT = ("times", "forward", "backward", "again", "flops", "share", "bytes moved", "saved")


# what a training step holds beside the figures of every phase
_OF_TRAINING = ("master_bytes", "buffer_bytes", "recomputed_bytes", "loss_bytes", "output_bytes", "workspace_bytes")

Saved = Mapping[str, int] | None  # bytes by the name of the node


@dataclass(frozen=True, slots=True)
class Row:
    """What ops of one name cost in all of the layers that they stand in.

    `saved` are the bytes that they keep for the backward pass; None where that is not known.
    """

    name: str
    times: int
    forward: int
    backward: int
    again: int
    needed: int
    bytes_moved: int
    saved: int | None

    @property
    def total(self) -> int:
        """All FLOPs."""
        return self.forward + self.backward + self.again

    def plus(self, other: "Row") -> "Row":
        """Both together."""
        saved = None if self.saved is None or other.saved is None else self.saved + other.saved
        return replace(
            self,
            forward=self.forward + other.forward,
            backward=self.backward + other.backward,
            again=self.again + other.again,
            needed=self.needed + other.needed,
            bytes_moved=self.bytes_moved + other.bytes_moved,
            saved=saved,
        )


def rows(cost: Cost, by: str = "layer") -> list[Row]:
    """The costs by layer (layers that are alike as one row), by kind of component, or by op."""
    saved = {node.name: n for node, n in cost.memory.by_node} if cost.memory else None
    if by == "op":
        return [_row(spread(line.node.name, line.node), line, cost, saved) for line in cost.lines]
    if by == "kind":
        found = _summed((line.kind, _row(line.kind, line, cost, saved)) for line in cost.lines)
        return sorted(found, key=lambda row: -row.total)
    return list(_by_layer(cost, saved))


def _row(name: str, line: Work, cost: Cost, saved: Saved) -> Row:
    n = line.times
    return Row(
        name=name,
        times=n,
        forward=n * line.forward,
        backward=n * line.backward,
        again=n * line.again,
        needed=n * line.needed,
        bytes_moved=n * (line.read + line.written) * bytes_of(cost.dtype),
        saved=None if saved is None else saved.get(line.node.name, 0),
    )


def _summed(named: Iterable[tuple[Any, Row]]) -> list[Row]:
    found: dict[Any, Row] = {}
    for key, row in named:
        found[key] = found[key].plus(row) if key in found else row
    return list(found.values())


def _by_layer(cost: Cost, saved: Saved) -> Iterator[Row]:
    """A row for each part of the model; layers of the same costs stand together."""
    named = ((section_of(spread(line.node.name, line.node)), line) for line in cost.lines)
    parts = _summed((name, _row(name, line, cost, saved)) for name, line in named)
    alike: dict[Any, list[Row]] = {}
    for row in parts:
        layers = layers_of(row.name)
        each = tuple(v // row.times for v in (row.forward, row.backward, row.again, row.needed, row.bytes_moved))
        alike.setdefault((row.name.partition("blocks.")[0], each) if layers else row.name, []).append(row)
    for members in alike.values():
        first = members[0]
        layers = tuple(sorted(i for row in members for i in layers_of(row.name)))
        whole = _summed((0, row) for row in members)[0]
        yield replace(whole, name=of_layers(first.name, layers), times=len(layers)) if layers else whole


def lines(cost: Cost, by: str) -> list[Line]:
    """The table as texts, its header first and the sum of all last."""
    every = rows(cost, by)
    total = _summed((0, row) for row in every)[0]
    train = cost.workload.phase == "train"
    again = train and cost.checkpoint != "none"
    header = [by, *(["times"] if by != "kind" else []), "forward", *(["backward"] if train else [])]
    header += [
        *(["again"] if again else []),
        *(["flops"] if train else []),
        "share",
        "bytes moved",
        *(["saved"] if train else []),
    ]
    cells = {
        by: lambda row: row.name,
        "times": lambda row: f"{row.times}" if row.times > 1 else "",
        "forward": lambda row: f"{row.forward:,}",
        "backward": lambda row: f"{row.backward:,}",
        "again": lambda row: f"{row.again:,}",
        "flops": lambda row: f"{row.total:,}",
        "share": lambda row: f"{100 * row.total / max(total.total, 1):.1f}%",
        "bytes moved": lambda row: f"{row.bytes_moved:,}",
        "saved": lambda row: f"{row.saved:,}",
    }
    texts = [tuple(cells[name](row) for name in header) for row in every]
    last = replace(total, name="total", times=1)
    return [tuple(header), *texts, tuple("" if name == "share" else cells[name](last) for name in header)]


def totals(cost: Cost) -> list[tuple[str, str]]:
    """The footer: what was asked, and every figure with its convention."""
    said = [("work", work(cost)), ("flops", human_flops(cost.flops))]
    if cost.workload.phase == "train":
        parts = [f"forward {cost.flops_forward:,}", f"backward {cost.flops_backward:,}"]
        parts += [f"run again {cost.flops_again:,}"] if cost.flops_again else []
        said.append(("", " + ".join(parts)))
    said.append(("flops per token", human_flops(per_token(cost))))
    said += _classes(cost)
    if cost.flops_needed != cost.flops_forward:
        share = 100 * (1 - cost.flops_needed / cost.flops_forward)
        said.append(
            ("flops needed", f"{cost.flops_needed:,} forward; {share:.3g}% are pairs hidden by a mask or window")
        )
    said += [(f"mfu flops, {name}", f"{n:,}") for name, n in cost.mfu.items()]
    said.append(
        ("bytes moved", f"{human_bytes(cost.bytes_moved)} forward, {cost.intensity:,.1f} FLOPs a byte; estimate")
    )
    if any(isinstance(line.node.op, Experts) for line in cost.lines):
        said.append(("", "at most: as if the tokens chose as many different experts as they can"))
    if cost.bytes_moved_unfused != cost.bytes_moved:
        said.append(("bytes moved unfused", f"{human_bytes(cost.bytes_moved_unfused)}; estimate"))
    said += list(_held(cost))
    for name, n in (("cache bytes", cost.cache_bytes), ("state bytes", cost.state_bytes)):
        said += [(name, f"{human_bytes(n)} after {in_tokens(cost.workload.context)}")] if n else []
    said.append(("sequential steps", f"{cost.sequential_steps:,}"))
    return said


def per_token(cost: Cost) -> int:
    """FLOPs of each token, rounded."""
    return round(cost.flops / cost.tokens)


def _held(cost: Cost) -> Iterator[tuple[str, str]]:
    """What stands in memory, part by part, and the most at once."""
    yield "weight bytes", human_bytes(cost.weight_bytes)
    if (m := cost.memory) is not None:
        yield "gradient bytes", human_bytes(m.gradient_bytes)
        yield "optimizer bytes", f"{human_bytes(m.optimizer_bytes)}, {m.optimizer}"
        if m.master_bytes:
            yield "", f"of these {human_bytes(m.master_bytes)} are master weights"
        yield "saved bytes", human_bytes(m.saved_bytes) + " for the backward pass" + _estimated(cost, "saved_bytes")
        yield "loss bytes", human_bytes(m.loss_bytes)
        if m.recomputed_bytes:
            yield "recomputed bytes", human_bytes(m.recomputed_bytes) + " of a layer run again"
    yield "peak bytes", f"{human_bytes(cost.peak_bytes)}, at the {cost.peak_moment}" + _estimated(cost, "peak_bytes")


def _estimated(cost: Cost, name: str) -> str:
    return "; estimate" if name in cost.estimates else ""


def work(cost: Cost) -> str:
    """What was priced, with its conventions."""
    w = cost.workload
    what = {"train": "a training step on", "prefill": "a prefill of", "decode": "one more token for"}[w.phase]
    length = f"that see {w.context:,}" if w.phase == "decode" else f"of {in_tokens(w.seq)}"
    memory = f", a memory of {w.memory:,}" if w.memory else ""
    length = length.replace("that see", "that sees" if w.batch == 1 else "that see")
    attends = any(isinstance(line.node.op, Attend) for line in cost.lines)
    how = [
        cost.dtype,
        *([f"{cost.attention} attention"] if attends else []),
        *(["blocks checkpointed"] if cost.checkpoint == "block" else []),
    ]
    return f"{what} {many(w.batch, 'sequence')} {length}{memory}; {', '.join(how)}"


def _classes(cost: Cost) -> Iterator[tuple[str, str]]:
    for name in CLASSES:
        n = cost.by_class[name]
        estimate = " (estimate)" if f"by_class.{name}" in cost.estimates else ""
        if n:
            products = sum(line.times * line.forward for line in cost.lines if isinstance(line.node.op, Scan))
            part = f", of which {products:,} are products and part of flops" if name == SCAN and products else ""
            yield f"forward, {name}{estimate}", f"{n:,}{part}"


# The formats


def table(cost: Cost, by: str = "") -> str:
    """The costs as text in columns."""
    footer = totals(cost)
    width = max(len(name) for name, _ in footer)
    body = in_columns(lines(cost, by or "layer"), _RIGHT)
    return "\n".join([cost.name, "", *body, "", *(f"{name:<{width}}  {value}" for name, value in footer)])


def markdown(cost: Cost, by: str = "") -> str:
    """The costs as a Markdown table and a list."""
    footer = [f"- {name}: {value}" if name else f"  ({value})" for name, value in totals(cost)]
    return "\n".join([f"## {cost.name}", "", *in_markdown(lines(cost, by or "layer"), _RIGHT), "", *footer])


def as_json(cost: Cost, by: str = "") -> str:
    """Every figure, the conventions, and the rows."""
    asked = asdict(cost.workload) | {"dtype": cost.dtype, "attention": cost.attention, "checkpoint": cost.checkpoint}
    found: dict[str, Any] = {"name": cost.name, "work": asked} | cost.numbers
    found |= {
        "flops_per_token": per_token(cost),
        "peak_moment": cost.peak_moment,
        "by_class": cost.by_class,
        "mfu_flops": cost.mfu,
    }
    if (m := cost.memory) is not None:
        asked |= {"optimizer": m.optimizer, "gradient_dtype": m.gradient_dtype, "master_dtype": m.master_dtype}
        found |= {name: getattr(m, name) for name in _OF_TRAINING}
    found["estimates"] = [name for name in cost.estimates if name.partition(".")[0] in found]
    return json.dumps(found | {f"{by or 'layer'}s": [_record(row) for row in rows(cost, by or "layer")]}, indent=2)


def as_csv(cost: Cost, by: str = "") -> str:
    """The rows as CSV with a header."""
    records = [_record(row) for row in rows(cost, by or "layer")]
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue().rstrip("\n")


def _record(row: Row) -> dict[str, Any]:
    return {k: v for k, v in asdict(row).items() if v is not None} | {"flops": row.total}


FORMATS: dict[str, Callable[[Cost, str], str]] = {
    "table": table,
    "json": as_json,
    "markdown": markdown,
    "csv": as_csv,
}
