"""The order of the chains from left to right, and where each stands, so that lines are short and cross little."""

from dataclasses import dataclass
from itertools import pairwise

from archspec.diagram.flow import Edge
from archspec.diagram.rows import Chain, Layered, side_entry
from archspec.diagram.text import measure

GAP = 13.0  # between neighbours of a row
LANE = 5.0  # room on each side of a line
PORT = 16.0  # from a line to the side of the box that it enters


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
            if any(_in_row(chains[d], row[name]) or any(d in s for s in others) for d in between):
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


def _in_row(chain: Chain, row: int) -> bool:
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
        cost += 0.25 * _in_row(other, row + 1)
        if meets:
            cost += 8.0 * (_in_row(other, row) and d not in spans[edge.source])
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
    cost += 0.25 * sum(_in_row(layered.chains[d], row) for d in between)
    if side_entry(layered.flow.nodes[edge.target], edge):
        left = position[chain.index] < position[target]
        cost += 0.4 * (left if edge.style != "control" else not left) + 2.5 * (edge.style == "residual" and left)
        cost += 3.0 * sum(_in_row(layered.chains[d], row) for d in between)
        return cost + 2.5 * _same_side(layered, position, chain, edge, left)
    return cost + 8.0 * sum(_in_row(layered.chains[d], row) and d not in spans[edge.target] for d in between)


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
        cost += sum(0.6 for i, a in enumerate(places) for b in places[i + 1 :] if a > b)
    return cost


@dataclass(frozen=True, slots=True)
class Block:
    """What stands in one row at one place: its ends and the chains it holds."""

    left: float
    right: float
    chains: tuple[int, ...]


class Columns:
    """The x of every chain: the main chain at 0, the others pushed outward until nothing touches."""

    def __init__(self, found: Ordered):
        self.found, self.layered = found, found.layered
        self.x = dict.fromkeys(found.order, 0.0)
        self.rows = [self._row(r) for r in range(self.layered.n_rows)]
        self._settle()
        self._align()

    def _settle(self) -> None:
        for _ in range(60):
            if not self._push():
                break

    def _align(self) -> None:
        """Put all residual rails of one side at one place."""
        rails = [
            c.index for c in self.layered.chains if not c.nodes and c.leave is not None and c.leave.style == "residual"
        ]
        for side in (-1, 1):
            own = [c for c in rails if self.x[c] * side > 0]
            if len(own) > 1:
                outer = side * max(side * self.x[c] for c in own)
                self.x |= dict.fromkeys(own, outer)
                self._settle()

    def ends(self, name: str) -> tuple[float, float]:
        """Left and right end of a node."""
        node = self.layered.flow.nodes[name]
        own = self.x[self.layered.chain_of[name]]
        if node.form == "label":
            return own - LANE, own + node.w + 7
        lanes = [self.x[c] for c in self.found.spans.get(name, ())] or [own]
        low, high = min(lanes), max(lanes)
        half = max(node.w / 2, (high - low) / 2 + (PORT if high > low else 0))
        return (low + high) / 2 - half, (low + high) / 2 + half

    def _row(self, row: int) -> list[tuple[str, int]]:
        """The chains of a row from left to right, each with its node, if it has one there."""
        nodes = {self.layered.chain_of[n]: n for n, r in self.layered.row.items() if r == row}
        covered = {c for n in nodes.values() for c in self.found.spans.get(n, ())} - set(nodes)
        return [
            (nodes.get(c, ""), c)
            for c in self.found.order
            if c in nodes or (_in_row(self.layered.chains[c], row) and c not in covered)
        ]

    def _block(self, name: str, c: int, row: int) -> Block:
        if name:
            left, right = self.ends(name)
            return Block(left, right, tuple(self.found.spans.get(name, {c})))
        chain = self.layered.chains[c]
        left, right = self.x[c] - LANE, self.x[c] + LANE
        if chain.leave is not None and chain.leave.label and self.layered.row[chain.leave.target] == row:
            room = measure(chain.leave.label, 8) + 16
            toward = self.found.position[self.layered.chain_of[chain.leave.target]] > self.found.position[c]
            left, right = (left, self.x[c] + room) if toward else (self.x[c] - room, right)
        return Block(left, right, (c,))

    def _push(self) -> bool:
        moved = False
        for row, items in enumerate(self.rows):
            for (a, ca), (b, cb) in pairwise(items):
                left, right = self._block(a, ca, row), self._block(b, cb, row)
                moved |= self._apart(left, right, left.right + GAP * (0.7 if not (a and b) else 1) - right.left)
        for chains in self.found.spans.values():
            lanes = sorted(chains, key=lambda c: self.found.position[c])
            for p, q in pairwise(lanes):
                moved |= self._apart(Block(0, 0, (p,)), Block(0, 0, (q,)), 30 - (self.x[q] - self.x[p]))
        return moved

    def _apart(self, left: Block, right: Block, missing: float) -> bool:
        """Move the outer of two neighbours outward by what is missing."""
        if missing <= 0.05:
            return False
        main = self.found.position[0]
        outer = [c for c in right.chains if self.found.position[c] > main]
        step = missing
        if not outer or 0 in right.chains:
            outer, step = [c for c in left.chains if self.found.position[c] < main], -missing
        if not outer:
            outer, step = [c for c in right.chains if self.found.position[c] > main], missing
        for c in outer:
            self.x[c] += step
        return bool(outer)
