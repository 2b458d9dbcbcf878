"""A flow with places: sizes first, then boxes and right-angled lines in a scene."""

from math import fsum

from archspec.diagram.columns import Columns
from archspec.diagram.flow import Edge, Flow, Node
from archspec.diagram.grid import draw_grid
from archspec.diagram.order import hidden_circles, ordered
from archspec.diagram.rows import layered, side_entry
from archspec.diagram.scene import CIRCLE, Path, Point, Scene, Shape, dot
from archspec.diagram.style import INK, RAIL, WHITE
from archspec.diagram.text import Line, extent

CHANNEL, TIGHT, TRACK = 20.0, 8.0, 11.0
MOST_STRETCH = 34.0

Net = tuple[str, float, float]  # what draws it, and its ends


class Placed:
    """A flow whose nodes have rows and columns; `paint` draws it into a room of any size that is large enough."""

    def __init__(self, flow: Flow):
        self.flow = flow
        self.found = ordered(layered(flow))
        while hidden := hidden_circles(self.found):
            for name in hidden:
                flow.nodes[name].form, flow.nodes[name].w = "box", 2 * CIRCLE
            self.found = ordered(layered(flow))
        self.layered = self.found.layered
        self.columns = Columns(self.found)
        self.x = self.columns.x
        self.ends = {n: self.columns.ends(n) for n in flow.nodes}
        self.rows = [self._row_height(r) for r in range(self.layered.n_rows)]
        self.nets = [self._nets(r) for r in range(self.layered.n_rows - 1)]
        self.tracks = [_levels(nets) for nets in self.nets]
        self.channels = [self._channel(r) for r in range(self.layered.n_rows - 1)]
        lanes = [self.x[c.index] for c in self.layered.chains]
        self.left = min([e[0] for e in self.ends.values()] + [x - 4 for x in lanes])
        self.right = max([e[1] for e in self.ends.values()] + [x + 4 for x in lanes])

    @property
    def width(self) -> float:
        """Points from its left to its right end."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Points from its lower to its upper end, at its tightest."""
        return fsum((*self.rows, *self.channels))

    def paint(self, scene: Scene, left: float, bottom: float, width: float, height: float) -> dict[str, Shape]:
        """Draw it in the middle of a room, its rows spread upwards; the shapes of the nodes by name."""
        loose = [i for i in range(len(self.channels)) if self.channels[i] > TIGHT + 4]
        spare = max(height - self.height, 0.0)
        stretch = min(spare / max(len(loose), 1), MOST_STRETCH)
        self.space = [c + (stretch if i in loose else 0.0) for i, c in enumerate(self.channels)]
        self.dx = left + width / 2 - (self.left + self.right) / 2
        y = bottom + (height - fsum((*self.rows, *self.space))) / 2
        self.y: list[float] = []
        for i, h in enumerate(self.rows):
            self.y.append(y + h / 2)
            y += h + (self.space[i] if i < len(self.space) else 0.0)
        self.scene = scene
        for edge in self.flow.edges:
            self._draw(edge)
        self._dots()
        return {name: self._node(node) for name, node in self.flow.nodes.items()}

    # Sizes

    def _row_height(self, row: int) -> float:
        return max((self.flow.nodes[n].h for n, r in self.layered.row.items() if r == row), default=0.0)

    def _channel(self, row: int) -> float:
        """The room between a row and the next: less around texts beside a line, more for each track in it."""
        levels = 1 + max(self.tracks[row].values(), default=-1)
        above = [self.flow.nodes[n] for n, r in self.layered.row.items() if r == row + 1]
        below = [self.flow.nodes[n] for n, r in self.layered.row.items() if r == row]
        tight = all(n.form == "label" for n in above) or all(n.form == "label" for n in below)
        return (TIGHT if tight and not levels else CHANNEL) + TRACK * levels

    def _nets(self, row: int) -> list[Net]:
        """The horizontal lines between a row and the next."""
        found: list[Net] = []
        for name, r in self.layered.row.items():
            if r != row:
                continue
            own = self.x[self.layered.chain_of[name]]
            lanes = [self.x[self.layered.lane_of[e]] for e in self._branches(name)]
            if lanes:
                found.append((name, min([own, *lanes]), max([own, *lanes])))
        for edge, c in self.layered.lane_of.items():
            if self.layered.row[edge.target] == row + 1 and self._detours(edge):
                a, b = sorted((self.x[c], self._port(edge)))
                found.append((f"{edge.source}>{edge.target}>{edge.order}", a, b))
        return found

    def _branches(self, name: str) -> list[Edge]:
        """The lines out of a node that start in another lane and at no place of their own."""
        own, spans = self.layered.chain_of[name], self.found.spans.get(name, set())
        split = self.flow.nodes[name].split
        lanes = [(e, self.layered.lane_of[e]) for e in self.flow.out_of(name)]
        return [e for e, c in lanes if c != own and not (split and c in spans)]

    def _detours(self, edge: Edge) -> bool:
        """Whether a line ends in the lower side of a box that does not reach over its lane."""
        lane, target = self.layered.lane_of[edge], self.flow.nodes[edge.target]
        if lane == self.layered.chain_of[edge.target] or side_entry(target, edge):
            return False
        return lane not in self.found.spans.get(edge.target, set())

    def _port(self, edge: Edge) -> float:
        left, right = self.ends[edge.target]
        return min(max(self.x[self.layered.lane_of[edge]], left + 10), right - 10)

    # Drawing

    def _node(self, node: Node) -> Shape:
        left, right = self.ends[node.name]
        y = self.y[self.layered.row[node.name]]
        x = (left + right) / 2 + self.dx
        if node.form == "label":
            own = self.x[self.layered.chain_of[node.name]] + self.dx
            return self.scene.write(own + 6, y, *node.lines, anchor="left")
        if node.form == "text":
            return self.scene.write(x, y, *node.lines)
        if node.form == "grid":
            return draw_grid(self.scene, node, x, y)
        look = {"form": node.form, "lines": node.lines, "pen": node.pen, "dashed": node.dashed}
        fill, border = (WHITE, INK) if node.form == "circle" else (node.tone.fill, node.tone.border)
        if node.inset:
            return self._with_inset(node, x, y, right - left)
        shape = Shape(x, y, right - left, node.h, fill=fill, border=border, **look)  # type: ignore[arg-type]
        self.scene.add(shape)
        return shape

    def _with_inset(self, node: Node, x: float, y: float, w: float) -> Shape:
        outer = Shape(x, y, w, node.h, (), role="frame", fill=node.tone.fill, border=node.tone.border, pen=node.pen)
        iw, ih = extent(node.inset)
        _, th = extent(node.lines)
        inner = Shape(
            x,
            outer.bottom + 5 + (ih + 3) / 2,
            iw + 14,
            ih + 3,
            node.inset,
            border=node.tone.border,
            pen=0.9,
            dashed=True,
        )
        self.scene.add(outer, inner)
        self.scene.write(x, outer.top - 3 - th / 2, *node.lines)
        return outer

    def _track(self, row: int, key: str) -> float:
        base = self.y[row] + self.rows[row] / 2
        level = self.tracks[row].get(key, 0)
        used = TRACK * (1 + max(self.tracks[row].values(), default=0))
        return base + (self.space[row] - used) * 0.45 + TRACK * (level + 0.5)

    def _draw(self, edge: Edge) -> None:
        lane = self.layered.lane_of[edge]
        points = self._start(edge, lane)
        points += self._end(edge, lane, points[-1][0])
        passing = self.flow.nodes[edge.target].form == "label"
        color = edge.color or (RAIL if edge.style == "residual" else INK)
        pen = 1.4 if edge.style == "residual" else 1.0
        self.scene.draw(Path(tuple(points), color, pen=pen, dashed=edge.style == "control", arrow=not passing))
        if edge.label:
            (x0, y), (x1, end) = points[-2:]
            label = Line(edge.label, 8, color=color)
            if y == end and label.width < abs(x1 - x0):
                self.scene.write((x0 + x1) / 2, y + 7, label)

    def _start(self, edge: Edge, lane: int) -> list[Point]:
        own, node = self.layered.chain_of[edge.source], self.flow.nodes[edge.source]
        row = self.layered.row[edge.source]
        top = self.y[row] + (0.0 if node.form == "label" else node.h / 2)
        x, here = self.x[lane] + self.dx, self.x[own] + self.dx
        if lane == own or (node.split and lane in self.found.spans.get(edge.source, ())):
            return [(x, top)]
        track = self._track(row, edge.source)
        start = (here, track) if self._goes_on(edge.source) else (here, top)
        return [start, (here, track), (x, track)]

    def _goes_on(self, name: str) -> bool:
        """Whether a line leaves a node straight upwards."""
        own = self.layered.chain_of[name]
        return any(self.layered.lane_of[e] == own for e in self.flow.out_of(name))

    def _end(self, edge: Edge, lane: int, x: float) -> list[Point]:
        target, row = self.flow.nodes[edge.target], self.layered.row[edge.target]
        y = self.y[row]
        bottom = y - (0.0 if target.form == "label" else target.h / 2)
        if lane == self.layered.chain_of[edge.target]:
            return [(x, bottom)]
        if side_entry(target, edge):
            left, right = (e + self.dx for e in self.ends[edge.target])
            if left < x < right:
                return [(x, bottom)]
            return [(x, y), (left if x < (left + right) / 2 else right, y)]
        if self._detours(edge):
            track = self._track(row - 1, f"{edge.source}>{edge.target}>{edge.order}")
            port = self._port(edge) + self.dx
            return [(x, track), (port, track), (port, bottom)]
        return [(x, bottom)]

    def _dots(self) -> None:
        """A dot wherever a line of one tensor branches."""
        for name in self.flow.nodes:
            lanes = sorted({self.x[self.layered.lane_of[e]] for e in self._branches(name)})
            if not lanes:
                continue
            own = self.x[self.layered.chain_of[name]]
            y = self._track(self.layered.row[name], name)
            inner = [x for x in lanes if (own < x < lanes[-1]) or (lanes[0] < x < own)]
            both = lanes[0] < own < lanes[-1]
            for x in [*inner, *([own] if self._goes_on(name) or both else [])]:
                self.scene.add(dot(x + self.dx, y))


def _levels(nets: list[Net]) -> dict[str, int]:
    """A track for each horizontal line, so that no two on one track touch."""
    found: dict[str, int] = {}
    taken: list[list[tuple[float, float]]] = []
    for key, low, high in sorted(nets, key=lambda n: (n[2] - n[1], n[0])):
        free = (i for i, used in enumerate(taken) if all(high + 6 < a or b + 6 < low for a, b in used))
        level = next(free, len(taken))
        if level == len(taken):
            taken.append([])
        taken[level].append((low, high))
        found[key] = level
    return found
