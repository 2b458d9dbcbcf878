"""What a panel shows before it has places: boxes, circles and texts, and the lines between them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from archspec.diagram.scene import CIRCLE
from archspec.diagram.style import GREY, NEUTRAL, WHITE, Tone
from archspec.diagram.text import Line, extent, styled

SOURCE, SINK = "<in>", "<out>"
PAD_X, PAD_Y = 16.0, 7.0


def outside(name: str) -> str:
    """The node of something that comes in from outside; `x` is the first of them."""
    return SOURCE if name == "x" else f"<{name}>"


@dataclass(slots=True)
class Node:
    """Something to be placed. `label` nodes are texts beside a line that passes through them."""

    name: str
    form: Literal["box", "circle", "text", "label", "grid"] = "box"
    lines: tuple[Line, ...] = ()
    tone: Tone = NEUTRAL
    pen: float = 1.2
    dashed: bool = False
    w: float = 0.0
    h: float = 0.0
    split: bool = False  # its outputs are different tensors, which leave it side by side
    key: bool = False  # what the panel is about
    late: bool = False  # stands near what reads it, not near what it reads
    inset: tuple[Line, ...] = ()  # a dashed box inside: the state
    grid: tuple[int, int] = (0, 0)  # experts, and how many of them a token runs
    covers: tuple["Edge", ...] = ()  # lines that pass through it


@dataclass(frozen=True, slots=True)
class Edge:
    """A line from a node to a later one; `order` is which input it is."""

    source: str
    target: str
    order: int = 0
    style: Literal["flow", "residual", "control"] = "flow"
    label: str = ""
    color: str = ""


@dataclass
class Flow:
    """The nodes in order, and the lines."""

    nodes: dict[str, Node] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)

    def add(self, node: Node, inputs: Iterable[str] = ()) -> Node:
        """Add a node that reads others."""
        self.nodes[node.name] = node
        self.edges += [Edge(source, node.name, i) for i, source in enumerate(inputs)]
        return node

    def into(self, name: str) -> list[Edge]:
        """The lines into a node, in the order of its inputs."""
        return sorted((e for e in self.edges if e.target == name), key=lambda e: e.order)

    def out_of(self, name: str) -> list[Edge]:
        """The lines out of a node."""
        return [e for e in self.edges if e.source == name]

    def origin(self, edge: Edge) -> str:
        """The node that a line comes from, past the texts that it passes through."""
        while self.nodes[edge.source].form == "label":
            (edge,) = self.into(edge.source)
        return edge.source

    def replace(self, old: Edge, *new: Edge) -> None:
        """Put other lines in the place of one."""
        at = self.edges.index(old)
        self.edges[at : at + 1] = new


def box(name: str, title: str, subs: Iterable[str] = (), tone: Tone = NEUTRAL, size: float = 10, **look: float) -> Node:
    """A box with a bold title and grey lines below it, as large as they need."""
    lines = (Line(title, size, True), *styled(subs, 8, GREY))
    w, h = box_size(lines, look.get("least", 46))
    return Node(name, lines=lines, tone=tone, pen=look.get("pen", 1.2), w=w, h=h)


def box_size(lines: tuple[Line, ...], least: float) -> tuple[float, float]:
    """Width and height of a box around some lines, at least that wide."""
    w, h = extent(lines)
    return max(w + PAD_X, least), h + PAD_Y + (1 if len(lines) > 1 else 0)


def circle(name: str, text: str) -> Node:
    """A circle with a sign."""
    return Node(name, "circle", (Line(text, 11, True),), w=CIRCLE, h=CIRCLE)


def bare(name: str, text: str) -> Node:
    """A text where a line starts or ends."""
    lines = (Line(text, 9, color=GREY),)
    w, h = extent(lines)
    return Node(name, "text", lines, w=w, h=h)


def beside(name: str, text: str) -> Node:
    """A text beside a line."""
    lines = (Line(text, 8, color=GREY),)
    w, h = extent(lines)
    return Node(name, "label", lines, w=w, h=h)


def white(name: str, title: str, subs: Iterable[str] = (), late: bool = False) -> Node:
    """A small white box for what has no or few parameters."""
    found = box(name, title, subs, Tone(WHITE, NEUTRAL.border), 9)
    found.late = late
    return found


def with_line(node: Node, text: str) -> Node:
    """The node with one more grey line."""
    node.lines = (*node.lines, Line(text, 8, color=GREY))
    node.w, node.h = box_size(node.lines, node.w)
    return node


def with_inset(node: Node, text: str) -> Node:
    """The node with a dashed box in it, for what it keeps."""
    node.inset = (Line(text, 8, color=GREY),)
    w, h = extent(node.inset)
    _, own = extent(node.lines)
    node.w = max(node.w, w + 30)
    node.h = own + h + PAD_Y + 9
    return node
