"""Where the chains stand from left to right: in their order, so far apart that nothing touches."""

from dataclasses import dataclass
from itertools import pairwise

from archspec.diagram.order import Ordered, in_row
from archspec.diagram.text import measure

GAP = 13.0  # between neighbours of a row
LANE = 5.0  # room on each side of a line
PORT = 16.0  # from a line to the side of the box that it enters


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
            if c in nodes or (in_row(self.layered.chains[c], row) and c not in covered)
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
