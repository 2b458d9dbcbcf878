"""The order of the chains from left to right, so that lines are short and cross little."""

from dataclasses import dataclass

from archspec.diagram.flow import Edge
from archspec.diagram.rows import Chain, Layered, side_entry


@dataclass
class Ordered:
    """Chains by position, and the chains whose lines meet each node from below or above at their own place."""

    layered: Layered
    order: list[int]
    spans: dict[str, set[int]]

    def __post_init__(self) -> None:
        self.position = {c: i for i, c in enumerate(self.order)}


def ordered(layered: Layered) -> Ordered:
    """Put one chain after another where it costs least; then take each out once more and put it where it is best."""
    spans = _spans(layered)
    order = [0]
    for chain in layered.chains[1:]:
        order = _inserted(layered, spans, order, chain.index)
    for chain in layered.chains[1:] if len(order) > 2 else ():
        order = _inserted(layered, spans, [c for c in order if c != chain.index], chain.index)
    found = Ordered(layered, order, spans)
    _drop_blocked(found)
    return found


def _inserted(layered: Layered, spans: dict[str, set[int]], order: list[int], chain: int) -> list[int]:
    """The order with a chain in its cheapest place, as far to the right as that may be."""
    options = ([*order[:i], chain, *order[i:]] for i in range(len(order), -1, -1))
    return min(options, key=lambda option: _cost(layered, spans, option))


def _spans(layered: Layered) -> dict[str, set[int]]:
    """Which chains meet which node at its lower or upper side."""
    flow, spans = layered.flow, dict[str, set[int]]()
    for chain in layered.chains:
        leave, entry = chain.leave, chain.entry
        if leave is not None and not side_entry(flow.nodes[leave.target], leave):
            spans.setdefault(leave.target, {layered.chain_of[leave.target]}).add(chain.index)
        if entry is not None and flow.nodes[entry.source].split:
            spans.setdefault(entry.source, {layered.chain_of[entry.source]}).add(chain.index)
    for node in flow.nodes.values():
        for edge in node.covers:
            spans.setdefault(node.name, {layered.chain_of[node.name]}).add(layered.lane_of[edge])
    return spans


def _drop_blocked(found: Ordered) -> None:
    """A chain cannot meet a node at its own place when something else stands between them in that row."""
    row, chains = found.layered.row, found.layered.chains
    for name, meeting in found.spans.items():
        own = found.layered.chain_of[name]
        others = [s for n, s in found.spans.items() if n != name and row[n] == row[name]]
        for c in sorted(meeting - {own}, key=lambda c: -abs(found.position[c] - found.position[own])):
            between = set(_between(found.order, found.position, c, own)) - meeting
            if any(in_row(chains[d], row[name]) or any(d in s for s in others) for d in between):
                meeting.discard(c)


def hidden_circles(found: Ordered) -> list[str]:
    """Circles that a line cannot reach from its side, because a node stands between them."""
    layered, hidden = found.layered, dict[str, None]()
    for chain in layered.chains:
        target = chain.leave.target if chain.leave is not None else ""
        if not target or layered.flow.nodes[target].form != "circle":
            continue
        between = _between(found.order, found.position, chain.index, layered.chain_of[target])
        row = layered.row[target]
        if any(layered.row[n] == row for d in between for n in layered.chains[d].nodes):
            hidden[target] = None
    return list(hidden)


def _between(order: list[int], position: dict[int, int], a: int, b: int) -> list[int]:
    low, high = sorted((position[a], position[b]))
    return order[low + 1 : high]


def in_row(chain: Chain, row: int) -> bool:
    """Whether a chain stands or passes in a row."""
    return chain.low <= row <= chain.high


def _in_channel(layered: Layered, chain: Chain, row: int) -> bool:
    """Whether a chain runs from a row to the next."""
    low = chain.low - (chain.entry is not None)
    leaves = chain.leave is not None and layered.row[chain.leave.target] > chain.high
    return low <= row < chain.high + leaves


def _cost(layered: Layered, spans: dict[str, set[int]], order: list[int]) -> float:
    """What an order costs: crossings, detours, lines through boxes, and inputs out of their order."""
    position = {c: i for i, c in enumerate(order)}
    cost = 0.0
    for c in order:
        chain = layered.chains[c]
        if chain.entry is not None:
            cost += _entry_cost(layered, spans, order, position, chain, chain.entry)
        if chain.leave is not None and layered.chain_of[chain.leave.target] in position:
            cost += _leave_cost(layered, spans, order, position, chain, chain.leave)
    return cost + _inversions(layered, position)


def _entry_cost(
    layered: Layered,
    spans: dict[str, set[int]],
    order: list[int],
    position: dict[int, int],
    chain: Chain,
    edge: Edge,
) -> float:
    source = layered.chain_of[edge.source]
    if source not in position or source == chain.index:
        return 0.0
    row, cost = layered.row[edge.source], 0.02 * abs(position[source] - position[chain.index])
    meets = chain.index in spans.get(edge.source, ())
    for d in _between(order, position, source, chain.index):
        other = layered.chains[d]
        cost += 0.25 * in_row(other, row + 1)
        if meets:
            cost += 8.0 * (in_row(other, row) and d not in spans[edge.source])
        elif other.entry is None or other.entry.source != edge.source:
            cost += 1.0 * _in_channel(layered, other, row)
    return cost


def _leave_cost(
    layered: Layered,
    spans: dict[str, set[int]],
    order: list[int],
    position: dict[int, int],
    chain: Chain,
    edge: Edge,
) -> float:
    target = layered.chain_of[edge.target]
    if target == chain.index:
        return 0.0
    between = _between(order, position, target, chain.index)
    row, cost = layered.row[edge.target], 0.02 * abs(position[target] - position[chain.index])
    cost += 0.25 * sum(in_row(layered.chains[d], row) for d in between)
    if side_entry(layered.flow.nodes[edge.target], edge):
        left = position[chain.index] < position[target]
        cost += 0.4 * (left if edge.style != "control" else not left) + 2.5 * (edge.style == "residual" and left)
        cost += 3.0 * sum(in_row(layered.chains[d], row) for d in between)
        return cost + 2.5 * _same_side(layered, position, chain, edge, left)
    return cost + 8.0 * sum(in_row(layered.chains[d], row) and d not in spans[edge.target] for d in between)


def _same_side(layered: Layered, position: dict[int, int], chain: Chain, edge: Edge, left: bool) -> int:
    """Other lines that enter the same circle at the same side."""
    found = 0
    for other in layered.chains:
        if other.index == chain.index or other.index not in position or other.leave is None:
            continue
        if other.leave.target == edge.target and layered.chain_of[edge.target] != other.index:
            found += (position[other.index] < position[layered.chain_of[edge.target]]) == left
    return found


def _inversions(layered: Layered, position: dict[int, int]) -> float:
    """Inputs of a box that stand in another order than it reads them."""
    cost = 0.0
    for lanes in layered.fans:
        places = [position[c] for c in lanes if c in position]
        cost += 0.6 * sum(1 for i, a in enumerate(places) for b in places[i + 1 :] if a > b)
    return cost
