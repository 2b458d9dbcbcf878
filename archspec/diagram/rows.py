"""Rows and chains: which node stands above which, and which nodes stand exactly above one another.

A chain is a vertical: nodes, and the lane in which a line runs past other rows. The main chain leads from the input to
the output. Every line is one of: inside a chain, the start of one (from a node of another), the end of one (into a node
of another), or a wire, which is a chain of its own without nodes.
"""

from dataclasses import dataclass, field

from archspec.diagram.flow import SINK, Edge, Flow, Node


@dataclass(slots=True)
class Chain:
    """A vertical: `nodes` from below, the line that enters it and the one that leaves it, rows that it takes."""

    index: int
    nodes: list[str] = field(default_factory=list)
    entry: Edge | None = None
    leave: Edge | None = None
    low: int = 0
    high: int = 0


@dataclass
class Layered:
    """A flow with its rows and chains."""

    flow: Flow
    row: dict[str, int]
    chains: list[Chain]
    chain_of: dict[str, int]
    lane_of: dict[Edge, int]  # the chain in whose lane a line runs
    fans: list[list[int]] = field(default_factory=list)  # of each box with several inputs, their chains in order

    @property
    def n_rows(self) -> int:
        """Rows there are."""
        return max(self.row.values()) + 1


def layered(flow: Flow) -> Layered:
    """Give every node a row and a chain."""
    into = {n: flow.into(n) for n in flow.nodes}
    out = {n: flow.out_of(n) for n in flow.nodes}
    row = _rows(flow, into, out)
    chains = _node_chains(flow, row, into, out)
    chain_of = {n: c.index for c in chains for n in c.nodes}
    lane_of = _lanes(flow, chains, chain_of, into, out)
    found = Layered(flow, row, chains, chain_of, lane_of)
    for chain in chains:
        _extent(found, chain)
    for name, edges in into.items():
        lanes = [lane_of[e] for e in edges if e.style == "flow"]
        if len(lanes) > 1 and flow.nodes[name].form != "circle":
            found.fans.append(lanes)
    return found


def side_entry(node: Node, edge: Edge) -> bool:
    """Whether a line from another chain enters a node at its side: circles, and dashed lines into boxes."""
    return node.form == "circle" or edge.style == "control"


def _rows(flow: Flow, into: dict[str, list[Edge]], out: dict[str, list[Edge]]) -> dict[str, int]:
    """The longest way from an input; late nodes right below what reads them."""
    row: dict[str, int] = {}
    waits = {n: [e.source for e in into[n]] + [c.source for c in flow.nodes[n].covers] for n in flow.nodes}
    for node in flow.nodes.values():
        for edge in node.covers:
            waits[edge.target].append(node.name)
    order = _ordered(waits)
    for n in order:
        row[n] = max((row[s] + 1 for s in waits[n]), default=0)
    for n in reversed(order):
        node = flow.nodes[n]
        if (node.late or not into[n]) and out[n]:
            row[n] = max(row[n], min(row[e.target] for e in out[n]) - 1)
        if node.form == "text" and not into[n] and n.startswith("<"):
            row[n] = 0
    row[SINK] = max(row.values())
    return row


def _ordered(waits: dict[str, list[str]]) -> list[str]:
    """The nodes with every input before what reads it."""
    done: dict[str, None] = {}
    left = dict(waits)
    while left:
        ready = [n for n, sources in left.items() if all(s in done or s not in waits for s in sources)]
        if not ready:
            raise ValueError(f"the dataflow has a cycle among {', '.join(left)}")
        for n in ready:
            done[n] = None
            del left[n]
    return list(done)


def _node_chains(
    flow: Flow, row: dict[str, int], into: dict[str, list[Edge]], out: dict[str, list[Edge]]
) -> list[Chain]:
    heavy: set[str] = set()
    for name in sorted(flow.nodes, key=lambda n: row[n]):
        if flow.nodes[name].key or any(e.source in heavy for e in into[name]):
            heavy.add(name)
    main = [SINK]
    while (edge := _main_input(flow, row, heavy, into[main[0]])) is not None:
        main.insert(0, edge.source)
    chains = [Chain(0, main)]
    taken = set(main)
    for name in sorted(flow.nodes, key=lambda n: row[n]):
        if name in taken:
            continue
        run = [name]
        taken.add(name)
        while nexts := [e.target for e in out[run[-1]] if e.target not in taken and e.style == "flow"]:
            run.append(nexts[0])
            taken.add(nexts[0])
        chains.append(Chain(len(chains), run))
    return chains


def _main_input(flow: Flow, row: dict[str, int], heavy: set[str], edges: list[Edge]) -> Edge | None:
    """Which input the main chain comes from: the middle one of three, else the first.

    Into a circle it comes from the op that the panel is about, or the longest way.
    """
    plain = [e for e in edges if e.style != "control"]
    if not plain:
        return None
    if flow.nodes[plain[0].target].form == "circle":
        flowing = [e for e in plain if e.style == "flow"] or plain
        return max(flowing, key=lambda e: (e.source in heavy, row[e.source], -e.order))
    return plain[(len(plain) - 1) // 2] if len(plain) > 2 else plain[0]


def _lanes(
    flow: Flow,
    chains: list[Chain],
    chain_of: dict[str, int],
    into: dict[str, list[Edge]],
    out: dict[str, list[Edge]],
) -> dict[Edge, int]:
    lanes: dict[Edge, int] = {}
    for chain in chains:
        for below, above in zip(chain.nodes, chain.nodes[1:], strict=False):
            edge = next(e for e in out[below] if e.target == above and e not in lanes)
            lanes[edge] = chain.index
    for chain in chains:
        _ends(flow, chain, into, out, lanes)
    for edge in flow.edges:
        if edge not in lanes:
            wire = Chain(len(chains), [], edge, edge)
            chains.append(wire)
            lanes[edge] = wire.index
    return lanes


def _ends(
    flow: Flow, chain: Chain, into: dict[str, list[Edge]], out: dict[str, list[Edge]], lanes: dict[Edge, int]
) -> None:
    """Choose the line that enters a chain and the one that leaves it."""
    free = [e for e in into[chain.nodes[0]] if e not in lanes]
    if free:
        chain.entry = free[0]
        lanes[free[0]] = chain.index
    leaving = [e for e in out[chain.nodes[-1]] if e not in lanes]
    if leaving:
        chain.leave = min(leaving, key=lambda e: flow.nodes[e.target].form == "circle" and e.style == "control")
        lanes[chain.leave] = chain.index


def _extent(found: Layered, chain: Chain) -> None:
    """The rows in which a chain stands or passes: a line that ends at a side also takes the row of its end."""
    rows = [found.row[n] for n in chain.nodes]
    if chain.entry is not None:
        rows.append(found.row[chain.entry.source] + 1)
    if chain.leave is not None:
        target = found.flow.nodes[chain.leave.target]
        at = found.row[target.name]
        rows.append(at if side_entry(target, chain.leave) else at - 1)
    if not rows:
        rows = [0]
    chain.low, chain.high = min(rows), max(rows)
    if not chain.nodes and chain.entry is not None:
        chain.low = found.row[chain.entry.source] + 1
        if chain.high < chain.low:
            chain.low, chain.high = chain.low, chain.low - 1
